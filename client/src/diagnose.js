import { sleep } from './util.js'

/** How long the server has to say why it does not let us in. */
const PATIENCE = 3000

/**
 * Browsers do not say why a WebSocket failed. What can be known is asked for: by the page's policy, and by an ordinary
 * request.
 * @param {import('./address.js').Address} address
 * @param {import('./link.js').World} world
 * @param {AbortSignal} life
 * @returns {Promise<import('./errors.js').Why | undefined>}
 */
export async function diagnose(address, { fetch, clock }, life) {
  const leave = new AbortController()
  const ask = async () => {
    try {
      const response = await fetch(new URL('v1/whoami', address.base), { cache: 'no-store', signal: leave.signal })
      if (response.ok) return undefined
      const { code, message } = await response.json().catch(() => ({}))
      return { code: code ?? (response.status === 404 ? 'not_found' : `http_${response.status}`), message }
    } catch {
      return undefined
    }
  }
  const answer = await Promise.race([ask(), sleep(clock, PATIENCE, life).then(() => undefined)])
  leave.abort()
  return answer
}

/**
 * Watches whether the page's Content-Security-Policy forbids to reach the server.
 * @param {import('./address.js').Address} address
 * @param {AbortSignal} life
 * @returns {() => boolean}
 */
export function watchPolicy(address, life) {
  let violated = false
  const hosts = [address.socket, address.base].map((url) => new URL(url).host)
  const note = (/** @type {SecurityPolicyViolationEvent} */ { blockedURI, effectiveDirective }) => {
    if (effectiveDirective === 'connect-src' && hosts.some((host) => blockedURI.includes(host))) violated = true
  }
  globalThis.document?.addEventListener('securitypolicyviolation', note, { signal: life })
  return () => violated
}
