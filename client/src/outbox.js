/**
 * What the server has not acknowledged: kept, sent again after a loss, and in order for each receiver.
 *
 * - What is refused for now is repeated first. Nothing more goes to that receiver until everything that was under way
 *   to it is answered: the server refuses what follows until then, so order is kept.
 * - No more is under way, or follows what is unanswered, than receivers recognise repetitions across; and no more is
 *   sent a second than the server allows.
 * - A message whose connection dies with it again and again may be the cause: it goes alone, and in the end is given
 *   up.
 */

import { Pacer } from './pacer.js'
import { SwitchboardError } from './errors.js'
import { bytes, deferred } from './util.js'

/** Refusals of a signal for now. */
const AGAIN = ['unavailable', 'inbox_full', 'rate_limited']
/** What may wait: messages, and bytes. */
const MOST_ENTRIES = 1000
const MOST_BYTES = 16_777_216
/** What may be under way at once, or follow what is unanswered. A receiver remembers 256 ids of each sender. */
const UNDER_WAY = 200
/** The longest frame, in bytes of UTF-8, unless the server says otherwise. */
const FRAME = 65_536
/** So long after it is its turn to be answered, what is under way is repeated over the same connection. */
const OVERDUE = 8000
/** After so many lost connections a message goes alone; after so many more it is given up. */
const SUSPECT = 3
const TRIED_ENOUGH = 3

/**
 * @typedef {object} Entry
 * @property {number} id
 * @property {string | undefined} name
 * @property {string} text
 * @property {number} size
 * @property {boolean} sent on this connection, and not answered
 * @property {number} tries on any, or on the page before
 * @property {number} losses of connections with it
 * @property {import('./util.js').Deferred<any>} answer
 */

export class Outbox {
  #clock
  #send
  #changed
  #pacer
  /** @type {Map<number, Entry>} In the order in which they were added. */
  #entries = new Map()
  #ids = 0
  #size = 0
  #open = false
  #frame = FRAME
  /** @type {Set<Entry>} What is under way, in the order in which it was sent. */
  #flying = new Set()
  /** @type {Map<string | undefined, number>} To whom something was refused, and when it may be repeated. */
  #refused = new Map()
  /** Since when it is the first one's turn to be answered. */
  #since = 0
  /** Nothing is sent to anybody before this. */
  #notBefore = 0
  /** @type {any} */
  #timer

  /**
   * @param {import('./clock.js').Clock} clock
   * @param {(text: string) => void} send
   * @param {() => void} [changed] whether something is unanswered may have changed
   */
  constructor(clock, send, changed = () => {}) {
    this.#clock = clock
    this.#send = send
    this.#changed = changed
    this.#pacer = new Pacer(clock)
  }

  /** How many are not acknowledged. */
  get size() {
    return this.#entries.size
  }

  /** Whether an answer is awaited. */
  get isWaiting() {
    return this.#flying.size > 0
  }

  /** What a page that is reloaded takes along. */
  get state() {
    return { ids: this.#ids, texts: [...this.#entries.values()].map(({ id, name, text }) => ({ id, name, text })) }
  }

  /** @param {{ ids: number, texts: { id: number, name?: string, text: string }[] }} state */
  set state({ ids, texts }) {
    this.#ids = ids
    for (const { id, name, text } of texts) this.#keep(id, name, text, 1)
  }

  /**
   * @param {{ type: string, name?: string, [field: string]: unknown }} message
   * @param {AbortSignal} [signal] takes it back, if it is not under way
   * @returns {Promise<any>}
   */
  add(message, signal) {
    if (signal?.aborted) return Promise.reject(signal.reason)
    const id = this.#ids + 1
    const text = JSON.stringify({ ...message, id })
    const size = bytes(text)
    if (size > this.#frame) return Promise.reject(tooLarge(this.#frame))
    if (this.#entries.size >= MOST_ENTRIES || this.#size + size > MOST_BYTES) {
      return Promise.reject(new SwitchboardError('overloaded', 'Too much waits to be sent'))
    }
    this.#ids = id
    const entry = this.#keep(id, message.name, text, 0, size)
    const abort = () => {
      this.#finish(entry, () => entry.answer.reject(signal?.reason))
      this.pump()
    }
    signal?.addEventListener('abort', abort)
    this.pump()
    return entry.answer.promise.finally(() => signal?.removeEventListener('abort', abort))
  }

  /** @param {{ signals_per_second?: number, frame_bytes?: number }} [limits] of a session that may send from now on */
  opened({ signals_per_second, frame_bytes } = {}) {
    this.#open = true
    this.#frame = frame_bytes ?? FRAME
    this.#notBefore = 0
    this.#pacer.reset(signals_per_second)
    for (const entry of this.#entries.values()) {
      if (entry.size > this.#frame) this.#finish(entry, () => entry.answer.reject(tooLarge(this.#frame)))
    }
    this.pump()
  }

  /** The connection was lost: what was under way goes again, over the next one. */
  lost() {
    this.#open = false
    this.#clock.clearTimeout(this.#timer)
    this.#refused.clear()
    for (const entry of this.#entries.values()) {
      if (!entry.sent) continue
      this.#landed(entry)
      entry.losses += 1
      if (entry.losses < SUSPECT + TRIED_ENOUGH) continue
      this.#finish(entry, () => entry.answer.reject(unknown('Each connection with it was lost: a proxy may not take it')))
    }
  }

  /** The session is gone: under another the server would not recognise a repetition. */
  forget() {
    for (const entry of [...this.#entries.values()]) {
      if (!entry.tries) continue
      this.#finish(entry, () => entry.answer.reject(unknown('The session was lost')))
    }
  }

  /** @param {unknown} reason */
  fail(reason) {
    this.lost()
    for (const entry of [...this.#entries.values()]) this.#finish(entry, () => entry.answer.reject(reason))
  }

  /**
   * A server or a proxy with a lower limit than we know does not say which message was too large. It is one of those
   * that were under way, so the longest of them is too large as well.
   * @param {string} [message]
   * @returns {boolean} whether there was one
   */
  dropLongest(message) {
    const sent = [...this.#entries.values()].filter((entry) => entry.sent)
    const [longest] = sent.sort((one, other) => other.size - one.size)
    if (longest)
      this.#finish(longest, () => longest.answer.reject(new SwitchboardError('too_large', message || 'Too large')))
    return longest !== undefined
  }

  /**
   * An answer.
   * @param {{ type: string, id: any, status?: string, code?: string, message?: string, retry_after_ms?: number }}
   * answer
   */
  settle({ type, id, status, code = 'unknown', message, retry_after_ms: retryAfter, ...rest }) {
    const entry = this.#entries.get(id)
    if (!entry) return
    entry.losses = 0
    if (type === 'error' && AGAIN.includes(code)) {
      if (!entry.sent) return
      const until = this.#clock.now() + (retryAfter ?? 1000)
      // Only `rate_limited` is about this client; the rest is about one receiver.
      if (code === 'rate_limited') {
        if (this.#notBefore <= this.#clock.now()) this.#pacer.refused()
        this.#notBefore = Math.max(this.#notBefore, until)
      }
      this.#refused.set(entry.name, Math.max(this.#refused.get(entry.name) ?? 0, until))
      this.#landed(entry)
    } else if (type === 'error') {
      this.#finish(entry, () => entry.answer.reject(new SwitchboardError(code, message, retryAfter)))
    } else {
      // It comes after the answers to all that was sent before. Over HTTP a node that dies takes answers with it, and
      // another goes on. (Of what was sent twice, this may be the answer to the first.)
      if (type === 'ack' && entry.sent && entry.tries === 1)
        for (const other of this.#flying) {
          if (other === entry) break
          this.#landed(other)
        }
      this.#finish(entry, () => entry.answer.resolve(status ?? rest))
    }
    this.pump()
  }

  pump() {
    this.#clock.clearTimeout(this.#timer)
    if (!this.#open) return
    const now = this.#clock.now()
    if (this.#flying.size && now - this.#since >= OVERDUE) this.#entries.forEach((entry) => this.#landed(entry))
    let wait = this.#notBefore - now
    if (wait <= 0) wait = this.#sendWhatMay(now)
    if (this.#flying.size) wait = Math.min(wait, Math.max(0, this.#since + OVERDUE - now))
    if (wait !== Infinity) this.#timer = this.#clock.setTimeout(() => this.pump(), wait)
    this.#changed()
  }

  /** @param {number} now @returns {number} milliseconds until more may be sent */
  #sendWhatMay(now) {
    let wait = Infinity
    /** @type {Map<string | undefined, number>} The first unanswered one to each. */
    const firsts = new Map()
    const busy = new Set([...this.#flying].map(({ name }) => name))
    for (const entry of this.#entries.values()) {
      const { id, name } = entry
      const first = firsts.get(name) ?? id
      firsts.set(name, first)
      if (entry.sent) {
        // It goes alone.
        if (entry.losses >= SUSPECT) return wait
        continue
      }
      if (this.#flying.size >= UNDER_WAY || (entry.losses >= SUSPECT && this.#flying.size)) return wait
      if (id - first >= UNDER_WAY) continue
      const until = this.#refused.get(name)
      if (until !== undefined) {
        if (busy.has(name)) continue
        if (until > now) {
          wait = Math.min(wait, until - now)
          continue
        }
        this.#refused.delete(name)
      }
      const pace = this.#pacer.take()
      if (pace > 0) return Math.min(wait, pace)
      entry.sent = true
      entry.tries += 1
      if (!this.#flying.size) this.#since = now
      this.#flying.add(entry)
      busy.add(name)
      this.#send(entry.text)
      if (entry.losses >= SUSPECT) return wait
    }
    return wait
  }

  /**
   * @param {number} id
   * @param {string | undefined} name
   * @param {string} text
   * @param {number} tries
   */
  #keep(id, name, text, tries, size = bytes(text)) {
    /** @type {Entry} */
    const entry = { id, name, text, size, sent: false, tries, losses: 0, answer: deferred() }
    this.#entries.set(id, entry)
    this.#size += size
    return entry
  }

  /** It is no longer under way. @param {Entry} entry */
  #landed(entry) {
    if (!entry.sent) return
    entry.sent = false
    if (entry === [...this.#flying][0]) this.#since = this.#clock.now()
    this.#flying.delete(entry)
  }

  /** @param {Entry} entry @param {() => void} tell */
  #finish(entry, tell) {
    if (!this.#entries.delete(entry.id)) return
    this.#landed(entry)
    this.#size -= entry.size
    tell()
  }
}

/** @param {string} why */
const unknown = (why) => new SwitchboardError('unavailable', `${why}. It may have arrived`)

/** @param {number} limit */
const tooLarge = (limit) =>
  new SwitchboardError('too_large', `The server takes no message over ${limit} bytes of UTF-8`)
