/**
 * How long to wait before the next try: a random time up to a limit that doubles, so that the clients of a node that
 * died do not come back in one moment; longer if the server asks for it.
 */
export class Backoff {
  #clock
  #min
  #max
  #failures = 0

  /**
   * @param {import('./clock.js').Clock} clock
   * @param {{ min?: number, max?: number }} [limits]
   */
  constructor(clock, { min = 500, max = 20_000 } = {}) {
    this.#clock = clock
    this.#min = min
    this.#max = max
  }

  /** What comes next is a first failure again. */
  reset() {
    this.#failures = 0
  }

  /**
   * @param {{ atOnce?: boolean, retryAfter?: number }} [why] `atOnce`: the connection was lost for a reason that a new
   * one mends
   * @returns {number} milliseconds
   */
  next({ atOnce = false, retryAfter = 0 } = {}) {
    const limit = Math.min(this.#max, this.#min * 2 ** Math.min(this.#failures, 30))
    const delay = atOnce && this.#failures === 0 ? 0 : this.#clock.random() * limit
    this.#failures += 1
    return Math.max(delay, retryAfter)
  }
}
