import { Calls } from './calls.js'
import { Session } from './session.js'

/** @import { CallOptions, ClientEventMap, ClientOptions, IceServer } from './types.js' */
/** @import { Call } from './call.js' */

/**
 * A session with calls.
 * @extends {Session<ClientEventMap>}
 */
export class Client extends Session {
  #options
  #calls

  /**
   * @param {string | URL | { href: string }} url where the server is: `wss://…`, `https://…`, or relative to the
   * page, such as `'/'`. A `ws` URL is used as it is; for others the WebSocket is at `ws`, and HTTP at `v1/`, beside it.
   * @param {ClientOptions} [options]
   */
  constructor(url, options = {}) {
    super(url, options)
    this.#options = options
    const engine = this._engine
    this.#calls = new Calls(
      {
        me: () => engine.name,
        iceServers: () => engine.iceServers,
        request: (message) => engine.request(message),
        rings: (call) => this._fire('call', { call }),
        busyChanged: () => engine.busyChanged(),
        probe: (patience) => engine.probe(patience),
        debug: (what, details) => engine.debug(what, details),
      },
      options,
    )
    engine.calls = this.#calls
  }

  /** The calls that have not ended, by the other's name. @returns {ReadonlyMap<string, Call>} */
  get calls() {
    return this.#calls.map
  }

  /** Those of the server and of `options.rtc`, as they are now. @returns {IceServer[]} */
  get iceServers() {
    return [...super.iceServers, ...(this.#options.rtc?.iceServers ?? [])]
  }

  /**
   * Calls somebody. Returns at once; the call's events say what becomes of it.
   * @param {string} name
   * @param {CallOptions} [options]
   * @returns {Call}
   */
  call(name, options = {}) {
    return this.#calls.call(name, options)
  }
}

/**
 * `new Client(url, options).connect()`
 * @param {string | URL | { href: string }} url
 * @param {ClientOptions} [options]
 * @returns {Promise<Client>}
 */
export const connect = (url, options) => new Client(url, options).connect(options)
