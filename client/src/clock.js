/**
 * Time, as the library sees it: it only goes forward, whatever happens to the clock on the wall. Tests have one of
 * their own.
 * @typedef {object} Clock
 * @property {() => number} now milliseconds
 * @property {(action: () => void, ms: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 * @property {() => number} random 0 to 1
 */

/** @type {Clock} */
export const systemClock = {
  now: () => performance.now(),
  setTimeout: (action, ms) => setTimeout(action, ms),
  clearTimeout: (timer) => clearTimeout(timer),
  random: () => Math.random(),
}
