/** Close codes of ours. The session stays: the link is replaced, the page is frozen, the page is loaded again. */
export const GIVEN_UP = 4900
export const FROZEN = 4901
export const RELOADED = 4902

/** Close codes that mean "stop"; what others mean, a new connection mends. @type {Record<string, string>} */
export const STOP = {
  1000: 'closed',
  1009: 'too_large',
  too_large: 'too_large',
  http_413: 'too_large',
  4000: 'replaced',
  4003: 'forbidden',
  4005: 'kicked',
  4009: 'not_logged_in',
}
