/**
 * When ICE is restarted, and when a call is given up. A browser needs five seconds and more to notice that nothing comes any more; by the
 * numbers of what was received this is seen earlier.
 */

/** Milliseconds from an interruption to the first restart, and between restarts. */
const RESTART = 500
const RESTART_AGAIN = 5000
/** How often it is looked at what came, and after how many looks at nothing a restart is worth its while. */
const LOOK = 1000
const SILENT = 2
/** That many looks at something came before: a call without media says little, and is left alone. */
const STEADY = 3

export class Recovery {
  #clock
  #port
  #giveUp
  /** @type {any} */
  #timer
  /** @type {any} */
  #watch
  /** @type {number | undefined} */
  #interruptedAt
  #received = 0
  #steady = 0
  #silent = 0

  /**
   * @param {import('./clock.js').Clock} clock
   * @param {number} giveUp
   * @param {{ restart(): void, giveUp(): void, received(): Promise<number> }} port `received`: how many bytes have come
   */
  constructor(clock, giveUp, port) {
    this.#clock = clock
    this.#giveUp = giveUp
    this.#port = port
  }

  connected() {
    this.#interruptedAt = undefined
    this.#steady = this.#silent = 0
    this.#clock.clearTimeout(this.#timer)
    this.#clock.clearTimeout(this.#watch)
    this.#watch = this.#clock.setTimeout(() => this.#look(), LOOK)
  }

  /** @param {boolean} failed ICE has given up by itself */
  interrupted(failed) {
    this.#clock.clearTimeout(this.#watch)
    this.#interruptedAt ??= this.#clock.now()
    this.#schedule(failed ? 0 : RESTART)
  }

  /** The network has changed, or signalling is back. */
  awake() {
    if (this.#interruptedAt !== undefined) this.#schedule(0)
  }

  end() {
    this.#clock.clearTimeout(this.#timer)
    this.#clock.clearTimeout(this.#watch)
  }

  /** @param {number} delay */
  #schedule(delay) {
    this.#clock.clearTimeout(this.#timer)
    const left = (this.#interruptedAt ?? 0) + this.#giveUp - this.#clock.now()
    this.#timer = this.#clock.setTimeout(() => {
      if (left <= delay) return this.#port.giveUp()
      this.#port.restart()
      this.#schedule(RESTART_AGAIN)
    }, Math.max(0, Math.min(delay, left)))
  }

  async #look() {
    const received = await this.#port.received().catch(() => this.#received)
    const came = received > this.#received
    this.#received = received
    if (came) {
      this.#steady += 1
      this.#silent = 0
    } else if (this.#steady >= STEADY && ++this.#silent === SILENT) {
      this.#steady = 0
      this.#port.restart()
    } else if (this.#silent === 0) this.#steady = 0
    if (this.#interruptedAt === undefined) this.#watch = this.#clock.setTimeout(() => this.#look(), LOOK)
  }
}
