import { Call } from './call.js'
import { systemClock } from './clock.js'
import { SwitchboardError } from './errors.js'
import { Pairing, isOurs } from './pairing.js'
import { ignore } from './util.js'

/** @import { CallOptions, CallSettings, PeerConfiguration } from './types.js' */

/** A `leave` that follows a goodbye so soon is that one, not of the next call. */
const SAME = 5000
/** How many people's legs are remembered. */
const PEOPLE = 256

/**
 * @typedef {object} CallsPort
 * @property {() => string | undefined} me
 * @property {() => any[]} iceServers
 * @property {(message: { type: string, name?: string, [field: string]: unknown }) => Promise<any>} request
 * @property {(call: Call) => void} rings
 * @property {() => void} busyChanged
 * @property {(patience?: number) => boolean} probe
 * @property {(what: string, details?: object) => void} debug
 */

/**
 * What a call needs of its client.
 * @typedef {object} Wire
 * @property {import('./clock.js').Clock} clock
 * @property {string} me
 * @property {import('./pairing.js').Pair} pair
 * @property {() => any} rtc the configuration of the peer connection
 * @property {(type: 'offer' | 'answer' | 'candidate', body: object) => Promise<unknown>} send
 * @property {(report: object) => void} report
 * @property {(reason: string, tell: boolean) => void} ended `tell`: the other does not know
 * @property {(patience?: number) => boolean} probe asks whether the server is there; it may be known that it is not
 * @property {(what: string, details?: object) => void} debug
 */

/** The calls of a client, and which of them a signal belongs to. */
export class Calls {
  /** By the other's name. @type {Map<string, Call>} */
  map = new Map()
  #port
  #options
  #clock = systemClock
  /** @type {Map<string, Pairing>} */
  #pairings = new Map()
  /** When somebody told us why they hang up. @type {Map<string, number>} */
  #byes = new Map()

  /**
   * @param {CallsPort} port
   * @param {{ rtc?: Partial<PeerConfiguration>, calls?: CallSettings, RTCPeerConnection?: any }} options
   */
  constructor(port, options) {
    this.#port = port
    this.#options = options
  }

  /** Whether silence is to be noticed soon. */
  get isBusy() {
    return this.map.size > 0
  }

  /** @param {string} name @param {CallOptions} options @returns {Call} */
  call(name, options) {
    const me = this.#port.me()
    if (!me) throw new SwitchboardError('not_logged_in', 'Log in before you call')
    if (name === me) throw new SwitchboardError('yourself', 'Nobody can call themselves')
    const calling = this.map.get(name)
    // Whoever calls somebody who is calling wants to take that call.
    if (calling?.direction === 'incoming' && calling.state === 'ringing')
      return calling._join({ ...options, data: undefined }).accept(options)
    if (calling) throw new SwitchboardError('already_in_call', `There is a call with ${name}`)
    return this.#begin(name, 'outgoing', options)._join(options)
  }

  /** Takes a signal, if it is part of a call. @param {any} message @returns {boolean} */
  heard({ type, name, reason, message, ...rest }) {
    if (type === 'offer' || type === 'answer' || type === 'candidate') this.#signal(type, name, rest[type])
    else if (type === 'leave') this.#leave(name, reason ?? 'hangup')
    else if (type === 'message' && message?.switchboard) this.#bye(name, message.switchboard)
    else return false
    return true
  }

  /** The page was asleep, or its network has changed. @param {boolean} networkChanged */
  awake(networkChanged) {
    for (const call of this.map.values()) call._awake(networkChanged)
  }

  /** The session goes on over another connection: the same one, or another. @param {boolean} resumed */
  back(resumed) {
    for (const call of this.map.values()) call._back(resumed)
  }

  /** The session is gone. */
  orphaned() {
    for (const call of this.map.values()) call._orphan('lost')
  }

  /** Signals were lost. */
  repeat() {
    for (const call of this.map.values()) call._repeat()
  }

  /** There are new ICE servers. */
  configured() {
    for (const call of this.map.values()) call._configure()
  }

  /** @param {string} reason @param {boolean} local */
  stopped(reason, local) {
    for (const call of this.map.values()) call._end(reason, local)
  }

  /** @param {'offer' | 'answer' | 'candidate'} type @param {string} name @param {any} body @returns {void} */
  #signal(type, name, body) {
    const isSound = typeof body === 'object' && body !== null && (type === 'candidate' || typeof body.sdp === 'string')
    const call = this.map.get(name)
    if (!isSound) return this.#port.debug('dropped', { type, name, why: 'nothing that a browser says' })
    const { to, reply } = this.#pairing(name).hear(type, body)
    if (to === 'none') {
      this.#port.debug('dropped', {
        type,
        name,
        why: 'of another call',
        leg: body.leg,
        peer: body.peer,
        call: call?.leg,
      })
      if (reply) this.#port.request({ type: 'message', name, message: { switchboard: reply } }).catch(ignore)
    } else if (to === 'current') call?._hear(type, body)
    else {
      // The other has begun anew without our hearing the end. Who is told of it may call at once: so it is asked again.
      if (call) {
        call._end('hangup')
        return this.#signal(type, name, body)
      }
      const rings = this.#begin(name, 'incoming', {})
      this.#pairing(name).hear(type, body)
      rings._hear(type, body)
      this.#port.rings(rings)
    }
  }

  /** @param {string} name @param {import('./pairing.js').Bye} bye */
  #bye(name, bye) {
    this.#byes.set(name, this.#clock.now())
    const call = this.map.get(name)
    const means = this.#pairing(name).hearBye(bye)
    if (means === 'ends') call?._end(bye.bye)
    else if (means === 'repeat') call?._repeat()
    else this.#port.debug('dropped', { type: 'bye', name, leg: bye.leg, peer: bye.peer, call: call?.leg })
  }

  /** A leave does not say which call it ends. @param {string} name @param {string} reason */
  #leave(name, reason) {
    const call = this.map.get(name)
    const told = this.#byes.get(name) ?? -Infinity
    this.#byes.delete(name)
    if (!call) return
    if (reason !== 'hangup')
      return reason === 'lost' || reason === 'node_lost' ? call._orphan(reason) : call._end(reason)
    if (this.#clock.now() - told < SAME) return
    // This edition says goodbye before it leaves. If that was lost, the other answers a signal of this call by saying
    // so.
    if (isOurs(call.peer))
      this.#send(call.peer && this.#pairing(name).current, 'candidate', name, { candidate: '' }).catch(ignore)
    else call._end(reason)
  }

  /** @param {string} name @param {'incoming' | 'outgoing'} direction @param {CallOptions} options */
  #begin(name, direction, { rtc: own, ringTimeout, connectTimeout, giveUp }) {
    const { RTCPeerConnection = globalThis.RTCPeerConnection, rtc, calls } = this.#options
    const pairing = this.#pairing(name)
    const pair = pairing.begin()
    const configuration = () => {
      const iceServers = [...this.#port.iceServers(), ...(rtc?.iceServers ?? []), ...(own?.iceServers ?? [])]
      return { ...rtc, ...own, iceServers }
    }
    const settings = Object.entries({ ringTimeout, connectTimeout, giveUp }).filter(([, value]) => value !== undefined)
    const call = new Call(
      name,
      direction,
      new RTCPeerConnection(configuration()),
      {
        clock: this.#clock,
        me: this.#port.me() ?? '',
        pair,
        rtc: configuration,
        send: (type, body) => this.#send(pair, type, name, body),
        report: (report) => void this.#port.request({ type: 'report', name, ...report }).catch(ignore),
        ended: (reason, tell) => {
          pairing.end(pair)
          if (this.map.get(name) === call) this.map.delete(name)
          if (tell) this.#tell(name, pair, reason, call)
          this.#port.busyChanged()
        },
        probe: (patience) => this.#port.probe(patience),
        debug: (what, details) => this.#port.debug(what, details),
      },
      { ...calls, ...Object.fromEntries(settings) },
    )
    this.map.set(name, call)
    this.#port.busyChanged()
    return call
  }

  /**
   * A leave says no reason, and not which call it ends.
   * @param {string} name
   * @param {import('./pairing.js').Pair} pair
   * @param {string} reason
   * @param {Call} call
   */
  #tell(name, { leg, peer }, reason, call) {
    // To somebody who has answered without a leg it would mean nothing.
    if (peer || !call.pc.remoteDescription) {
      this.#port.request({ type: 'message', name, message: { switchboard: { bye: reason, leg, peer } } }).catch(ignore)
    }
    this.#port.request({ type: 'leave', name }).catch(ignore)
  }

  /**
   * @param {import('./pairing.js').Pair | undefined | ''} pair
   * @param {'offer' | 'answer' | 'candidate'} type
   * @param {string} name
   * @param {object} body
   */
  async #send(pair, type, name, body) {
    const pairing = this.#pairing(name)
    const stamp = pair && pairing.stamp(type, pair)
    try {
      return await this.#port.request({ type, name, [type]: { ...body, ...stamp } })
    } catch (error) {
      if (pair && type === 'offer') pairing.refused(pair)
      throw error
    }
  }

  /** @param {string} name @returns {Pairing} */
  #pairing(name) {
    const pairing = this.#pairings.get(name) ?? new Pairing()
    this.#pairings.delete(name)
    this.#pairings.set(name, pairing)
    if (this.#pairings.size > PEOPLE) {
      for (const [other, { current }] of this.#pairings) if (!current) return (this.#pairings.delete(other), pairing)
    }
    return pairing
  }
}
