import { asError } from './errors.js'

/** Where a server is. @typedef {{ socket: string, base: string }} Address */

/**
 * `ws` beside an http(s) URL, exactly where a ws(s) URL says, and `v1/…` beside either.
 * @param {string | URL | { href: string }} url
 * @returns {Address}
 */
export function addresses(url) {
  const given = resolved(url)
  const isSocket = given.protocol.startsWith('ws')
  const base = new URL('.', given)
  const socket = isSocket ? given : new URL('ws', base)
  socket.protocol = socket.protocol.replace('http', 'ws')
  base.protocol = base.protocol.replace('ws', 'http')
  return { socket: socket.href, base: base.href }
}

/** @param {string | URL | { href: string }} url */
function resolved(url) {
  const text = typeof url === 'string' ? url : url.href
  try {
    const given = new URL(text, globalThis.location?.href)
    if (/^(ws|http)s?:$/.test(given.protocol)) return given
  } catch {} // Neither an address nor relative to one.
  throw asError({ code: 'bad_url' })
}
