import { addresses } from './address.js'
import { systemClock } from './clock.js'
import { FROZEN, RELOADED } from './codes.js'
import { Confirmation } from './confirm.js'
import { Connector, told } from './connector.js'
import { SwitchboardError, asError } from './errors.js'
import { Login } from './login.js'
import { NoCalls } from './no_calls.js'
import { Outbox } from './outbox.js'
import { watchPage } from './page.js'
import { Watches } from './presence.js'
import { keepSession, takeSession } from './store.js'
import { bytes, deferred, ignore } from './util.js'

/** @import { ClientState, IceServer, Reachability, SessionEventMap, SessionOptions, TransportKind } from './types.js' */
/** @import { Deferred } from './util.js' */
/** @import { Why } from './errors.js' */

const TRANSPORTS = /** @type {const} */ (['websocket', 'sse', 'poll'])
/** Close codes that mean "stop"; what others mean, a new connection mends. @type {Record<string, string>} */
const STOP = {
  1000: 'closed',
  1009: 'too_large',
  too_large: 'too_large',
  http_413: 'too_large',
  4000: 'replaced',
  4003: 'forbidden',
  4009: 'not_logged_in',
}

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
  calls = new NoCalls()
  watches = new Watches()
  login
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
  #confirmation = this.#newConfirmation()
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
    this.#world = {
      WebSocket: options.WebSocket ?? globalThis.WebSocket,
      fetch: options.fetch ?? globalThis.fetch?.bind(globalThis),
      clock: systemClock,
    }
    this.#outbox = new Outbox(systemClock, (text) => this.#say(text), () => this.busyChanged())
    this.login = new Login(systemClock, options.token, {
      link: () => this.#connector?.link,
      last: () => this.#confirmation.last,
      entered: (reply, again) => this.#entered(reply, again),
      lost: () => this.#lose(),
      failed: (failure) => this.#failed({ ...failure, code: failure.error.code, message: failure.error.message }),
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
    const connector = new Connector(this.#address, this.#world, { transports, reconnect }, {
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
    })
    this.#connector = connector
    this.busyChanged()
    watchPage(connector.life, {
      awake: (why) => {
        this.debug('awake', { why })
        connector.awake(why)
        this.calls.awake(why !== 'visible')
      },
      freeze: () => {
        this.#keep()
        connector.freeze(FROZEN)
      },
      thaw: () => (this.#isTaken() ? this.stop(new SwitchboardError('replaced', 'Another page has the session')) : connector.thaw()),
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
    this.calls.stopped(reason.code, !error)
    this.#connector.stop()
    this.#connector = undefined
    this.#confirmation = this.#newConfirmation()
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
    const { persist } = this.#options
    if (persist) this.calls.stopped('closed', true)
    if (this.#keep()) this.#connector?.stop(RELOADED)
    // A WebSocket closes with its page; over HTTP the server has to be told.
    else this.#connector?.link?.farewell?.()
  }

  /** For the page after this one. @returns {boolean} whether it was asked for, and there is something to keep */
  #keep() {
    const { name } = this
    const { resume } = this.login
    if (!this.#options.persist || !name || !resume) return false
    keepSession({ url: this.#address.base, name, resume, last: this.#confirmation.last, outbox: this.#outbox.state })
    return true
  }

  /** Whether a page that was loaded while this one was frozen has taken the session. */
  #isTaken() {
    const { name } = this
    return this.#options.persist && name && this.login.resume && !takeSession(this.#address.base, name)
  }

  /** The session of the page before. @param {string} name */
  takeUp(name) {
    const kept = takeSession(this.#address.base, name)
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

  /** @param {{ error: SwitchboardError, code: string, message: string, retryIn?: number, final: boolean, transport?: string }} attempt */
  #failed(attempt) {
    this.trouble = attempt.error
    this.debug('attempt', { transport: attempt.transport, code: attempt.code, retryIn: attempt.retryIn, final: attempt.final })
    this.#fire('attempt', attempt)
  }

  /** @param {Why} why @returns {boolean} whether to go on */
  #lost(why) {
    this.login.answered()
    this.debug('lost', { code: why.code })
    const stop = STOP[why.code]
    // Whoever is about to log in, and waits for a token or for the server's store, tries again.
    const goesOn = stop === 'too_large' ? this.#outbox.dropLongest(why.message) : stop === 'not_logged_in' && this.login.name !== undefined
    if (stop && !goesOn) {
      this.stop(new SwitchboardError(stop, why.message || stop))
      return false
    }
    if (why.code === 4001) this.#lose()
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
    this.#watchAgain()
    this.calls.back(resumed)
  }

  /** Asks again for all watches. What has changed meanwhile is told as a change. */
  #watchAgain() {
    const { names } = this.watches
    if (names.length) this.request({ type: 'presence', names, watch: true }).then(({ users }) => this.#present(users), ignore)
  }

  /** The session is gone for good, and another will have its name. */
  #lose() {
    this.login.resume = undefined
    this.#confirmation = this.#newConfirmation()
    this.#outbox.forget()
    this.calls.orphaned()
  }

  // What is said and heard.

  /** @param {string} text */
  #say(text) {
    this.#connector?.link?.send(text)
  }

  #newConfirmation() {
    return new Confirmation((text) => this.#say(text))
  }

  /** @param {any} message @param {string} text */
  #hear(message, text) {
    const { type, id, name, seq } = message
    if (type === 'login') this.login.answered(message)
    else if (id !== undefined) this.#outbox.settle(message)
    else if (type === 'presence') this.#present(message.users)
    else if (type === 'ice_servers') this.#setIceServers(message.iceServers)
    else if (type === 'status') message.missed && this.#missed()
    else if (!this.calls.heard(message) && type === 'message') this.#fire('message', { name, message: message.message })
    // goaway: the close follows, and says the same. Errors without an id are of nothing that we sent.
    if (seq !== undefined) this.#confirmation.handed(seq, bytes(text))
  }

  /** Signals may be lost. What is not acknowledged is sent again in any case, since the server answers each request. */
  #missed() {
    this.debug('missed')
    this.calls.repeat()
    this.#watchAgain()
  }

  /** @param {Record<string, boolean>} users */
  #present(users) {
    const changed = this.watches.learn(users)
    if (changed) this.#fire('presence', { users: changed })
  }

  /** @param {IceServer[]} [iceServers] */
  #setIceServers(iceServers = []) {
    if (JSON.stringify(iceServers) === JSON.stringify(this.iceServers)) return
    this.iceServers = iceServers
    this.calls.configured()
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

  /** Asks at once whether the server is there. @param {number} [patience] @returns {boolean} whether it is, as far as is known */
  probe(patience) {
    this.#connector?.probe(patience)
    return this.state === 'online'
  }

  busyChanged() {
    if (this.#connector) this.#connector.busy = this.#outbox.isWaiting || this.calls.isBusy
  }

  /** @param {string} what @param {object} [details] */
  debug(what, details) {
    const { debug } = this.#options
    if (!debug) return
    const record = { at: systemClock.now(), what, ...details }
    if (typeof debug === 'function') debug(record)
    else console.debug('switchboard:', record)
  }
}
