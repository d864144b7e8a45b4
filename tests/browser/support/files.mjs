// Serves the client library from the source tree, and pages that a test makes up: an origin of its own.

import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { extname, join, normalize } from 'node:path'

import { CLIENT, ROOT } from './cluster.mjs'

const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css', '.json': 'application/json' }

/**
 * `pages` maps paths to their HTML; everything else is read from `client/` (under `/client/`) and `examples/` (under `/examples/`).
 * An origin of localhost is a secure one, so that a page may use a camera.
 */
export async function startFiles(pages = {}, { host = '127.0.0.1' } = {}) {
  const server = createServer(async (req, res) => {
    const path = normalize(new URL(req.url, 'http://files').pathname)
    // A page with `no-store` would not enter the back/forward cache.
    const send = (type, body) => res.writeHead(200, { 'Content-Type': type, 'Cache-Control': 'no-cache' }).end(body)
    if (path in pages) return send(TYPES['.html'], pages[path])
    if (path === '/blank') return send(TYPES['.html'], '<!doctype html><title>blank</title>')
    const file = path.startsWith('/client/') ? join(CLIENT, path.slice(8)) : path.startsWith('/examples/') ? join(ROOT, path) : undefined
    const body = file && (await readFile(file).catch(() => undefined))
    if (body === undefined) return res.writeHead(404).end()
    send(TYPES[extname(file)] ?? 'application/octet-stream', body)
  })
  await once(server.listen(0, host), 'listening')
  return { http: `http://${host}:${server.address().port}`, stop: async () => (server.closeAllConnections(), server.close()) }
}
