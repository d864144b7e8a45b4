// Small things.

/** @template T @typedef {{ promise: Promise<T>, resolve(value: T): void, reject(reason: unknown): void }} Deferred */

/** A promise that is settled from outside. That nobody waits for it is no error. @template T @returns {Deferred<T>} */
export function deferred() {
  /** @type {any} */
  const made = {}
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }))
  made.promise.catch(ignore)
  return made
}

/**
 * Resolves after a time, when the signal is aborted, or when it is woken.
 * @param {import('./clock.js').Clock} clock
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @param {(wake: () => void) => void} [waker]
 * @returns {Promise<void>}
 */
export function sleep(clock, ms, signal, waker) {
  return new Promise((resolve) => {
    const timer = clock.setTimeout(done, ms)
    function done() {
      clock.clearTimeout(timer)
      signal?.removeEventListener('abort', done)
      resolve()
    }
    if (signal?.aborted) return done()
    signal?.addEventListener('abort', done)
    waker?.(done)
  })
}

/**
 * @template T
 * @param {Promise<T>} promise
 * @param {AbortSignal} [signal]
 * @param {() => void} [aborted]
 * @returns {Promise<T>}
 */
export function abortable(promise, signal, aborted = ignore) {
  if (!signal) return promise
  return new Promise((resolve, reject) => {
    const abort = () => {
      aborted()
      reject(signal.reason)
    }
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort)
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

/** A text on the wire. @param {string} text */
export const encoded = (text) => new TextEncoder().encode(text)

/** The length of a text on the wire. @param {string} text */
export const bytes = (text) => encoded(text).length

/** Of a greeting, say, it is nothing. @param {string} text @returns {any} */
export function parse(text) {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** A word that nobody else has. */
export const unique = () => Math.random().toString(36).slice(2) + Math.random().toString(36).slice(2, 6)

export function ignore() {}
