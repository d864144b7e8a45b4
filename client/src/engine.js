import { addresses } from './address.js'
import { systemClock } from './clock.js'
import { FROZEN, RELOADED, STOP } from './codes.js'
import { Confirmation } from './confirm.js'
import { Connector, told } from './connector.js'
import { teller } from './debug.js'
import { SwitchboardError, asError } from './errors.js'
import { Login } from './login.js'
import { Outbox } from './outbox.js'
import { watchPage } from './page.js'
import { Watches } from './presence.js'
import { bytes, deferred } from './util.js'
import { worldOf } from './world.js'

/** @import { ClientState, IceServer, Reachability, SessionEventMap, SessionOptions, TransportKind } from './types.js' */
/** @import { Deferred } from './util.js' */
/** @import { Why } from './errors.js' */

const TRANSPORTS = /** @type {const} */ (['websocket', 'sse', 'poll'])
/** What a session does behind its face: it keeps one login alive over connections that come and go. */
export class Engine {
  /** @type {ClientState} */
  state = 'offline'
  /** @type {Reachability} */
  reachable = 'offline'
  /** @type {string | undefined} */
  name
  /** @type {string | undefined} */
  session
  /** @type {string | undefined} */
  node
  /** @type {TransportKind | undefined} */
  transport
  /** @type {IceServer[]} */
  iceServers = []
  /** For who takes calls. @type {import('./calls.js').Calls | undefined} */
  calls
  watches
  login
  debug
  /** @type {Deferred<void>} */
  online = deferred()
  /** What went wrong last. @type {SwitchboardError | undefined} */
  trouble

  #options
  #fire
  #address
  #world
  /** @type {Connector | undefined} */
  #connector
  #outbox
  /** @type {import('./store.js').Store | undefined} */
  #store
  /** @param {string} text */
  #say = (text) => this.#connector?.link?.send(text)
  #confirmation = new Confirmation(this.#say)
  /** What was said of the state last. */
  #said = ''

  /**
   * @param {string | URL | { href: string }} url
   * @param {SessionOptions} options
   * @param {(type: keyof SessionEventMap, fields: object) => void} fire
   */
  constructor(url, options, fire) {
    this.#options = options
    this.#fire = fire
    this.#address = addresses(url)
    this.debug = teller(systemClock, options.debug)
    this.#world = worldOf(options, systemClock)
    this.#outbox = new Outbox(systemClock, this.#say, () => this.busyChanged())
    const { Store } = this.#world
    if (Store && options.persist)
      this.#store = new Store(this.#address.base, () => {
        const { resume } = this.login
        return { name: this.name, resume, last: this.#confirmation.last, outbox: this.#outbox.state }
      })
    this.watches = new Watches(
      (message) => this.request(message),
      (users) => fire('presence', { users }),
    )
    this.login = new Login(systemClock, options.token, {
      link: () => this.#connector?.link,
      last: () => this.#confirmation.last,
      entered: (reply, again) => this.#entered(reply, again),
      lost: () => this.#lose(),
      failed: (failure) => this.#failed(failure),
      refused: (error, established) => {
        if (established) this.stop(error)
        else if (this.state !== 'online') this.#set('online')
      },
    })
  }

  start() {
    if (this.#connector) return
    const { transports = TRANSPORTS, reconnect } = this.#options
    this.#set('connecting')
    const connector = new Connector(
      this.#address,
      this.#world,
      { transports, reconnect },
      {
        linked: () => (this.login.name === undefined ? this.#set('online') : this.enter()),
        heard: (message, text) => this.#hear(message, text),
        ping: () => this.#confirmation.ping(),
        doubt: (doubtful) => this.#reach(doubtful ? 'probing' : 'online'),
        lost: (why) => this.#lost(why),
        failed: (failure, retryIn) => this.#failed({ ...told(failure), retryIn, final: false }),
        refused: (failure) => {
          this.#failed({ ...told(failure), final: true })
          this.stop(asError(failure.why))
        },
      },
    )
    this.#connector = connector
    this.busyChanged()
    watchPage(connector.life, {
      awake: (why) => {
        this.debug('awake', { why })
        connector.awake(why)
        this.calls?.awake(why !== 'visible')
      },
      freeze: () => {
        this.#store?.keep()
        connector.freeze(FROZEN)
      },
      thaw: () =>
        this.#store?.isTaken()
          ? this.stop(new SwitchboardError('replaced', 'Another page has the session'))
          : connector.thaw(),
      gone: () => this.#leavePage(),
    })
  }

  enter() {
    const { link, life } = this.#connector ?? {}
    if (link && life) this.login.enter(link, life)
  }

  /** @param {SwitchboardError} [error] */
  stop(error) {
    if (!this.#connector) return
    const reason = error ?? new SwitchboardError('closed', 'The client was closed')
    this.calls?.stopped(reason.code, !error)
    this.#connector.stop()
    this.#connector = undefined
    this.#confirmation = new Confirmation(this.#say)
    Object.assign(this, { name: undefined, session: undefined })
    this.iceServers = []
    this.watches.clear()
    this.login.end(reason)
    this.online.reject(reason)
    this.online = deferred()
    this.#outbox.fail(reason)
    this.#set('closed', error)
  }

  #leavePage() {
    if (this.#store) this.calls?.stopped('closed', true)
    if (this.#store?.keep()) this.#connector?.stop(RELOADED)
    // A WebSocket closes with its page; over HTTP the server has to be told.
    else this.#connector?.link?.farewell?.()
  }

  /** The session of the page before. @param {string} name */
  takeUp(name) {
    const kept = this.#store?.take(name)
    if (!kept) return
    this.login.resume = kept.resume
    this.#confirmation.last = kept.last
    this.#outbox.state = kept.outbox
  }

  /** @param {ClientState} state @param {SwitchboardError} [error] */
  #set(state, error) {
    const { link } = this.#connector ?? {}
    Object.assign(this, { state, transport: link?.kind, node: link && this.node })
    if (state === 'online') this.online.resolve()
    this.#reach(state === 'online' ? 'online' : 'offline')
    const said = [state, this.transport, this.node].join()
    if (said === this.#said) return
    this.#said = said
    this.debug('state', { state, transport: this.transport, node: this.node, error: error?.code })
    this.#fire('state', { state, error })
  }

  /** @param {Reachability} reachable */
  #reach(reachable) {
    if (reachable === this.reachable || (reachable !== 'offline' && this.state !== 'online')) return
    Object.assign(this, { reachable })
    this.#fire('reachable', { reachable })
  }

  /** @param {{ error: SwitchboardError, retryIn?: number, final: boolean, transport?: string }} attempt */
  #failed(attempt) {
    const { code, message } = (this.trouble = attempt.error)
    this.debug('attempt', { ...attempt, error: undefined, code })
    this.#fire('attempt', { ...attempt, code, message })
  }

  /** @param {Why} why @returns {boolean} whether to go on */
  #lost(why) {
    this.login.answered()
    this.debug('lost', { code: why.code })
    const stop = STOP[why.code]
    // Whoever is about to log in, and waits for a token or for the server's store, tries again.
    const goesOn =
      stop === 'too_large'
        ? this.#outbox.dropLongest(why.message)
        : stop === 'not_logged_in'
          ? this.login.name !== undefined
          : why.code === 4003 && this.login.renews
    if (stop && !goesOn) {
      this.stop(new SwitchboardError(stop, why.message || stop))
      return false
    }
    // The token ended before there was a new one; the next login brings one.
    if (why.code === 4001 || why.code === 4003) this.#lose()
    this.#outbox.lost()
    this.#set(this.state === 'connecting' ? 'connecting' : 'reconnecting')
    return true
  }

  /** @param {any} reply @param {boolean} again */
  #entered({ name, session, node, resumed, iceServers, heartbeat, limits }, again) {
    Object.assign(this, { name, session, node })
    this.trouble = undefined
    if (heartbeat && this.#connector) this.#connector.heartbeat = heartbeat
    this.#setIceServers(iceServers)
    this.#set('online')
    this.#outbox.opened(limits)
    if (!again) return
    // Watches end with the connection.
    this.watches.again()
    this.calls?.back(resumed)
    if (!resumed) this.#fire('missed', {})
  }

  /** The session is gone for good, and another will have its name. */
  #lose() {
    this.login.resume = undefined
    this.#confirmation = new Confirmation(this.#say)
    this.#outbox.forget()
    this.calls?.orphaned()
  }

  /** @param {any} message @param {string} text */
  #hear(message, text) {
    const { type, id, name, seq } = message
    if (type === 'login') this.login.answered(message)
    else if (id !== undefined) this.#outbox.settle(message)
    else if (type === 'presence') this.watches.learn(message.users)
    else if (type === 'ice_servers') this.#setIceServers(message.iceServers)
    else if (type === 'token_expires') this.#connector && this.login.renew(this.#connector.life)
    else if (type === 'status') message.missed && this.#missed()
    else if (!this.calls?.heard(message) && type === 'message') this.#fire('message', { name, message: message.message })
    // goaway: the close follows, and says the same. Errors without an id are of nothing that we sent.
    if (seq !== undefined) this.#confirmation.handed(seq, bytes(text))
  }

  /** Signals may be lost. What is not acknowledged is sent again in any case, since the server answers each request. */
  #missed() {
    this.debug('missed')
    this.calls?.repeat()
    this.watches.again()
    this.#fire('missed', {})
  }

  /** @param {IceServer[]} [iceServers] */
  #setIceServers(iceServers = []) {
    if (JSON.stringify(iceServers) === JSON.stringify(this.iceServers)) return
    this.iceServers = iceServers
    this.calls?.configured()
    this.#fire('iceservers', { iceServers: this.iceServers })
  }

  /**
   * Sends a request until it is answered, over as many connections as it takes.
   * @param {{ type: string, name?: string, [field: string]: unknown }} message
   * @param {AbortSignal} [signal]
   */
  request(message, signal) {
    if (!this.name) return Promise.reject(new SwitchboardError('not_logged_in', 'Log in first'))
    return this.#outbox.add(message, signal)
  }

  /** Asks at once whether the server is there. Says whether it is, as far as is known. @param {number} [patience] */
  probe(patience) {
    this.#connector?.probe(patience)
    return this.state === 'online'
  }

  busyChanged() {
    if (this.#connector) this.#connector.busy = this.#outbox.isWaiting || Boolean(this.calls?.isBusy)
  }
}
