/** How long a call may ring, look for a way, and be interrupted. */
export const SETTINGS = { ringTimeout: 60_000, connectTimeout: 30_000, giveUp: 60_000 }
/** While it connects, what may not have arrived is said again this often. */
const REPEAT = 6000

/** A call neither rings nor connects for ever. */
export class Patience {
  #clock
  #settings
  #port
  /** @type {any} */
  #timer

  /**
   * @param {import('./clock.js').Clock} clock
   * @param {typeof SETTINGS} settings
   * @param {{ end(reason: string): void, repeat(): void }} port
   */
  constructor(clock, settings, port) {
    this.#clock = clock
    this.#settings = settings
    this.#port = port
  }

  rings() {
    const { ringTimeout } = this.#settings
    if (ringTimeout !== Infinity) this.#wait(ringTimeout, () => this.#port.end('timeout'))
  }

  connects(until = this.#clock.now() + this.#settings.connectTimeout) {
    const left = until - this.#clock.now()
    if (left <= 0) return this.#port.end('failed')
    this.#wait(Math.min(REPEAT, left), () => {
      this.#port.repeat()
      this.connects(until)
    })
  }

  end() {
    this.#clock.clearTimeout(this.#timer)
  }

  /** @param {number} ms @param {() => void} action */
  #wait(ms, action) {
    this.end()
    this.#timer = this.#clock.setTimeout(action, ms)
  }
}
