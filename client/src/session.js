import { Engine } from './engine.js'
import { SwitchboardError } from './errors.js'
import { Emitter } from './events.js'
import { abortable, ignore } from './util.js'

/** @import { Abortable, ConnectOptions, Delivery, SessionEventMap, SessionOptions } from './types.js' */

/**
 * A session at a Switchboard server, which outlives its connections: it logs in and resumes, sends and hears messages,
 * and watches who is there. `Client` adds calls.
 *
 * @template {SessionEventMap & { [Type in keyof Events]: Event }} [Events=SessionEventMap]
 * @extends {Emitter<Events>}
 */
export class Session extends Emitter {
  /** @internal */
  _engine
  #options

  /**
   * @param {string | URL | { href: string }} url where the server is: `wss://…`, `https://…`, or relative to the
   * page, such as `'/'`. A `ws` URL is used as it is; for others the WebSocket is at `ws`, and HTTP at `v1/`, beside it.
   * @param {SessionOptions} [options]
   */
  constructor(url, options = {}) {
    super()
    this.#options = options
    this._engine = new Engine(url, options, (type, fields) => this._fire(/** @type {any} */ (type), fields))
  }

  get state() {
    return this._engine.state
  }

  /** Whether the server answers. */
  get reachable() {
    return this._engine.reachable
  }

  /** The name, once logged in. */
  get name() {
    return this._engine.name
  }

  /** The session's public id. */
  get session() {
    return this._engine.session
  }

  /** Which node the client is connected to. */
  get node() {
    return this._engine.node
  }

  /** How it is connected. */
  get transport() {
    return this._engine.transport
  }

  /** Those of the server, as they are now. */
  get iceServers() {
    return this._engine.iceServers
  }

  /**
   * Connects, and logs in if `options.name` was given. Tries until it succeeds, is refused, or cannot succeed, or
   * `signal` or `timeout` ends it.
   * @param {ConnectOptions} [options]
   * @returns {Promise<this>}
   */
  connect(options = this.#options) {
    const { name } = this.#options
    if (name !== undefined) return this.login(name, options)
    this._engine.start()
    return this.#within(this._engine.online.promise, options)
  }

  /**
   * Takes a name. Fails with `name_taken`, `invalid_name`, `unauthorized`, …; another try may follow.
   * @param {string} name
   * @param {ConnectOptions} [options]
   * @returns {Promise<this>}
   */
  async login(name, options) {
    const taken = this._engine.login.begin(name)
    this._engine.takeUp(name)
    this._engine.start()
    this._engine.enter()
    return this.#within(taken, options)
  }

  /**
   * Sends anything that is JSON to somebody, call or not. Once, in order, whatever becomes of connections, while the
   * server keeps its data. Fails with `too_large` if the whole frame has more than 64 KiB of UTF-8, or more than the
   * server's own limit. A `signal` takes it back: it is not sent any more, or not again.
   * @param {string} name
   * @param {unknown} message
   * @param {Abortable} [options]
   * @returns {Promise<Delivery>}
   */
  async send(name, message, { signal } = {}) {
    return this._engine.request({ type: 'message', name, message }, signal)
  }

  /**
   * Who of these is here.
   * @param {readonly string[]} names
   * @param {Abortable} [options]
   * @returns {Promise<Record<string, boolean>>}
   */
  async presence(names, { signal } = {}) {
    return (await this._engine.request({ type: 'presence', names: [...names] }, signal)).users
  }

  /**
   * Who of these is here, and from now on `presence` events when that changes. At most 256 names in all.
   * @param {readonly string[]} names
   * @param {Abortable} [options]
   * @returns {Promise<Record<string, boolean>>}
   */
  async watch(names, { signal } = {}) {
    const { users } = await this._engine.request({ type: 'presence', names: [...names], watch: true }, signal)
    this._engine.watches.begin(users)
    return users
  }

  /** @param {readonly string[]} names */
  unwatch(names) {
    this._engine.watches.end(names)
    this._engine.request({ type: 'presence', names: [...names], watch: false }).catch(ignore)
  }

  /** Ends the session, and all calls. */
  close() {
    this._engine.stop()
  }

  async [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    this.close()
  }

  /**
   * Ends a wait by its signal or its timeout; then nothing more is tried.
   * @param {Promise<void>} promise
   * @param {ConnectOptions} [options]
   * @returns {Promise<this>}
   */
  #within(promise, { signal, timeout } = {}) {
    const waits = abortable(
      promise.then(() => this),
      signal,
      () => this.close(),
    )
    if (!timeout) return waits
    const timer = setTimeout(() => {
      const { trouble } = this._engine
      const words = `Not connected within ${timeout} ms${trouble ? `: ${trouble.message}` : ''}`
      this._engine.stop(new SwitchboardError('timeout', words, undefined, { cause: trouble }))
    }, timeout)
    return waits.finally(() => clearTimeout(timer))
  }
}
