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
  #isOn
  #url
  #session

  /**
   * @param {boolean | undefined} isOn
   * @param {string} url
   * @param {() => { name?: string, resume?: string, last?: string, outbox: Outbox['state'] }} session as it is now
   */
  constructor(isOn, url, session) {
    this.#isOn = isOn
    this.#url = url
    this.#session = session
  }

  /** @returns {boolean} whether it was asked for, and there is something to keep */
  keep() {
    const session = this.#session()
    if (!this.#isOn || !session.name || !session.resume) return false
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
    if (!this.#isOn) return undefined
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
    return Boolean(this.#isOn && name && resume && !this.take(name))
  }
}
