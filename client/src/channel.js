import { Joiner, pieces, sizeOf } from './chunks.js'
import { SwitchboardError } from './errors.js'
import { Emitter } from './events.js'
import { deferred } from './util.js'

/** @import { ChannelEventMap, DataChannel, Sendable } from './types.js' */

/**
 * What may wait for the channel, in bytes; and how much the browser is given at once, so that a close need not wait for
 * more.
 */
const MOST_WAITING = 16_777_216
const BUFFERED = 1_048_576
const LOW = 262_144
/** What a peer takes that does not say. */
const MESSAGE = 65_536

/**
 * A data channel of a call. What is sent before it is open, or faster than it goes, waits. If both sides open a channel
 * of one label at the same time there are two: what comes by either is heard, and one is used to send.
 *
 * @extends {Emitter<ChannelEventMap>}
 */
export class Channel extends Emitter {
  /** @readonly */
  label
  /** The channel that `send` uses, once there is one. @type {DataChannel | undefined} */
  raw

  /** @type {Set<any>} */
  #raws = new Set()
  /** @type {{ data: any, size: number }[]} */
  #waiting = []
  #size = 0
  #closed = false
  #ready = deferred()
  #port

  /** @internal @param {string} label @param {{ limit(): number | undefined, canChunk(): boolean }} port */
  constructor(label, port) {
    super()
    this.label = label
    this.#port = port
  }

  /** @returns {'connecting' | 'open' | 'closing' | 'closed'} */
  get readyState() {
    return this.#closed ? 'closed' : (this.raw?.readyState ?? 'connecting')
  }

  /** Resolves when it is open; fails if it is closed before. @returns {Promise<this>} */
  get ready() {
    return this.#ready.promise.then(() => this)
  }

  /** How many bytes have not left the browser. */
  get bufferedAmount() {
    return this.#size + (this.raw?.bufferedAmount ?? 0)
  }

  /**
   * Sends a message of any size up to 16 MiB, in pieces if the other side's browser takes no larger ones. Fails with
   * `overloaded` if too much waits: then `drain` says when to go on.
   * @param {Sendable} data
   */
  send(data) {
    if (this.#closed) throw new SwitchboardError('closed', 'The channel is closed')
    const size = sizeOf(data)
    if (this.#size + size > MOST_WAITING) throw new SwitchboardError('overloaded', 'Too much waits to be sent')
    if (!this.#waiting.length && this.raw && this.#fits(size) && this.raw.bufferedAmount < BUFFERED)
      return this.raw.send(/** @type {any} */ (data))
    if (this.raw) this.#check(size)
    this.#waiting.push({ data, size })
    this.#size += size
    this.#pump()
  }

  close() {
    for (const raw of this.#raws) raw.close()
    this._ended()
  }

  /** @internal @param {any} raw */
  _add(raw) {
    this.#raws.add(raw)
    raw.binaryType = 'arraybuffer'
    raw.bufferedAmountLowThreshold = LOW
    const joiner = new Joiner()
    const opened = () => {
      if (this.raw || this.#closed) return
      this.raw = raw
      this.#ready.resolve(undefined)
      this._fire('open')
      this.#pump()
    }
    raw.onopen = opened
    raw.onmessage = (/** @type {any} */ { data }) => {
      const whole = joiner.take(data)
      if (whole) this._fire('message', whole)
    }
    raw.onbufferedamountlow = () => {
      this.#pump()
      if (!this.#waiting.length) this._fire('drain')
    }
    raw.onclose = () => {
      this.#raws.delete(raw)
      if (raw === this.raw) this.raw = [...this.#raws].find(({ readyState }) => readyState === 'open')
      if (!this.#raws.size) this._ended()
    }
    if (raw.readyState === 'open') opened()
  }

  /** @internal */
  _ended() {
    if (this.#closed) return
    this.#closed = true
    this.#waiting = []
    this.#size = 0
    this.#ready.reject(new SwitchboardError('closed', 'The channel is closed'))
    this._fire('close')
  }

  /** @param {number} size */
  #fits(size) {
    return size <= (this.#port.limit() || MESSAGE)
  }

  /** @param {number} size */
  #check(size) {
    const { ordered = true, maxRetransmits, maxPacketLifeTime } = this.raw ?? {}
    const isReliable = ordered && (maxRetransmits ?? maxPacketLifeTime) == null
    if (this.#fits(size) || (isReliable && this.#port.canChunk())) return
    throw new SwitchboardError(
      'too_large',
      `The other side takes no message over ${this.#port.limit() || MESSAGE} bytes`,
    )
  }

  /** What cannot be sent is told, and holds up nothing else. */
  #pump() {
    while (this.#waiting.length && this.raw?.readyState === 'open' && this.raw.bufferedAmount < BUFFERED) {
      const { data, size } = /** @type {{ data: any, size: number }} */ (this.#waiting.shift())
      this.#size -= size
      try {
        this.#check(size)
        for (const piece of this.#fits(size) ? [data] : pieces(data)) this.raw.send(piece)
      } catch (error) {
        this._fire('error', {
          error: error instanceof SwitchboardError ? error : new SwitchboardError('failed', String(error)),
        })
      }
    }
  }
}
