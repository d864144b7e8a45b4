// PeerJS' own client, unchanged, in Chromium: on two nodes that share a Redis, and at its original server. What works there works here.

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'

import { eventually, freePort, launchBrowser, openPage, start, startCluster, startFiles, startProxy } from './support/index.mjs'

const HERE = fileURLToPath(new URL('.', import.meta.url))
const CLIENT = join(HERE, 'peerjs/node_modules/peerjs/dist/peerjs.min.js')
const ORIGINAL = join(HERE, '../../benches/peerserver')
for (const needed of [CLIENT, join(ORIGINAL, 'node_modules/peer')]) {
  if (!existsSync(needed)) throw new Error(`${needed} is not there: npm ci in tests/browser/peerjs and benches/peerserver (make setup-browser)`)
}

let browser, files
before(async () => {
  const client = readFileSync(CLIENT, 'utf8')
  files = await startFiles({ '/peer': `<!doctype html><title>peer</title><script>${client}</script>` })
  browser = await launchBrowser()
})
after(async () => {
  await browser?.close()
  await files?.stop()
})

// === In the page ===

/** A page with a peer in it: `peer`, what it was told (`told`), and its connections. */
async function open(port, id, options = {}) {
  const page = await openPage(browser, `${files.http}/peer`)
  await page.evaluate(
    ({ port, id, options }) => {
      const told = (globalThis.told = [])
      const settings = { host: '127.0.0.1', port, path: '/', config: { iceServers: [] }, ...options }
      const peer = (globalThis.peer = id === undefined ? new Peer(settings) : new Peer(id, settings))
      peer.on('open', (id) => told.push(`open ${id}`))
      peer.on('error', ({ type, message }) => told.push(`error ${type}: ${message}`))
      peer.on('disconnected', () => told.push('disconnected'))
      peer.on('close', () => told.push('close'))
      const note = (connection) => {
        globalThis.connection = connection
        connection.on('open', () => told.push(`connection ${connection.peer} ${connection.label} ${JSON.stringify(connection.metadata)}`))
        connection.on('data', (data) => told.push(`data ${globalThis.written(data)}`))
        connection.on('close', () => told.push(`connection closed ${connection.peer}`))
        return connection
      }
      globalThis.written = (data) =>
        data instanceof ArrayBuffer || ArrayBuffer.isView(data) ? `bytes ${[...new Uint8Array(data.buffer ?? data)]}` : JSON.stringify(data)
      globalThis.connectTo = (other, options) => note(peer.connect(other, options))
      peer.on('connection', note)
      globalThis.media = () => navigator.mediaDevices.getUserMedia({ audio: true, video: true })
      const shown = (call) => {
        call.on('stream', (stream) => told.includes(`stream ${call.peer}`) || (told.push(`stream ${call.peer}`), show(stream)))
        return (globalThis.call = call)
      }
      const show = (stream) => document.body.appendChild(Object.assign(document.createElement('video'), { muted: true, autoplay: true, srcObject: stream }))
      globalThis.callTo = async (other) => void shown(peer.call(other, await globalThis.media()))
      peer.on('call', async (call) => shown(call).answer(await globalThis.media()))
    },
    { port, id, options },
  )
  return page
}

const hears = (page, word, within = 12_000) =>
  eventually(() => page.evaluate((word) => globalThis.told.find((told) => told.startsWith(word)), word), within, `a page hears: ${word}`).catch(
    async (error) => {
      throw new Error(`${error.message}; it heard ${JSON.stringify(await page.evaluate(() => globalThis.told))}`)
    },
  )

/** Two peers with a data connection; the one that did not ask for it answers what it is sent. */
async function connect(one, other, id, options, data) {
  await one.evaluate(({ id, options }) => void globalThis.connectTo(id, options), { id, options })
  await hears(one, `connection ${id}`)
  await hears(other, 'connection ')
  for (const [from, to] of [[one, other], [other, one]]) {
    await from.evaluate((data) => void globalThis.connection.send(globalThis.data ?? data), data)
    await hears(to, 'data ')
  }
}

let pages = 0
/** An id that no other test has. */
const fresh = (name) => `${name}-${process.pid}-${pages++}`

async function closeAll(...opened) {
  await Promise.all(opened.map((page) => page?.context().close()))
}

// === What is to work ===

const DATA = { text: 'Grüße', list: [1, 2.5, null, true], nested: { deep: 'value' } }

/** Each scenario gets the ports of two doors. One that the original fails at says so. */
const scenarios = {}
for (const serialization of ['binary', 'binary-utf8', 'json', 'raw']) {
  scenarios[`a data connection: ${serialization}`] = async (one, two) => {
    const [a, b] = [fresh('a'), fresh('b')]
    const [first, second] = [await open(one, a), await open(two, b)]
    await Promise.all([hears(first, `open ${a}`), hears(second, `open ${b}`)])
    const options = { serialization, label: 'chat', metadata: { from: 'a' }, reliable: true }
    const data = serialization === 'raw' ? 'raw text' : DATA
    await connect(first, second, b, options, data)
    for (const page of [first, second]) assert.equal(await hears(page, 'data '), `data ${JSON.stringify(data)}`)
    assert.equal(await hears(second, 'connection '), `connection ${a} chat {"from":"a"}`)
    await closeAll(first, second)
  }
}
scenarios['a data connection in the other direction'] = async (one, two) => {
  const [a, b] = [fresh('a'), fresh('b')]
  const [first, second] = [await open(one, a), await open(two, b)]
  await Promise.all([hears(first, `open ${a}`), hears(second, `open ${b}`)])
  await connect(second, first, a, {}, DATA)
  await closeAll(first, second)
}
for (const direction of ['there', 'back']) {
  scenarios[`a media call ${direction}`] = async (one, two) => {
    const [a, b] = [fresh('a'), fresh('b')]
    const [first, second] = [await open(one, a), await open(two, b)]
    await Promise.all([hears(first, `open ${a}`), hears(second, `open ${b}`)])
    const [caller, called] = direction === 'there' ? [first, b] : [second, a]
    await caller.evaluate((id) => globalThis.callTo(id), called)
    await Promise.all([hears(first, `stream ${b}`), hears(second, `stream ${a}`)])
    for (const page of [first, second]) {
      await eventually(() => page.evaluate(() => document.querySelector('video')?.videoWidth > 0), 12_000, 'a picture is seen')
    }
    await closeAll(first, second)
  }
}
scenarios['an id that the server makes'] = async (one) => {
  const page = await open(one)
  assert.match(await hears(page, 'open '), /^open [0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  await closeAll(page)
}
scenarios['peer-unavailable'] = async (one) => {
  const [a, nobody] = [fresh('a'), fresh('nobody')]
  const page = await open(one, a)
  await hears(page, `open ${a}`)
  await page.evaluate((id) => void globalThis.connectTo(id), nobody)
  assert.equal(await hears(page, 'error '), `error peer-unavailable: Could not connect to peer ${nobody}`)
  // Once, however many candidates there were, and the peer goes on.
  await page.waitForTimeout(1500)
  assert.deepEqual(await page.evaluate(() => globalThis.told.slice(1)), [`error peer-unavailable: Could not connect to peer ${nobody}`])
  assert.equal(await page.evaluate(() => globalThis.peer.open), true)
  await closeAll(page)
}
scenarios['an id that is taken'] = async (one, two) => {
  const a = fresh('a')
  const first = await open(one, a)
  await hears(first, `open ${a}`)
  const second = await open(two, a)
  assert.equal(await hears(second, 'error '), `error unavailable-id: ID "${a}" is taken`)
  await hears(second, 'close')
  assert.equal(await first.evaluate(() => globalThis.peer.open), true)
  await closeAll(first, second)
}
scenarios['an id whose page is loaded again'] = async (one, two) => {
  const a = fresh('a')
  const first = await open(one, a)
  await hears(first, `open ${a}`)
  await first.goto('about:blank')
  const second = await open(two, a)
  await hears(second, `open ${a}`)
  await closeAll(first, second)
}
scenarios['a wrong key'] = async (one) => {
  const page = await open(one, fresh('a'), { key: 'wrong' })
  assert.match(await hears(page, 'error '), /^error server-error: Invalid key provided/)
  await closeAll(page)
}
scenarios['somebody who comes a second later'] = async (one, two) => {
  const [a, b] = [fresh('a'), fresh('b')]
  const first = await open(one, a)
  await hears(first, `open ${a}`)
  await first.evaluate((id) => void globalThis.connectTo(id), b)
  await first.waitForTimeout(1000)
  const second = await open(two, b)
  await Promise.all([hears(first, `connection ${b}`), hears(second, `connection ${a}`)])
  assert.equal(await first.evaluate(() => globalThis.told.some((told) => told.startsWith('error'))), false)
  await closeAll(first, second)
}
scenarios['reconnect()'] = async (one, two) => {
  const [a, b] = [fresh('a'), fresh('b')]
  const [first, second] = [await open(one, a), await open(two, b)]
  await Promise.all([hears(first, `open ${a}`), hears(second, `open ${b}`)])
  await first.evaluate(() => globalThis.peer.disconnect())
  await hears(first, 'disconnected')
  // The original says nothing to whoever comes back before it has seen that he is gone.
  await eventually(async () => {
    const listed = await second.evaluate(() => new Promise((resolve) => globalThis.peer.listAllPeers(resolve)))
    return !listed.includes(a)
  }, 10_000, 'the id is free')
  await first.evaluate(() => (globalThis.told.length = 0, globalThis.peer.reconnect()))
  await hears(first, `open ${a}`)
  await connect(second, first, a, {}, DATA)
  await closeAll(first, second)
}
scenarios['listAllPeers()'] = async (one, two) => {
  const ids = [fresh('a'), fresh('b')]
  const opened = [await open(one, ids[0]), await open(two, ids[1])]
  await Promise.all(opened.map((page, number) => hears(page, `open ${ids[number]}`)))
  for (const page of opened) {
    await eventually(async () => {
      const listed = await page.evaluate(() => new Promise((resolve) => globalThis.peer.listAllPeers(resolve)))
      return ids.every((id) => listed.includes(id))
    }, 10_000, 'both ids are listed')
  }
  await closeAll(...opened)
}

/** What the original fails at. */
const better = {
  'a peer that said something that is nothing is still heard': async (one, two) => {
    const [a, b] = [fresh('a'), fresh('b')]
    const [first, second] = [await open(one, a), await open(two, b)]
    await Promise.all([hears(first, `open ${a}`), hears(second, `open ${b}`)])
    await first.evaluate(() => globalThis.peer.socket._socket.send('null'))
    await connect(first, second, b, {}, DATA)
    await closeAll(first, second)
  },
  'the same peer from a second connection is let in': async (one, two) => {
    const a = fresh('a')
    const first = await open(one, a, { token: 'mine' })
    await hears(first, `open ${a}`)
    const second = await open(two, a, { token: 'mine' })
    await hears(second, `open ${a}`)
    await hears(first, 'disconnected')
    await closeAll(first, second)
  },
}

describe('two nodes', () => {
  let cluster
  before(async () => void (cluster = await startCluster(2, { 'peerjs.allow_discovery': 'true' })))
  after(() => cluster?.stop())
  for (const [name, scenario] of Object.entries({ ...scenarios, ...better })) {
    test(name, () => scenario(...cluster.nodes.map(({ port }) => port)))
  }

  test('reconnect() after the node was killed opens the same id at another', async () => {
    const proxy = await startProxy(cluster.nodes, { pick: (nodes) => nodes.find(({ running }) => running) })
    const [a, b] = [fresh('a'), fresh('b')]
    const first = await open(proxy.port, a)
    const second = await open(cluster.nodes[1].port, b)
    await Promise.all([hears(first, `open ${a}`), hears(second, `open ${b}`)])
    await connect(first, second, b, {}, DATA)
    await cluster.nodes[0].kill()
    await hears(first, 'disconnected')
    await first.evaluate(() => (globalThis.told.length = 0, globalThis.peer.reconnect()))
    await hears(first, `open ${a}`)
    // The connection that there was goes on, and new ones can be made.
    await first.evaluate(() => void globalThis.connection.send('still here'))
    await hears(second, 'data "still here"')
    await second.evaluate((id) => void globalThis.connectTo(id, { label: 'second' }), a)
    await hears(second, `connection ${a} second`)
    assert.equal(await first.evaluate(() => globalThis.told.some((told) => told.startsWith('connection closed'))), false)
    await closeAll(first, second)
    await proxy.stop()
  })
})

describe('the original server', () => {
  let server, port
  before(async () => {
    port = await freePort()
    server = start('node', ['node_modules/peer/dist/bin/peerjs.js', '--host', '127.0.0.1', '--port', port, '--allow_discovery'], { cwd: ORIGINAL })
    await eventually(async () => (await fetch(`http://127.0.0.1:${port}/`)).ok, 10_000, 'PeerServer answers')
  })
  after(() => server?.kill())
  for (const [name, scenario] of Object.entries(scenarios)) test(name, () => scenario(port, port))
  for (const [name, scenario] of Object.entries(better)) {
    test(`fails: ${name}`, () => assert.rejects(scenario(port, port), /a page hears/))
  }
})
