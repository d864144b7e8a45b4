import { Backoff } from './backoff.js'
import { GIVEN_UP } from './codes.js'
import { asError, isFinal } from './errors.js'
import { openLink } from './link.js'
import { Liveness } from './liveness.js'
import { deferred, ignore, sleep } from './util.js'

/**
 * Milliseconds that a transport has for its first answer: on its own, and if another one was the good one last time.
 */
const FIRST_ANSWER = 4000
const FIRST_ANSWER_AGAIN = 1500
/** How long an answer may take when the network may have changed. */
const ANSWER_IN_HASTE = 1500
/** So long after a change of network a browser may break off what it begins. */
const CHANGING = 1000
const CHANGING_PAUSE = 100
/** What is begun then may be lost, and repeated by the machine only after a second. */
const CHANGING_ANSWER = 500
/** So long after the best transport failed it is tried again. */
const UPGRADE = 60_000
/** A connection of this age was a good one: the next one that is lost is replaced without hesitation. */
const STABLE = 5000
/** Ends of a connection that a new one mends. */
const AT_ONCE = [1012, 4010, 'bye', 'upgrade', 'network', 'thawed']

/**
 * @typedef {object} ConnectorPort
 * @property {(link: import('./link.js').Link) => void} linked
 * @property {(message: any, text: string) => void} heard
 * @property {() => string} ping
 * @property {(doubtful: boolean) => void} doubt
 * @property {(why: import('./errors.js').Why) => boolean} lost whether to go on
 * @property {(failure: import('./connector.js').Failure, retryIn: number | undefined) => void} failed
 * @property {(failure: import('./connector.js').Failure) => void} refused nothing more is tried
 *
 * @typedef {{ transport?: import('./types.js').TransportKind, why: import('./errors.js').Why }} Failure
 */

/** One connection after the other, by the best transport that works, until it is told to stop. */
export class Connector {
  #address
  #world
  #transports
  #port
  #backoff
  #life = new AbortController()
  #policy
  /** @type {import('./link.js').Link | undefined} */
  #link
  /** @type {Liveness | undefined} */
  #liveness
  #busy = false
  #heartbeat = {}
  /** @type {import('./types.js').TransportKind | null | undefined} The transport that worked last. */
  #good
  #established = false
  #changedAt = -Infinity
  /** @type {import('./link.js').Link | undefined} */
  #better
  /** @type {(() => void) | undefined} */
  #wake
  /** The try that is under way. */
  #attempt = new AbortController()
  /** @type {import('./util.js').Deferred<void> | undefined} While the page is frozen. */
  #frozen

  /**
   * @param {import('./address.js').Address} address
   * @param {import('./link.js').World} world
   * @param {{ transports: readonly import('./types.js').TransportKind[], reconnect?: { min?: number, max?: number } }}
   * options
   * @param {ConnectorPort} port
   */
  constructor(address, world, { transports, reconnect }, port) {
    this.#address = address
    this.#world = world
    this.#transports = transports.filter((kind) => (kind === 'websocket' ? world.WebSocket : world.http))
    this.#port = port
    this.#backoff = new Backoff(world.clock, reconnect)
    this.#policy = world.watchPolicy?.(address, this.#life.signal)
    try {
      this.#good = /** @type {any} */ (sessionStorage.getItem('switchboard'))
    } catch {} // There is none, or it is forbidden.
    this.#run()
  }

  /** For timers and listeners that end with it. */
  get life() {
    return this.#life.signal
  }

  get link() {
    return this.#link
  }

  set busy(/** @type {boolean} */ busy) {
    this.#busy = busy
    if (this.#liveness) this.#liveness.busy = busy
  }

  set heartbeat(/** @type {{}} */ times) {
    this.#heartbeat = times
    if (this.#liveness) this.#liveness.times = times
  }

  stop(code = 1000) {
    this.#life.abort()
    this.#attempt.abort()
    this.#liveness?.stop()
    this.#link?.close(code)
    this.#link = undefined
  }

  /** Asks at once whether anybody is there. @param {number} [patience] */
  probe(patience) {
    this.#liveness?.probe(patience)
  }

  /**
   * The network has changed, or the page was asleep: what was begun before is not waited for. A connection over a
   * network that was away is most likely stranded, and to resume over another one costs next to nothing.
   * @param {'online' | 'change' | 'visible'} why
   */
  awake(why) {
    if (why !== 'visible') this.#changedAt = this.#world.clock.now()
    this.#backoff.reset()
    this.#wake?.()
    if (!this.#link) this.#attempt.abort()
    else if (why === 'online') this.#link.close(GIVEN_UP, 'network')
    else this.#liveness?.probe(why === 'change' ? ANSWER_IN_HASTE : undefined)
  }

  /** Closes the connection, without an end of the session, until `thaw()`. @param {number} code */
  freeze(code) {
    this.#frozen ??= deferred()
    this.#attempt.abort()
    this.#link?.close(code)
  }

  thaw() {
    this.#backoff.reset()
    this.#frozen?.resolve(undefined)
    this.#frozen = undefined
    this.#wake?.()
  }

  async #run() {
    const { signal } = this.#life
    while (!signal.aborted) {
      await this.#frozen?.promise
      /** @type {Failure[]} */
      let failures = []
      /** @type {import('./errors.js').Why | undefined} */
      let why
      try {
        why = await this.#serve(await this.#climb())
      } catch (error) {
        failures = /** @type {any} */ (error).failures ?? [{ why: { code: 'unreachable', message: String(error) } }]
        why = failures.at(-1)?.why ?? { code: 'no_transport' }
        if (!this.#established && !signal.aborted) {
          const final = failures.find((failure) => isFinal(failure.why.code)) ?? (failures.length ? undefined : { why })
          if (final) return this.#port.refused(final)
        }
      }
      if (signal.aborted || (!failures.length && !this.#port.lost(why))) return
      const delay = this.#backoff.next({
        atOnce: AT_ONCE.includes(/** @type {any} */ (why.code)),
        retryAfter: why.retryAfter,
      })
      failures.forEach((failure, i) => this.#port.failed(failure, i < failures.length - 1 ? 0 : delay))
      await sleep(this.#world.clock, delay, signal, (wake) => (this.#wake = wake))
    }
  }

  /** @param {import('./link.js').Link} link @returns {Promise<import('./errors.js').Why>} */
  async #serve(link) {
    const { clock } = this.#world
    this.#link = link
    this.#established = true
    const began = clock.now()
    const liveness = new Liveness(clock, {
      ping: () => link.send(this.#port.ping()),
      dead: () => link.close(GIVEN_UP, 4010),
      doubt: (doubtful) => link === this.#link && this.#port.doubt(doubtful),
    })
    this.#liveness = liveness
    liveness.times = this.#heartbeat
    liveness.busy = this.#busy
    const upgrade = clock.setTimeout(() => this.#upgrade(link), UPGRADE)
    this.#port.linked(link)
    const why = await link.ended
    clock.clearTimeout(upgrade)
    liveness.stop()
    if (clock.now() - began > STABLE) this.#backoff.reset()
    this.#link = this.#liveness = undefined
    return why
  }

  /** The first transport that answers, from the top. */
  async #climb() {
    const better = this.#better
    this.#better = undefined
    if (better) return better
    this.#attempt = new AbortController()
    const good = this.#good ? this.#transports.indexOf(this.#good) : -1
    /** @type {Failure[]} */
    const failures = []
    for (const [rung, kind] of this.#transports.entries()) {
      const result = await this.#try(kind, rung < good ? FIRST_ANSWER_AGAIN : FIRST_ANSWER)
      if ('kind' in result) {
        this.#remember(kind)
        return result
      }
      failures.push({ transport: kind, why: result })
      if (this.#attempt.signal.aborted || result.code === 'bad_url') break
    }
    const last = failures.at(-1)
    const isKnown = this.#established || failures.some(({ why }) => isFinal(why.code)) || this.#attempt.signal.aborted
    if (last && !isKnown)
      last.why = (await this.#world.diagnose?.(this.#address, this.#world, this.#life.signal)) ?? last.why
    if (last && this.#policy?.()) last.why = { code: 'blocked_by_csp' }
    throw Object.assign(new Error('No transport answers'), { failures })
  }

  /**
   * Again, while what fails says nothing of the transport.
   * @param {import('./types.js').TransportKind} kind
   * @param {number} patience
   */
  async #try(kind, patience) {
    const { clock } = this.#world
    for (;;) {
      const isChanging = clock.now() - this.#changedAt < CHANGING
      const result = await this.#open(kind, isChanging ? CHANGING_ANSWER : patience)
      const { signal } = this.#attempt
      if ('kind' in result || signal.aborted || !isChanging) return result
      await sleep(clock, CHANGING_PAUSE, signal)
    }
  }

  /**
   * @param {import('./types.js').TransportKind} kind
   * @param {number} patience
   * @returns {Promise<import('./link.js').Link | import('./errors.js').Why>}
   */
  async #open(kind, patience) {
    const { clock } = this.#world
    const { signal } = this.#attempt
    /** @type {import('./link.js').Link} */
    let link
    try {
      link = openLink(kind, this.#address, this.#world, (message, text = '') => {
        // Nothing is read from a connection that was given up: what is read there counts as seen.
        if (link !== this.#link) return
        this.#liveness?.heard()
        if (message && message.type !== 'pong') this.#port.heard(message, text)
      })
    } catch (error) {
      const { name, message } = /** @type {Error} */ (error)
      return { code: name === 'SecurityError' ? 'insecure' : 'bad_url', message }
    }
    const silence = sleep(clock, patience, signal).then(
      () => link.trouble ?? { code: signal.aborted ? 'network' : 'silent', message: `No answer by ${kind}` },
    )
    const why = await Promise.race([link.ready, link.ended, silence])
    if (!why && !this.#life.signal.aborted) return link
    link.close(GIVEN_UP)
    return why ?? { code: 'closed' }
  }

  /** @param {import('./types.js').TransportKind} kind */
  #remember(kind) {
    this.#good = kind
    try {
      sessionStorage.setItem('switchboard', kind)
    } catch {}
  }

  /** Back to the best transport, once it works again: calls do not notice. @param {import('./link.js').Link} link */
  async #upgrade(link) {
    const [best] = this.#transports
    if (link.kind === best || link !== this.#link) return
    this.#attempt = new AbortController()
    const better = await this.#open(best, FIRST_ANSWER).catch(ignore)
    const works = better && 'kind' in better
    if (link !== this.#link) return works ? better.close(1000) : undefined
    if (!works) return void this.#world.clock.setTimeout(() => this.#upgrade(link), UPGRADE)
    this.#better = better
    this.#remember(best)
    link.close(GIVEN_UP, 'upgrade')
  }
}

/** What an app is told of a failure. @param {Failure} failure */
export const told = ({ transport, why }) => ({ transport, error: asError(why) })
