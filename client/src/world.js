import { diagnose, watchPolicy } from './diagnose.js'
import { http } from './http.js'
import { Store } from './store.js'

/**
 * What there is here, unless the app has something better. `lite.js` stands in for this module in the lite edition.
 * @param {import('./types.js').SessionOptions} options
 * @param {import('./clock.js').Clock} clock
 * @returns {import('./link.js').World}
 */
export function worldOf({ WebSocket = globalThis.WebSocket, fetch = globalThis.fetch?.bind(globalThis) }, clock) {
  const byFetch = fetch === undefined ? {} : { fetch, http, diagnose }
  return { WebSocket, clock, watchPolicy, Store, ...byFetch }
}
