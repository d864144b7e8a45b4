/** What was asked for was refused, or is not possible. */
export class SwitchboardError extends Error {
  /**
   * @param {string} code the server's (`name_taken`, `user_unavailable`, `forbidden`, …), or one of the library's
   * (`closed`, `timeout`, `not_logged_in`, `already_in_call`, `unreachable`, `not_found`, `blocked_by_csp`, `insecure`,
   * `bad_url`, `no_transport`, …)
   * @param {string} [message]
   * @param {number} [retryAfter] milliseconds after which another try may succeed, if it may
   * @param {ErrorOptions} [options]
   */
  constructor(code, message = code, retryAfter = undefined, options = undefined) {
    super(message, options)
    this.name = 'SwitchboardError'
    this.code = code
    this.retryAfter = retryAfter
  }
}

/**
 * Why a connection has ended, or did not come about.
 * @typedef {{ code: string | number, message?: string, retryAfter?: number }} Why
 */

/** Sentences that help, for what cannot get better by itself. */
const HINTS = {
  forbidden: 'The server refuses this origin: see its setting limits.origins',
  not_found: 'No Switchboard is at this address: is the path right?',
  blocked_by_csp: "The page's Content-Security-Policy must name the server in connect-src",
  insecure: 'A page of https needs a server of wss or https',
  bad_url: 'The address of a server begins with ws, wss, http or https',
  no_transport: 'No transport is available here: in Node.js, give a WebSocket',
}

/** @param {string | number} code */
export const isFinal = (code) => code in HINTS

/** @param {Why} why @returns {SwitchboardError} */
export function asError(why) {
  if (why instanceof SwitchboardError) return why
  // Browsers say no more of a connection that did not come about.
  const code = why.code === 1006 ? 'unreachable' : String(why.code)
  const words = { ...HINTS, unreachable: 'Nobody answers, or something on the way refuses' }
  const hint = words[/** @type {keyof typeof words} */ (code)]
  return new SwitchboardError(code, hint ?? (why.message || `The connection has ended: ${code}`), why.retryAfter)
}
