// What happens to clients in the field, in Node.js against real nodes: silence, order, and what keeps them out.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import WebSocket from 'ws'

import { CLIENT, eventually, startCluster, startNetwork, startNode, startProxy } from './support/index.mjs'

const { Client, connect } = await import(`${CLIENT}/switchboard.js`)

let cluster, crowded
before(async () => {
  ;[cluster, crowded] = await Promise.all([
    startCluster(2),
    startNode({ settings: { 'limits.connections_per_ip': 1 } }),
  ])
})
after(() => Promise.all([cluster?.stop(), crowded?.kill()]))

const clients = []
test.afterEach(() => clients.splice(0).forEach((one) => one.close()))
async function client(url, name, options) {
  const one = new Client(url, { WebSocket, name, ...options })
  clients.push(one)
  return one.connect()
}
const states = (one) => {
  const seen = []
  one.addEventListener('state', ({ state }) => seen.push(state))
  return seen
}
const hears = (one) => {
  const heard = []
  one.addEventListener('message', ({ message }) => heard.push(message))
  return heard
}

for (const [what, most] of [
  ['with something unanswered', 8000],
  ['idle', 20_000],
]) {
  test(`silence, ${what}: doubted first, and noticed within ${most} ms`, { concurrency: true }, async () => {
    const network = await startNetwork(cluster.nodes[0])
    const alice = await client(network.url, `silent ${what}`, { transports: ['websocket'] })
    const reach = []
    alice.addEventListener('reachable', ({ reachable }) => reach.push(reachable))
    network.rules.silent = true
    const began = performance.now()
    if (most === 8000) alice.send('nobody', 1).catch(() => {})
    await eventually(() => alice.state !== 'online', most + 1000)
    const took = performance.now() - began
    console.log(`# silence, ${what}: noticed after ${Math.round(took)} ms`)
    assert.ok(took <= most + 500, `${took} ms`)
    assert.deepEqual(reach, ['probing', 'offline'])
    await network.stop()
  })
}

test('the host of a node loses power: the session goes on elsewhere, and nobody who watches hears of it', async () => {
  const [one, two] = cluster.nodes
  const node = { port: one.port }
  const network = await startNetwork(node)
  const alice = await client(network.url, 'powerless', { transports: ['websocket'] })
  const bob = await client(two.url, 'watching')
  const seen = []
  bob.addEventListener('presence', ({ users }) => seen.push(users))
  await bob.watch(['powerless'])
  const { session } = alice
  const heard = hears(alice)
  // No FIN, no RST; connections that are made from now on find the other node.
  network.strand()
  await one.kill()
  node.port = two.port
  const said = alice.send('watching', 'still here')
  const told = bob.send('powerless', 'are you?').catch((error) => error.code)
  await said
  assert.equal(alice.session, session, 'the same session')
  assert.match(await told, /delivered|queued/)
  await eventually(() => heard.includes('are you?'))
  assert.deepEqual(seen, [])
  await network.stop()
  cluster.nodes[0] = await one.restart()
})

for (const transport of ['websocket', 'sse', 'poll']) {
  test(`900 messages at once by ${transport}, with two cuts: all, once, in order`, async () => {
    const proxy = await startProxy(cluster.nodes)
    const alice = await client(proxy.url, `many ${transport}`, {
      transports: [transport],
      reconnect: { min: 50, max: 50 },
    })
    const heard = hears(await client(cluster.nodes[1].url, `reads ${transport}`))
    const sent = Array.from({ length: 900 }, (_, i) => alice.send(`reads ${transport}`, i))
    const refused = sent.map((one) => one.catch((error) => error.code))
    for (const share of [200, 500]) {
      await eventually(() => heard.length >= share, 20_000)
      proxy.cut()
    }
    const answers = await Promise.all(refused)
    assert.deepEqual(
      [...new Set(answers)].filter((answer) => !/delivered|queued/.test(answer)),
      [],
    )
    await eventually(() => heard.length >= 900)
    const inversions = heard.filter((n, i) => i && n < heard[i - 1]).length
    assert.deepEqual([heard.length, new Set(heard).size, inversions], [900, 900, 0], 'heard, different, out of order')
    await proxy.stop()
  })
}

test('what cannot work is refused at once, with words that help', async () => {
  const { port } = cluster.nodes[0]
  const refusals = async (url, options) => {
    const attempts = []
    let code
    try {
      const one = new Client(url, { WebSocket, name: 'keen', ...options })
      clients.push(one)
      one.addEventListener('attempt', ({ code, final }) => attempts.push([code, final]))
      await one.connect({ timeout: 5000 })
    } catch (error) {
      code = error.code
      assert.ok(error.message.length > 20, error.message)
    }
    return { code, attempts }
  }
  assert.equal((await refusals('ftp://127.0.0.1/')).code, 'bad_url')
  assert.equal((await refusals('//')).code, 'bad_url')
  assert.equal((await refusals(`http://127.0.0.1:${port}/`, { transports: [] })).code, 'no_transport')
  assert.deepEqual(await refusals(`http://127.0.0.1:${port}/nowhere/`, { transports: ['sse'] }), {
    code: 'not_found',
    attempts: [['not_found', true]],
  })
})

test('what may get better is told with each try, and a time-out says what it was', async () => {
  const first = await client(crowded.url, 'first')
  const second = new Client(crowded.http, {
    name: 'second',
    reconnect: { min: 50, max: 200 },
    transports: ['sse', 'websocket'],
    WebSocket,
  })
  clients.push(second)
  const attempts = []
  second.addEventListener('attempt', ({ transport, code, final, retryIn }) =>
    attempts.push({ transport, code, final, retryIn }),
  )
  const began = performance.now()
  const waits = second.connect()
  waits.catch(() => {})
  await eventually(() => attempts.length >= 4)
  assert.deepEqual(attempts[0], { transport: 'sse', code: 'too_many', final: false, retryIn: 0 })
  assert.equal(attempts[1].transport, 'websocket')
  assert.ok(attempts[1].retryIn >= 0 && !attempts.some(({ final }) => final))
  first.close()
  await waits
  const third = connect(crowded.http, { WebSocket, name: 'third', timeout: 500, transports: ['websocket'] })
  await assert.rejects(
    third,
    (error) =>
      error.code === 'timeout' && error.cause?.code === 'unreachable' && error.message.includes('Nobody answers'),
  )
  assert.ok(performance.now() - began < 20_000)
})

test('a send that is taken back while the client is offline never arrives', async () => {
  const network = await startNetwork(cluster.nodes[0])
  const alice = await client(network.url, 'fickle', { transports: ['websocket'], reconnect: { min: 50, max: 50 } })
  const heard = hears(await client(cluster.nodes[1].url, 'listens'))
  network.cut()
  await eventually(() => alice.state === 'reconnecting')
  const leave = new AbortController()
  const taken = assert.rejects(alice.send('listens', 'no', { signal: leave.signal }), { name: 'AbortError' })
  leave.abort()
  await taken
  await alice.send('listens', 'yes')
  await eventually(() => heard.length)
  assert.deepEqual(heard, ['yes'])
  await network.stop()
})

test('what the app has heard is confirmed to the server, after 32 messages and with a ping', async () => {
  const said = []
  class Heard extends WebSocket {
    send(text) {
      said.push(JSON.parse(text))
      super.send(text)
    }
  }
  const alice = await client(cluster.nodes[0].url, 'confirms', { WebSocket: Heard, transports: ['websocket'] })
  const bob = await client(cluster.nodes[1].url, 'speaks')
  const heard = hears(alice)
  await Promise.all(Array.from({ length: 33 }, (_, i) => bob.send('confirms', i)))
  await eventually(() => heard.length === 33)
  const acks = said.filter(({ type }) => type === 'ack')
  assert.equal(acks.length, 1)
  await eventually(
    () => said.some(({ type, seq }) => type === 'ping' && seq),
    20_000,
    'a ping that confirms the last one',
  )
})
