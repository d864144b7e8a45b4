// What is promised of messages, all at once: 2,000 of them above the server's limits, while connections are cut and
// three nodes die, over each transport.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import WebSocket from 'ws'

import { CLIENT, eventually, startCluster, startProxy } from './support/index.mjs'

const { Client } = await import(`${CLIENT}/switchboard.js`)

const MESSAGES = 2000
/** What happens when so many have arrived. */
const FAULTS = [
  [200, 'cut'],
  [500, 'death'],
  [800, 'cut'],
  [1000, 'death'],
  [1300, 'cut'],
  [1500, 'death'],
]

let cluster
before(async () => {
  cluster = await startCluster(3)
})
after(() => cluster?.stop())

for (const transport of ['websocket', 'sse', 'poll']) {
  test(`${MESSAGES} messages by ${transport}, with cuts and three deaths of nodes: all, once, in order`, async () => {
    const proxy = await startProxy(cluster.nodes)
    const options = { WebSocket, transports: [transport], reconnect: { min: 50, max: 200 } }
    const alice = new Client(proxy.url, { ...options, name: `sends ${transport}` })
    const bob = new Client(proxy.url, { ...options, name: `reads ${transport}` })
    const heard = []
    bob.addEventListener('message', ({ message }) => heard.push(message))
    const presence = []
    alice.addEventListener('presence', ({ users }) => presence.push(users))
    await Promise.all([alice.connect(), bob.connect()])
    await alice.watch([bob.name])
    const { session } = alice
    const began = performance.now()
    const answers = []
    let isAnswered = false
    const sends = (async () => {
      // The library takes 1,000 at a time.
      for (let i = 0; i < MESSAGES; i += 500) {
        const some = Array.from({ length: 500 }, (_, k) => alice.send(bob.name, i + k).catch((error) => error.code))
        answers.push(...(await Promise.all(some)))
      }
      isAnswered = true
    })()
    let dies = 0
    for (const [count, what] of FAULTS) {
      await eventually(() => heard.length >= count, 30_000, `${count} are heard, of which ${heard.length} are`)
      if (what === 'cut') proxy.cut()
      else {
        const node = cluster.nodes[dies % 3]
        await node.kill()
        cluster.nodes[dies++ % 3] = await node.restart()
      }
    }
    await eventually(() => isAnswered, 60_000, `all are answered, of which ${answers.length} are`)
    await sends
    await eventually(() => heard.length >= MESSAGES, 30_000)
    const odd = [...new Set(answers)].filter((answer) => !/^(delivered|queued)$/.test(answer))
    assert.deepEqual(odd, [])
    const inversions = heard.filter((n, i) => i && n < heard[i - 1]).length
    const counts = [heard.length, new Set(heard).size, inversions]
    assert.deepEqual(counts, [MESSAGES, MESSAGES, 0], 'heard, different, out of order')
    assert.equal(alice.session, session, 'the same session')
    assert.deepEqual(presence, [], 'nobody who watches hears of it')
    console.log(`# ${MESSAGES} messages by ${transport}: ${Math.round(performance.now() - began)} ms`)
    alice.close()
    bob.close()
    await proxy.stop()
  })
}
