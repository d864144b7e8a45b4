/**
 * A session that is to outlive its page, in `sessionStorage`: written when the page goes, and taken away when it is read, so
 * that a duplicate of the tab does not take the session from its owner.
 */

const KEY = 'switchboard:session'

/**
 * @typedef {object} Kept
 * @property {string} name
 * @property {string} resume the secret
 * @property {string} [last] the last signal that was heard
 * @property {Outbox['state']} outbox
 * @typedef {import('./outbox.js').Outbox} Outbox
 */

export class Store {
  #url
  #session

  /**
   * @param {string} url
   * @param {() => { name?: string, resume?: string, last?: string, outbox: Outbox['state'] }} session as it is now
   */
  constructor(url, session) {
    this.#url = url
    this.#session = session
  }

  /** @returns {boolean} whether there is something to keep */
  keep() {
    const session = this.#session()
    if (!session.name || !session.resume) return false
    try {
      sessionStorage.setItem(KEY, JSON.stringify({ url: this.#url, ...session }))
      return true
    } catch {
      return false // There is none, it is forbidden, or full: then the session ends with the page.
    }
  }

  /**
   * @param {string | undefined} name
   * @returns {Kept | undefined}
   */
  take(name) {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEY) ?? 'null')
      if (kept?.url !== this.#url || kept.name !== name) return undefined
      sessionStorage.removeItem(KEY)
      return kept
    } catch {
      return undefined
    }
  }

  /** Whether a page that was loaded while this one was frozen has taken the session. */
  isTaken() {
    const { name, resume } = this.#session()
    return Boolean(name && resume && !this.take(name))
  }
}
