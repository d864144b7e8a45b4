/** @import { DebugRecord } from './types.js' */

/**
 * Tells whoever wants to know what happens inside.
 * @param {import('./clock.js').Clock} clock
 * @param {boolean | ((record: DebugRecord) => void)} [debug]
 * @returns {(what: string, details?: object) => void}
 */
export function teller(clock, debug) {
  if (!debug) return () => {}
  const tell =
    typeof debug === 'function' ? debug : (/** @type {DebugRecord} */ record) => console.debug('switchboard:', record)
  return (what, details) => tell({ at: clock.now(), what, ...details })
}
