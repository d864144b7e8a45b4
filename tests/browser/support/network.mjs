// A network between clients and a node, as slow and as silent as a test needs it.

import { once } from 'node:events'
import { connect, createServer } from 'node:net'

/**
 * Forwards TCP to a node. `rules` may be changed at any time:
 * - `delay`: a function that says after how many milliseconds what was read goes on; it stays in order
 * - `silent`: nothing goes through, in either direction, and nobody is told: a host without power, a network that was left
 * - `stranded`: as `silent`, for the connections that there are; new ones work
 */
export async function startNetwork(node, rules = {}, { host = '127.0.0.1' } = {}) {
  const pairs = new Set()
  const server = createServer((near) => {
    const far = connect(node.port, '127.0.0.1')
    const pair = { near, far, stranded: false }
    pairs.add(pair)
    for (const [from, to] of [
      [near, far],
      [far, near],
    ]) {
      let due = 0
      const gone = () => rules.silent || pair.stranded
      from.on('error', () => {})
      from.on('data', (data) => {
        due = Math.max(due, performance.now() + (rules.delay?.() ?? 0))
        setTimeout(() => gone() || to.write(data), due - performance.now())
      })
      from.on('close', () => {
        if (!gone()) to.destroy()
        if (near.destroyed && far.destroyed) pairs.delete(pair)
      })
    }
  })
  await once(server.listen(0, host), 'listening')
  const { port } = server.address()
  return {
    rules,
    url: `ws://${host}:${port}`,
    http: `http://${host}:${port}`,
    /** From now on nothing comes through on the connections that there are. */
    strand: () => pairs.forEach((pair) => (pair.stranded = true)),
    cut: () => pairs.forEach(({ near, far }) => (near.destroy(), far.destroy())),
    async stop() {
      pairs.forEach(({ near, far }) => (near.destroy(), far.destroy()))
      server.close()
    },
  }
}
