/**
 * A session that is to outlive its page, in `sessionStorage`: written when the page goes, and taken away when it is read, so that a
 * duplicate of the tab does not take the session from its owner.
 */

const KEY = 'switchboard:session'

/**
 * @typedef {object} Kept
 * @property {string} url
 * @property {string} name
 * @property {string} resume the secret
 * @property {string} [last]
 * @property {Outbox['state']} outbox
 * @typedef {import('./outbox.js').Outbox} Outbox
 */

/** @param {Kept} kept */
export function keepSession(kept) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(kept))
  } catch {} // There is none, it is forbidden, or full: then the session ends with the page.
}

/** @param {string} url @param {string} name @returns {Kept | undefined} */
export function takeSession(url, name) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? 'null')
    if (kept?.url !== url || kept.name !== name) return undefined
    sessionStorage.removeItem(KEY)
    return kept
  } catch {
    return undefined
  }
}
