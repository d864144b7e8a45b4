// Nodes that need tokens: the library renews its own during a call, and PeerJS' client brings one in its path.

import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'

import { eventually, frames, launchBrowser, openCaller, openPage, startCluster, startFiles, stateOf } from './support/index.mjs'

const SECRET = 'a secret of no fewer than 32 bytes'
const PEERJS = fileURLToPath(new URL('peerjs/node_modules/peerjs/dist/peerjs.min.js', import.meta.url))
/** How often each token is replaced. */
const RENEWALS = 3

const now = () => Math.floor(Date.now() / 1000)

function sign(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const text = `${part({ alg: 'HS256' })}.${part(claims)}`
  return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`
}

let cluster, files, browser
before(async () => {
  const settings = { 'auth.mode': 'required', 'auth.jwt.hmac_secret': SECRET }
  const peer = `<!doctype html><title>peer</title><script>${readFileSync(PEERJS, 'utf8')}</script>`
  ;[cluster, files, browser] = await Promise.all([startCluster(2, settings), startFiles({ '/peer': peer }), launchBrowser()])
})
after(async () => {
  await browser?.close()
  await Promise.all([cluster, files].map((each) => each?.stop()))
})

/** A caller whose app makes a token whenever it is asked for one; each lasts a minute and some seconds. */
async function open(node, name) {
  const asked = []
  const token = () => {
    asked.push(Date.now())
    // It is good for 30 s longer than it says, and the node asks for another a minute before that.
    return sign({ sub: name, exp: now() + 34 })
  }
  const media = { video: { width: 160, height: 120 } }
  const page = await openCaller(browser, files, node.url, name, { media, token })
  return { page, asked }
}

test(`a video call between two nodes goes on while each side's token is replaced ${RENEWALS} times`, async () => {
  const [one, two] = cluster.nodes
  const alice = await open(one, 'alice')
  const bob = await open(two, 'bob')
  await alice.page.evaluate(() => page.dial('bob'))
  await eventually(async () => (await frames(alice.page, 'bob')) > 2 && (await frames(bob.page, 'alice')) > 2)
  for (const { asked } of [alice, bob]) await eventually(() => asked.length > RENEWALS, 40_000, 'tokens are asked for')
  const before = [await frames(alice.page, 'bob'), await frames(bob.page, 'alice')]
  await eventually(async () => (await frames(alice.page, 'bob')) > before[0] && (await frames(bob.page, 'alice')) > before[1])
  assert.equal(await stateOf(alice.page, 'bob'), 'connected')
  for (const { page } of [alice, bob]) {
    assert.equal(await page.evaluate(() => globalThis.page.client.state), 'online')
    assert.deepEqual(page.errors, [])
  }
})

test("PeerJS' own client brings its token in its path, and is let in nowhere without one", async () => {
  const { port } = cluster.nodes[0]
  const openPeer = async (id, path) => {
    const page = await openPage(browser, `${files.http}/peer`)
    await page.evaluate(
      ({ id, port, path }) => {
        const told = (globalThis.told = [])
        const peer = (globalThis.peer = new Peer(id, { host: '127.0.0.1', port, path, config: { iceServers: [] } }))
        peer.on('open', (id) => told.push(`open ${id}`))
        peer.on('error', ({ type }) => told.push(`error ${type}`))
        peer.on('disconnected', () => told.push('disconnected'))
        peer.on('connection', (connection) => connection.on('data', (data) => told.push(`data ${data}`)))
      },
      { id, port, path },
    )
    return page
  }
  const hears = (page, word) => eventually(() => page.evaluate((word) => globalThis.told.includes(word), word), 12_000, word)
  const token = (id) => sign({ sub: id, exp: now() + 3600 })
  const one = await openPeer('one', `/${token('one')}`)
  const two = await openPeer('two', `/${token('two')}`)
  await hears(one, 'open one')
  await hears(two, 'open two')
  await one.evaluate(() => {
    const connection = globalThis.peer.connect('two')
    connection.on('open', () => connection.send('hello'))
  })
  await hears(two, 'data hello')
  const foreign = await openPeer('three', `/${token('one')}`)
  await hears(foreign, 'disconnected')
  assert.ok(!(await foreign.evaluate(() => globalThis.told)).includes('open three'))
})
