// The ladder of transports: what a network lets through is used, and nothing is lost on the way down or up.

import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { eventually, frames, launchBrowser, openCaller, openPage, startCluster, startFiles, startProxy, stateOf } from './support/index.mjs'

let cluster, files, browser, proxy
before(async () => {
  ;[cluster, files, browser] = await Promise.all([startCluster(2, { 'http.keepalive': '1s' }), startFiles(), launchBrowser()])
})
after(async () => {
  await browser?.close()
  await Promise.all([cluster, files].map((each) => each?.stop()))
})
afterEach(() => proxy?.stop())

const transport = (page) => page.evaluate(() => client.transport)
const media = { video: { width: 160, height: 120 } }

/** Both hear ten messages of the other, once and in order. */
async function talk(alice, bob) {
  const listen = (page) =>
    page.evaluate(() => {
      globalThis.got = []
      client.addEventListener('message', ({ message }) => globalThis.got.push(message))
    })
  await Promise.all([listen(alice), listen(bob)])
  const say = (page, other) => page.evaluate((other) => Promise.all(Array.from({ length: 10 }, (_, i) => client.send(other, i))), other)
  const done = [...(await say(alice, 'bob')), ...(await say(bob, 'alice'))]
  assert.ok(done.every((status) => status === 'delivered' || status === 'queued'), String(done))
  for (const page of [alice, bob]) {
    await eventually(async () => (await page.evaluate(() => globalThis.got.length)) >= 10)
    assert.deepEqual(await page.evaluate(() => globalThis.got), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  }
}

async function videoCall(alice, bob, named = ['alice', 'bob']) {
  const [a, b] = named
  await alice.evaluate((b) => page.dial(b), b)
  await eventually(async () => (await stateOf(alice, b)) === 'connected' && (await stateOf(bob, a)) === 'connected', 20_000)
  await eventually(async () => (await frames(alice, b)) > 5 && (await frames(bob, a)) > 5, 20_000)
  for (const [page, other] of [[alice, b], [bob, a]]) await page.evaluate((other) => globalThis.page.calls[other].channel('chat').send('hello'), other)
  await eventually(async () => (await alice.evaluate(() => page.heard.length)) && (await bob.evaluate(() => page.heard.length)))
  await bob.evaluate((a) => page.calls[a].hangup(), a)
  await eventually(() => alice.evaluate(() => page.ends.length))
  assert.deepEqual(await alice.evaluate(() => page.ends), [[b, 'hangup', false]])
}

test('one side on SSE, the other on poll, behind a proxy that takes the nodes in turns: video, chat, hang-up', async () => {
  proxy = await startProxy(cluster.nodes)
  const alice = await openCaller(browser, files, proxy.url, 'alice', { media, options: { transports: ['sse'] } })
  const bob = await openCaller(browser, files, proxy.url, 'bob', { media, options: { transports: ['poll'] } })
  assert.deepEqual([await transport(alice), await transport(bob)], ['sse', 'poll'])
  await talk(alice, bob)
  await videoCall(alice, bob)
  assert.deepEqual([...alice.errors, ...bob.errors], [])
  await Promise.all([alice.context().close(), bob.context().close()])
})

/** A page that logs in, and whether it had begun to do so over HTTP, if at all, within 4.5 s. */
async function knocks(url, name) {
  const page = await openPage(browser, `${files.http}/blank`)
  const asked = await page.evaluate(
    async ([url, name]) => {
      const { Client } = await import('/client/switchboard.js')
      const { fetch } = globalThis
      let asked
      globalThis.fetch = (...given) => ((asked ??= isLate ? 'late' : 'in time'), fetch(...given))
      const client = (globalThis.client = new Client(url, { name }))
      // A timer of the same page: on a busy machine it is as late as the library's own.
      let isLate = false
      setTimeout(() => (isLate = true), 4500)
      await client.connect()
      return asked
    },
    [url, name],
  )
  return { page, asked }
}

for (const how of ['refuse', 'hang', 'mute']) {
  test(`WebSocket blocked (${how}): given up within 4.5 s for SSE; allowed again: the next connection uses it`, async () => {
    proxy = await startProxy(cluster.nodes, { websocket: how })
    const { page: alice, asked } = await knocks(proxy.url, 'alice-' + how)
    assert.equal(asked, 'in time')
    assert.equal(await transport(alice), 'sse')

    proxy.rules.websocket = 'pass'
    const session = await alice.evaluate(() => client.session)
    proxy.rules.sse = 'refuse' // So that the connection is lost, not just cut and taken up again.
    proxy.cut()
    await eventually(async () => (await alice.evaluate(() => client.state)) === 'online' && (await transport(alice)) === 'websocket', 20_000)
    assert.equal(await alice.evaluate(() => client.session), session, 'the session goes on')
    await alice.context().close()
  })
}

test('SSE held back by the proxy as well: poll', async () => {
  proxy = await startProxy(cluster.nodes, { websocket: 'refuse', sse: 'buffer' })
  const alice = await openCaller(browser, files, proxy.url, 'alice-poll')
  assert.equal(await transport(alice), 'poll')
  await alice.context().close()
})

test('SSE that falls mute in the middle: the session goes on by poll, and nothing is lost', async () => {
  proxy = await startProxy(cluster.nodes, { websocket: 'refuse' })
  const alice = await openCaller(browser, files, proxy.url, 'alice')
  const bob = await openCaller(browser, files, cluster.nodes[1].url, 'bob')
  assert.equal(await transport(alice), 'sse')
  const session = await alice.evaluate(() => client.session)
  proxy.rules.sse = 'buffer'
  proxy.cut()
  await talk(alice, bob)
  assert.equal(await transport(alice), 'poll')
  assert.equal(await alice.evaluate(() => client.session), session)
  await Promise.all([alice.context().close(), bob.context().close()])
})

test('a stream that is cut is taken up again where it was', async () => {
  proxy = await startProxy(cluster.nodes)
  const alice = await openCaller(browser, files, proxy.url, 'alice', { options: { transports: ['sse'] } })
  const bob = await openCaller(browser, files, cluster.nodes[1].url, 'bob')
  await alice.evaluate(() => {
    globalThis.states = []
    client.addEventListener('state', ({ state }) => globalThis.states.push(state))
  })
  // For longer than a request that fails is tried again: it worked until now.
  await sleep(9000)
  proxy.cut()
  await talk(alice, bob)
  assert.deepEqual(await alice.evaluate(() => globalThis.states), [], 'nobody notices')
  await Promise.all([alice.context().close(), bob.context().close()])
})
