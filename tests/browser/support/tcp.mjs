// A wire between two ports, which can be cut, or is cut when nobody speaks.

import { once } from 'node:events'
import { connect, createServer } from 'node:net'

/** Forwards connections to a port of 127.0.0.1. With `idle`, one that is silent for that many milliseconds is cut, as proxies do. `{port, http, cut(), mend(), stop()}` */
export async function startWire(target, { idle = 0 } = {}) {
  const sockets = new Set()
  let broken = false
  const server = createServer((near) => {
    if (broken) return near.destroy()
    const far = connect(target, '127.0.0.1')
    let timer
    const end = () => {
      clearTimeout(timer)
      near.destroy()
      far.destroy()
    }
    const alive = () => {
      if (!idle) return
      clearTimeout(timer)
      timer = setTimeout(end, idle)
    }
    for (const [one, other] of [
      [near, far],
      [far, near],
    ]) {
      sockets.add(one)
      one.on('data', (data) => (alive(), other.write(data)))
      one.on('error', end)
      one.on('close', () => (sockets.delete(one), end()))
    }
    alive()
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address()
  const destroyAll = () => sockets.forEach((socket) => socket.destroy())
  return {
    port,
    http: `http://127.0.0.1:${port}`,
    /** Breaks all connections, and takes no more until `mend()`, which may lead to another port. */
    cut: () => ((broken = true), destroyAll()),
    mend: (to = target) => ((target = to), (broken = false)),
    stop: async () => (server.close(), destroyAll()),
  }
}
