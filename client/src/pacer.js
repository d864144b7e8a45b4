/**
 * Keeps what is sent below the server's limit: a bucket of tokens. Whoever is refused all the same slows down by half.
 * The server allows bursts of two seconds' worth, and 128 signals of one sender in somebody's inbox: this one stays
 * well below both.
 */

/** Of the limit, this is used. */
const SHARE = 0.8
/** A server that says nothing of limits has the default ones. */
const PER_SECOND = 200
const LEAST = 10
const BURST = 64

export class Pacer {
  #clock
  #rate = PER_SECOND * SHARE
  #tokens = BURST
  #at

  /** @param {import('./clock.js').Clock} clock */
  constructor(clock) {
    this.#clock = clock
    this.#at = clock.now()
  }

  /** A new connection begins with what its server says; 0 is no limit. @param {number} [perSecond] */
  reset(perSecond) {
    if (perSecond !== undefined) this.#rate = perSecond === 0 ? Infinity : Math.max(1, perSecond * SHARE)
    this.#tokens = BURST
    this.#at = this.#clock.now()
  }

  /** Takes what one message costs. @returns {number} 0, or the milliseconds until there is enough */
  take() {
    if (this.#rate === Infinity) return 0
    const now = this.#clock.now()
    this.#tokens = Math.min(BURST, this.#tokens + ((now - this.#at) / 1000) * this.#rate)
    this.#at = now
    if (this.#tokens < 1) return Math.max(1, ((1 - this.#tokens) / this.#rate) * 1000)
    this.#tokens -= 1
    return 0
  }

  refused() {
    if (this.#rate === Infinity) this.#rate = PER_SECOND
    this.#rate = Math.max(LEAST, this.#rate / 2)
    this.#tokens = 0
    this.#at = this.#clock.now()
  }
}
