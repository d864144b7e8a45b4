/**
 * Notices that the other side is silent, in time (PROTOCOL, section 2: Ping).
 *
 * A timer that fires late says that this page was asleep, not that the other is gone: the answer may be waiting to be
 * read. So it asks again; only silence after a second late timer counts, since timers of hidden tabs are always late.
 */

/** Answers that take longer than this are worth telling the app. */
const DOUBT = 1000
/** A timer this late was held up by the browser. */
const LATE = 1000

/** What the login reply leaves out. */
export const HEARTBEAT = { busy_ms: 4000, idle_ms: 15_000, answer_ms: 4000 }

export class Liveness {
  #clock
  #port
  #times = HEARTBEAT
  #busy = false
  #heardAt
  /** @type {number | undefined} When it was asked whether anybody is there, if that is unanswered. */
  #askedAt
  #doubtful = false
  #lates = 0
  /** For the answer that is awaited, if it is in haste. */
  #patience = Infinity
  /** @type {any} */
  #timer
  #due = 0
  #stopped = false

  /**
   * @param {import('./clock.js').Clock} clock
   * @param {{ ping(): void, dead(): void, doubt(doubtful: boolean): void }} port
   */
  constructor(clock, port) {
    this.#clock = clock
    this.#port = port
    this.#heardAt = clock.now()
    this.#arm()
  }

  /** @param {Partial<typeof HEARTBEAT>} [times] */
  set times(times) {
    this.#times = { ...HEARTBEAT, ...times }
    this.#arm()
  }

  /** Whether there is a call, or something unanswered. */
  set busy(/** @type {boolean} */ busy) {
    if (busy === this.#busy) return
    this.#busy = busy
    this.#arm()
  }

  heard() {
    this.#heardAt = this.#clock.now()
    this.#askedAt = undefined
    this.#lates = 0
    this.#patience = Infinity
    this.#doubt(false)
    this.#arm()
  }

  /** Asks at once, unless an answer is awaited already. @param {number} [patience] milliseconds for the answer */
  probe(patience) {
    this.#patience = Math.min(patience ?? Infinity, this.#patience)
    if (this.#askedAt === undefined && !this.#stopped) this.#ask()
    else this.#arm()
  }

  stop() {
    this.#stopped = true
    this.#clock.clearTimeout(this.#timer)
  }

  #ask() {
    this.#askedAt = this.#clock.now()
    this.#port.ping()
    this.#arm()
  }

  #arm() {
    this.#clock.clearTimeout(this.#timer)
    if (this.#stopped) return
    const { busy_ms, idle_ms } = this.#times
    const answer_ms = this.#answerTime
    if (this.#askedAt === undefined) this.#due = this.#heardAt + (this.#busy ? busy_ms : idle_ms)
    else this.#due = this.#askedAt + (this.#doubtful ? answer_ms : Math.min(DOUBT, answer_ms))
    this.#timer = this.#clock.setTimeout(() => this.#tick(), Math.max(0, this.#due - this.#clock.now()))
  }

  #tick() {
    if (this.#stopped) return
    const now = this.#clock.now()
    if (this.#askedAt === undefined) return this.#ask()
    if (now - this.#due > LATE && ++this.#lates < 2) return this.#ask()
    if (now - this.#askedAt < this.#answerTime) {
      this.#doubt(true)
      return this.#arm()
    }
    this.stop()
    this.#port.dead()
  }

  get #answerTime() {
    return Math.min(this.#times.answer_ms, this.#patience)
  }

  /** @param {boolean} doubtful */
  #doubt(doubtful) {
    if (doubtful === this.#doubtful) return
    this.#doubtful = doubtful
    this.#port.doubt(doubtful)
  }
}
