/**
 * In the place of `src/world.js`: a WebSocket, and nothing to fall back to, no diagnosis, no session that outlives its
 * page.
 * @param {import('./src/types.js').SessionOptions} options
 * @param {import('./src/clock.js').Clock} clock
 * @returns {import('./src/link.js').World}
 */
export const worldOf = ({ WebSocket = globalThis.WebSocket }, clock) => ({ WebSocket, clock })
