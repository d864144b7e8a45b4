/** Whom the app watches, and what it was told of them last. */
export class Watches {
  /** @type {Map<string, boolean>} */
  #known = new Map()

  get names() {
    return [...this.#known.keys()]
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

  /** What of this is news. @param {Record<string, boolean>} users @returns {Record<string, boolean> | undefined} */
  learn(users) {
    const changed = Object.entries(users).filter(([name, here]) => this.#known.has(name) && this.#known.get(name) !== here)
    for (const [name, here] of changed) this.#known.set(name, here)
    return changed.length ? Object.fromEntries(changed) : undefined
  }
}
