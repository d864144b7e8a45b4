import { ignore } from './util.js'

/** Whom the app watches, and what it was told of them last. */
export class Watches {
  /** @type {Map<string, boolean>} */
  #known = new Map()
  #request
  #tell

  /**
   * @param {(message: { type: string, names: string[], watch: boolean }) => Promise<any>} request
   * @param {(users: Record<string, boolean>) => void} tell
   */
  constructor(request, tell) {
    this.#request = request
    this.#tell = tell
  }

  /** @param {Record<string, boolean>} users */
  begin(users) {
    for (const [name, here] of Object.entries(users)) this.#known.set(name, here)
  }

  /** @param {readonly string[]} names */
  end(names) {
    for (const name of names) this.#known.delete(name)
  }

  clear() {
    this.#known.clear()
  }

  /** Asks again for all: watches end with the connection. What has changed meanwhile is told as a change. */
  again() {
    const names = [...this.#known.keys()]
    if (names.length)
      this.#request({ type: 'presence', names, watch: true }).then(({ users }) => this.learn(users), ignore)
  }

  /** @param {Record<string, boolean>} users */
  learn(users) {
    const changed = Object.entries(users).filter(
      ([name, here]) => this.#known.has(name) && this.#known.get(name) !== here,
    )
    for (const [name, here] of changed) this.#known.set(name, here)
    if (changed.length) this.#tell(Object.fromEntries(changed))
  }
}
