// A proxy before nodes, as good or as bad as a test needs it.

import { once } from 'node:events'
import { createServer, request } from 'node:http'
import { connect } from 'node:net'

/**
 * Forwards HTTP and WebSockets to `targets` (`http://127.0.0.1:PORT`, or nodes), in turns; one that refuses the connection is passed over.
 * `rules` may be changed at any time:
 * - `websocket`: `'pass'`, `'refuse'` (403), `'hang'` (never answered), `'mute'` (opened, then nothing comes through)
 * - `sse`: `'pass'`, `'buffer'` (held back, as some proxies do, until the response ends), `'refuse'` (502)
 * - `poll`: `'pass'` or `'refuse'`
 * - `inOrder`: the first target that is there, instead of each in turn
 * - `pick(targets, req)`: chooses a target itself.
 * `seen` lists the requests, `cut()` breaks all connections, `{url, http}` are its addresses.
 */
export async function startProxy(targets, rules = {}) {
  rules = { websocket: 'pass', sse: 'pass', poll: 'pass', ...rules }
  const sockets = new Set()
  const seen = []
  let turn = 0

  const choose = (req) => {
    const list = targets.map((target) => new URL(target.http ?? target))
    if (rules.pick) return [new URL(rules.pick(targets, req).http ?? rules.pick(targets, req))]
    const first = rules.inOrder ? 0 : turn++ % list.length
    return [...list.slice(first), ...list.slice(0, first)]
  }
  const kind = (req) => {
    if (req.headers.upgrade?.toLowerCase() === 'websocket') return 'websocket'
    const url = new URL(req.url, 'http://proxy')
    if (url.pathname !== '/v1/events') return 'other'
    return url.searchParams.get('mode') === 'poll' ? 'poll' : 'sse'
  }
  const note = (req) => {
    const entry = { at: Date.now(), kind: kind(req), method: req.method, url: req.url }
    seen.push(entry)
    return entry
  }

  const server = createServer(async (req, res) => {
    const entry = note(req)
    if (rules[entry.kind] === 'refuse') return void res.writeHead(502).end('refused by the proxy')
    const body = []
    for await (const chunk of req) body.push(chunk)
    let answer, lastError
    for (const { hostname, port } of choose(req)) {
      const onward = request({ hostname, port, method: req.method, path: req.url, headers: req.headers })
      res.on('close', () => onward.destroy())
      onward.end(Buffer.concat(body))
      try {
        ;[answer] = await once(onward, 'response')
        entry.port = port
        break
      } catch (error) {
        lastError = error
        // Another target only if this one never heard the request: what it had heard may have been done.
        if (error.code !== 'ECONNREFUSED') break
      }
    }
    if (!answer) return void (res.headersSent || res.writeHead(502).end(String(lastError?.code)))
    res.writeHead(answer.statusCode, answer.headers)
    // A target that dies in the middle of an answer breaks the client's connection too.
    answer.on('error', () => res.destroy())
    if (entry.kind === 'sse' && rules.sse === 'buffer') {
      const held = []
      answer.on('data', (chunk) => held.push(chunk))
      answer.on('end', () => res.end(Buffer.concat(held)))
    } else {
      res.flushHeaders()
      answer.pipe(res)
    }
  })

  server.on('upgrade', async (req, socket, head) => {
    const entry = note(req)
    socket.on('error', () => {})
    if (rules.websocket === 'refuse') return void socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
    if (rules.websocket === 'hang') return
    for (const { hostname, port } of choose(req)) {
      const onward = connect(Number(port), hostname)
      onward.on('error', () => {})
      if (!(await new Promise((resolve) => onward.once('connect', () => resolve(true)).once('close', () => resolve(false))))) continue
      entry.port = port
      const headers = []
      for (let i = 0; i < req.rawHeaders.length; i += 2) headers.push(`${req.rawHeaders[i]}: ${req.rawHeaders[i + 1]}\r\n`)
      onward.write(`${req.method} ${req.url} HTTP/1.1\r\n${headers.join('')}\r\n`)
      onward.write(head)
      if (rules.websocket === 'mute') onward.once('data', (answer) => (socket.write(answer), onward.resume()))
      else onward.pipe(socket)
      socket.pipe(onward)
      onward.on('close', () => socket.destroy())
      socket.on('close', () => onward.destroy())
      return
    }
    socket.destroy()
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })

  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address()
  return {
    rules,
    seen,
    port,
    url: `ws://127.0.0.1:${port}`,
    http: `http://127.0.0.1:${port}`,
    /** Breaks all connections, without a goodbye. */
    cut: () => sockets.forEach((socket) => socket.destroy()),
    async stop() {
      sockets.forEach((socket) => socket.destroy())
      server.close()
    },
  }
}
