import { CallMedia } from './call_media.js'
import { SwitchboardError } from './errors.js'
import { Negotiation } from './negotiation.js'
import { Patience, SETTINGS } from './patience.js'
import { Recovery } from './recovery.js'
import { bytesReceived, chosenKind } from './stats.js'
import { deferred, ignore } from './util.js'

/** @import { AcceptOptions, CallOptions, CallSettings, CallState, EndReason, Stream } from './types.js' */

/** How long the server may take to answer when nothing comes from the other. */
const HASTE = 1000
/**
 * A call with somebody: a peer connection that negotiates, trickles, recovers and reports by itself.
 */
export class Call extends CallMedia {
  /** The other's name. @readonly */
  name
  /** @type {'incoming' | 'outgoing'} @readonly */
  direction
  /** @type {CallState} */
  state
  /** Why it has ended. @type {EndReason | undefined} */
  reason
  /** Milliseconds from the offer until it was connected. @type {number | undefined} */
  setupTime
  /** What the caller gave to `call()`. @type {any} */
  data
  #wire
  #negotiation
  #recovery
  #connected = deferred()
  /** @type {import('./util.js').Deferred<EndReason>} */
  #ended = deferred()
  #began
  /** The offer that waits to be accepted. @type {any} */
  #offer
  /** What to answer it with. @type {Stream | undefined} */
  #answer
  /** Why the other's session ended, while the peer connection goes on without it. @type {string | undefined} */
  #alone
  #patience

  /**
   * @internal
   * @param {string} name
   * @param {'incoming' | 'outgoing'} direction
   * @param {any} pc
   * @param {import('./calls.js').Wire} wire
   * @param {CallSettings} settings
   */
  constructor(name, direction, pc, wire, settings) {
    super(pc, () => wire.pair.peer)
    this.name = name
    this.direction = direction
    this.#wire = wire
    this.#began = wire.clock.now()
    const patience = { ...SETTINGS, ...settings }
    this.#patience = new Patience(wire.clock, patience, {
      end: (reason) => this._end(reason, true),
      repeat: () => this._repeat(),
    })
    this.state = direction === 'incoming' ? 'ringing' : 'calling'
    this.#negotiation = new Negotiation(pc, {
      // The polite side is the one whose name is smaller. Clients of other makes never give way, so to them we do.
      isPolite: () => !this.peer || wire.me < name,
      isOver: () => this.state === 'ended',
      send: (type, body) => this.#send(type, body),
      failed: (error) => {
        console.warn(`switchboard: negotiation with ${name}:`, error)
        if (this.setupTime === undefined) this._end('failed', true)
      },
      foundNetwork: () => this.#recovery.found(),
      beforeAnswer: () => {
        const stream = this.#answer
        this.#answer = undefined
        if (stream) this.addStream(stream)
      },
    })
    // An incoming call is answered before anything is offered.
    this.#negotiation.isHeld = direction === 'incoming'
    this.#recovery = new Recovery(wire.clock, patience.giveUp, {
      restart: () => this.#restartIce(),
      probe: () => void wire.probe(HASTE),
      giveUp: () => this._end(this.#alone ?? 'failed', true),
      received: () => bytesReceived(pc),
    })
    pc.onconnectionstatechange = () => this.#changed()
    this.#patience.rings()
  }

  /** Which call of ours it is, and which of the other's: signals of another one are recognised by these. */
  get leg() {
    return this.#wire.pair.leg
  }
  get peer() {
    return this.#wire.pair.peer
  }

  /** Resolves once connected; fails if the call ends before. @returns {Promise<this>} */
  get connected() {
    return this.#connected.promise
  }

  /** Resolves with the reason when the call has ended. */
  get ended() {
    return this.#ended.promise
  }

  /** Takes an incoming call. @param {AcceptOptions} [options] @returns {this} */
  accept({ stream } = {}) {
    const offer = this.#offer
    if (!offer) return this
    this.#offer = undefined
    this.#answer = stream
    this.#connecting()
    this.#negotiation.answer(offer)
    return this
  }

  /** Looks for a new way between the browsers. Done by itself if the connection fails or the network changes. */
  restart() {
    if (this.state !== 'ended') this.#recovery.changed()
  }

  /**
   * Ends the call. The other is told the reason: `hangup`, `declined`, `busy`, or any word of your own.
   * @param {EndReason} [reason]
   */
  hangup(reason = this.direction === 'outgoing' && this.setupTime === undefined ? 'cancelled' : 'hangup') {
    this._end(reason, true)
  }

  // For the client.

  /** Opens what the call is to begin with. @internal @param {CallOptions} options */
  _join({ stream, channels = [], data, signal }) {
    if (data !== undefined) this.data = data
    if (stream && this.direction === 'outgoing') this.addStream(stream)
    for (const label of channels) this.channel(label)
    // A call needs something to negotiate. An app that wants neither adds what it wants to `pc`.
    if (!stream && !channels.length) this.channel()
    if (signal) {
      const abort = () => {
        if (this.setupTime === undefined) this.hangup(signal.reason?.name === 'TimeoutError' ? 'timeout' : 'cancelled')
      }
      if (signal.aborted) abort()
      else signal.addEventListener('abort', abort)
      this.ended.then(() => signal.removeEventListener('abort', abort))
    }
    return this
  }

  /** @internal @param {'offer' | 'answer' | 'candidate'} type @param {any} body */
  _hear(type, body) {
    if (type === 'offer' && this.direction === 'incoming' && this.state === 'ringing') {
      this.#offer = body
      if (body.data !== undefined) this.data = body.data
      return
    }
    this.#alone = undefined
    if (type !== 'candidate' && this.setupTime === undefined) this.#connecting()
    this.#negotiation.hear(type, body)
  }

  /** The session of this side or of the other is gone. If the browsers have had each other, they may still.
   * @internal @param {string} reason */
  _orphan(reason) {
    this.#alone = reason
    if (this.setupTime === undefined) this._end(reason)
  }

  /**
   * The session is connected again: the same one, or another (of which the other's node must hear: an offer begins a call there).
   * @internal
   * @param {boolean} resumed
   */
  _back(resumed) {
    if (!resumed && this.peer) this.#recovery.changed()
    else this.#recovery.awake()
  }

  /** @internal @param {boolean} networkChanged */
  _awake(networkChanged) {
    if (networkChanged && this.setupTime !== undefined) this.#recovery.changed()
    else this.#recovery.awake()
  }

  /** @internal */
  _repeat() {
    this.#negotiation.repeat()
  }

  /** @internal */
  _configure() {
    try {
      this.pc.setConfiguration?.({ ...this.pc.getConfiguration(), iceServers: this.#wire.rtc().iceServers })
    } catch {} // Not all that is allowed at first may be changed later.
  }

  /** @internal @param {EndReason} reason @param {boolean} [local] @param {boolean} [tell] */
  _end(reason, local = false, tell = local) {
    if (this.state === 'ended') return
    this.reason = reason
    this.#patience.end()
    this.#negotiation.end()
    this.#recovery.end()
    this.pc.onconnectionstatechange = null
    this.pc.close()
    this._channels.end()
    this.#wire.ended(reason, tell)
    this.#connected.reject(new SwitchboardError(reason, `The call has ended: ${reason}`))
    this.#ended.resolve(reason)
    this.#set('ended')
    this._fire('end', { reason, local })
  }

  /** @returns {boolean} whether the server is there, over which the offer goes */
  #restartIce() {
    if (!this.#wire.probe()) return false
    // An offer that was lost, or refused while the other was away, would keep all others back.
    if (this.pc.signalingState === 'have-local-offer') this.#negotiation.repeat()
    this.pc.restartIce?.()
    return true
  }

  /** @param {CallState} state */
  #set(state) {
    if (state === this.state) return
    this.#wire.debug('call', { name: this.name, leg: this.leg, peer: this.peer, state, reason: this.reason })
    this.state = state
    this._fire('state', { state })
  }

  /** @param {'offer' | 'answer' | 'candidate'} type @param {object} body */
  async #send(type, body) {
    try {
      await this.#wire.send(
        type,
        type === 'offer' && this.data !== undefined && this.direction === 'outgoing'
          ? { ...body, data: this.data }
          : body,
      )
      if (type === 'offer' && this.state === 'calling') this.#set('ringing')
    } catch (error) {
      const { code } = /** @type {SwitchboardError} */ (error)
      // Who is connected to somebody needs no server for that.
      if (this.setupTime === undefined)
        this._end(code === 'user_unavailable' ? 'unavailable' : code === 'closed' ? 'closed' : 'failed')
    }
  }

  /** It was accepted. */
  #connecting() {
    if (this.state !== 'calling' && this.state !== 'ringing') return
    this.#set('connecting')
    this.#patience.connects()
  }

  #changed() {
    const { connectionState } = this.pc
    if (connectionState === 'connected') {
      this.#patience.end()
      this.#negotiation.connected()
      this.#recovery.connected()
      if (this.setupTime === undefined) {
        this.setupTime = Math.round(this.#wire.clock.now() - this.#began)
        this.#report('connected')
      }
      this.#set('connected')
      this.#connected.resolve(this)
    } else if (connectionState === 'disconnected' || connectionState === 'failed') {
      if (connectionState === 'failed') this.#report('failed')
      if (this.setupTime !== undefined) this.#set('interrupted')
      this.#recovery.interrupted(connectionState === 'failed')
    }
  }

  /** @param {'connected' | 'failed'} state */
  async #report(state) {
    const isConnected = state === 'connected'
    const pair = isConnected ? await chosenKind(this.pc).catch(ignore) : undefined
    this.#wire.report({ state, ms: isConnected ? this.setupTime : undefined, pair })
  }
}
