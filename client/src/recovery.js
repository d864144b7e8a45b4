/**
 * When ICE is restarted, and when a call is given up. A browser needs five seconds and more to notice that nothing
 * comes any more; by the numbers of what was received this is seen earlier. A restart that brings nothing is tried
 * again: a browser that has changed networks knows its new addresses only after a while.
 */

/** Milliseconds from an interruption to the first restart, and between restarts. */
const RESTART = 500
const RESTART_AGAIN = 2500
/** How often it is looked at what came. After one look at nothing the server is probed, after two ICE is restarted. */
const LOOK = 400
/** That many looks at something came before: a call without media says little, and is left alone. */
const STEADY = 3
/**
 * How long a restart may take to bring something, and how often it is tried again. One that was before the browser knew
 * its new network is not waited for.
 */
const EFFECT = 2000
const SOON = 500
const TRIES = 4

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
  #restartedAt = -Infinity
  #tries = 0
  /** A restart waits for the server. */
  #owed = false
  /** The browser has found a network since the last restart. */
  #found = false
  #foundAt = -Infinity
  #over = false

  /**
   * @param {import('./clock.js').Clock} clock
   * @param {number} giveUp
   * @param {object} port
   * @param {() => boolean} port.restart whether it could be, as the server is there
   * @param {() => void} port.probe asks whether the server is there, in haste
   * @param {() => void} port.giveUp
   * @param {() => Promise<number>} port.received how many bytes have come
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

  /** The network has changed. */
  changed() {
    this.#tries = TRIES
    this.#restart()
    if (this.#interruptedAt !== undefined) this.#schedule(RESTART_AGAIN)
  }

  /**
   * The browser has found another network by itself. It tries it before the other side has heard of it, whose browser
   * may take such a try for a worse way than the dead one, and leave it; with a restart the other hears of it first.
   */
  found() {
    const now = this.#clock.now()
    // It has candidates for UDP and for TCP.
    const isSame = now - this.#foundAt < SOON
    this.#foundAt = now
    if (isSame) return
    this.#found = true
    if (this.#interruptedAt !== undefined) this.#schedule(this.#restartedAt + SOON - now)
    else if (this.#silent || this.#tries) this.#try()
  }

  /** The page was asleep, or the server is there again. */
  awake() {
    if (this.#interruptedAt !== undefined) this.#schedule(0)
    else if (this.#owed) this.#restart()
  }

  end() {
    this.#over = true
    this.#clock.clearTimeout(this.#timer)
    this.#clock.clearTimeout(this.#watch)
  }

  #restart() {
    this.#restartedAt = this.#clock.now()
    this.#found = false
    this.#owed = !this.#port.restart()
  }

  /** @param {number} delay */
  #schedule(delay) {
    this.#clock.clearTimeout(this.#timer)
    const left = (this.#interruptedAt ?? 0) + this.#giveUp - this.#clock.now()
    this.#timer = this.#clock.setTimeout(
      () => {
        if (left <= delay) return this.#port.giveUp()
        this.#restart()
        this.#schedule(RESTART_AGAIN)
      },
      Math.max(0, Math.min(delay, left)),
    )
  }

  async #look() {
    const received = await this.#port.received().catch(() => this.#received)
    if (this.#over || this.#interruptedAt !== undefined) return
    const came = received > this.#received
    this.#received = received
    if (came) {
      this.#steady += 1
      this.#silent = this.#tries = 0
    } else this.#miss()
    this.#watch = this.#clock.setTimeout(() => this.#look(), LOOK)
  }

  #miss() {
    if (this.#steady < STEADY) this.#steady = 0
    else if (++this.#silent === 1) this.#port.probe()
    else {
      this.#steady = 0
      this.#tries = TRIES
    }
    if (this.#tries > 0) this.#try()
  }

  #try() {
    if (this.#clock.now() - this.#restartedAt < (this.#found ? SOON : EFFECT)) return
    this.#tries = Math.max(0, this.#tries - 1)
    this.#restart()
  }
}
