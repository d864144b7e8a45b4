/**
 * Over HTTP/1.1 a browser has six connections to a host, for all its tabs: requests that stay open would take them all,
 * and the next tab would never get in. So each open request takes one of four slots, which the tabs of an origin share
 * by the Web Locks API; a lock is free as soon as its tab is gone.
 */

const SLOTS = 4

/**
 * @param {string} host
 * @returns {Promise<(() => void) | undefined>} how to give it back; nothing, if there is none
 */
export async function takeSlot(host) {
  const { locks } = globalThis.navigator ?? {}
  // Only secure contexts have locks.
  if (!locks || !globalThis.document) return () => {}
  for (let slot = 0; slot < SLOTS; slot++) {
    const free = await take(locks, `switchboard:${host}:${slot}`)
    if (free) return free
  }
  return undefined
}

/** @param {LockManager} locks @param {string} name @returns {Promise<(() => void) | undefined>} */
function take(locks, name) {
  return new Promise((resolve) => {
    const held = locks.request(name, { ifAvailable: true }, (lock) => {
      if (lock) return new Promise((free) => resolve(() => free(undefined)))
      resolve(undefined)
      return undefined
    })
    held.catch(() => resolve(() => {}))
  })
}
