/**
 * A link is one connection, by whatever transport.
 *
 * @typedef {object} Link
 * @property {import('./types.js').TransportKind} kind
 * @property {Promise<void>} ready something was heard, so that the way is known to be open in both directions
 * @property {Promise<import('./errors.js').Why>} ended
 * @property {(text: string) => void} send
 * @property {(code: number, why?: string | number) => void} close 1000 ends the session, any other code leaves it
 * @property {() => void} [farewell] tells the server that the page is gone
 * @property {import('./errors.js').Why} [trouble] what went wrong last, and is tried again
 *
 * What a transport is given: `hear` takes whatever came, and its text (nothing, for a sign of life).
 * @typedef {object} Port
 * @property {(message?: any, text?: string) => void} hear
 * @property {(why: import('./errors.js').Why) => void} end
 * @property {(why: import('./errors.js').Why) => void} stumble something went wrong, and is tried again
 *
 * What transports need of the world.
 * @typedef {object} World
 * @property {any} WebSocket
 * @property {import('./clock.js').Clock} clock
 *
 * And what an app may do without, or what needs `fetch`.
 * @property {any} [fetch]
 * @property {typeof import('./http.js').http} [http]
 * @property {typeof import('./diagnose.js').diagnose} [diagnose]
 * @property {typeof import('./diagnose.js').watchPolicy} [watchPolicy]
 * @property {typeof import('./store.js').Store} [Store]
 */

import { deferred, ignore } from './util.js'
import { webSocket } from './websocket.js'

export const PING = '{"type":"ping"}'

/**
 * @param {import('./types.js').TransportKind} kind
 * @param {import('./address.js').Address} address
 * @param {World} world
 * @param {(message?: any, text?: string) => void} heard
 * @returns {Link}
 */
export function openLink(kind, address, world, heard) {
  const ready = deferred()
  const ended = deferred()
  let over = false
  /** @type {Port} */
  const port = {
    hear(message, text) {
      if (over) return
      ready.resolve(undefined)
      heard(message, text)
    },
    end(why) {
      over = true
      ended.resolve(why)
    },
    stumble(why) {
      link.trouble = why
    },
  }
  /** @type {Link} */
  const link = { kind, ready: ready.promise, ended: ended.promise, send: ignore, close: ignore }
  const made = kind === 'websocket' ? webSocket(address, world, port) : world.http?.(kind, address, world, port)
  made?.send(PING)
  return Object.assign(link, made)
}
