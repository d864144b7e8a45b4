// What becomes of a page: the back/forward cache, a reload, many tabs, and what it may not reach.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import WebSocket from 'ws'

import {
  CLIENT,
  eventually,
  launchBrowser,
  openCaller,
  openPage,
  startCluster,
  startFiles,
  startNode,
} from './support/index.mjs'

const { connect } = await import(`${CLIENT}/switchboard.js`)

let cluster, closed, files, browser
before(async () => {
  ;[cluster, closed, files, browser] = await Promise.all([
    startCluster(2),
    startNode({ settings: { 'limits.origins': '["https://app.example"]' } }),
    startFiles({
      '/csp': `<!doctype html><meta http-equiv="Content-Security-Policy" content="default-src 'self'"><title>csp</title>`,
      '/elsewhere': '<!doctype html><title>elsewhere</title>',
    }),
    // Playwright turns the cache off.
    launchBrowser({
      ignoreDefaultArgs: ['--disable-back-forward-cache'],
      flags: ['--enable-features=BackForwardCache'],
    }),
  ])
})
after(async () => {
  await browser?.close()
  await Promise.all([cluster?.stop(), closed?.kill(), files?.stop()])
})

const within = () => ({ signal: AbortSignal.timeout(15_000) })
const listen = (page) =>
  page.evaluate(() => {
    globalThis.got = []
    client.addEventListener('message', ({ message }) => globalThis.got.push(message))
    addEventListener('pageshow', ({ persisted }) => (globalThis.persisted = persisted))
  })

for (const transport of ['websocket', 'sse']) {
  test(`a page in the back/forward cache, by ${transport}: what is said to it waits, and is heard when it is back`, async () => {
    const page = await openCaller(browser, files, cluster.nodes[0].url, `cached ${transport}`, {
      options: { transports: [transport] },
    })
    const bob = await connect(cluster.nodes[1].url, { WebSocket, name: `bob ${transport}` })
    await listen(page)
    const session = await page.evaluate(() => client.session)
    const status = []
    status.push(await bob.send(`cached ${transport}`, 0, within()))
    await page.goto(`${files.http}/elsewhere`)
    const say = async () => status.push(await bob.send(`cached ${transport}`, status.length, within()))
    // The server knows at once that nobody reads; over HTTP it knows that nobody asks.
    if (transport === 'websocket') await eventually(async () => (await say()) && status.at(-1) === 'queued', 3000)
    for (let i = 0; i < 5; i++) await say()
    if (transport === 'websocket') assert.deepEqual(new Set(status.slice(-5)), new Set(['queued']))
    await page.goBack({ waitUntil: 'commit' })
    assert.equal(await page.evaluate(() => globalThis.persisted), true, 'it came from the cache')
    const expected = status.map((_, i) => i)
    await eventually(() => page.evaluate((count) => globalThis.got.length >= count, expected.length), 10_000)
    assert.deepEqual(await page.evaluate(() => globalThis.got), expected)
    assert.equal(await page.evaluate(() => client.session), session)
    bob.close()
    await page.context().close()
  })
}

test('a page that is frozen for longer than its session is kept: both sides are told', async () => {
  const node = await startNode({ settings: { 'presence.grace': '2s' } })
  const page = await openCaller(browser, files, node.url, 'frozen')
  const bob = await connect(node.url, { WebSocket, name: 'watcher' })
  const seen = []
  bob.addEventListener('presence', ({ users }) => seen.push(users.frozen))
  await bob.watch(['frozen'])
  await listen(page)
  const session = await page.evaluate(() => {
    globalThis.missed = 0
    client.addEventListener('missed', () => (globalThis.missed += 1))
    document.dispatchEvent(new Event('freeze'))
    return client.session
  })
  await eventually(async () => (await bob.send('frozen', 'lost', within())) === 'queued')
  // Whoever watches is told that what was queued is gone; whoever sends is refused.
  await eventually(() => seen.join() === 'false', 10_000)
  await assert.rejects(bob.send('frozen', 'refused', within()), { code: 'user_unavailable' })
  await page.evaluate(() => document.dispatchEvent(new Event('resume')))
  await eventually(() => page.evaluate(() => globalThis.missed === 1 && client.state === 'online'), 10_000)
  assert.notEqual(await page.evaluate(() => client.session), session)
  await eventually(() => seen.join() === 'false,true')
  assert.equal(await bob.send('frozen', 'after', within()), 'delivered')
  await eventually(() => page.evaluate(() => globalThis.got.join() === 'after'))
  bob.close()
  await page.context().close()
  await node.kill()
})

for (const transport of ['websocket', 'sse']) {
  test(`a page that is loaded again, by ${transport}, keeps its session if it wants to: what came meanwhile is heard, nobody sees it go`, async () => {
    const name = `reloads ${transport}`
    const options = { transports: [transport], persist: true }
    const page = await openCaller(browser, files, cluster.nodes[0].url, name, { options })
    const bob = await connect(cluster.nodes[1].url, { WebSocket, name: `friend ${transport}` })
    const seen = []
    bob.addEventListener('presence', ({ users }) => seen.push(users))
    await bob.watch([name])
    const session = await page.evaluate(() => client.session)
    await page.goto(`${files.http}/elsewhere`)
    assert.match(await bob.send(name, 'while away', within()), /delivered|queued/)
    await page.goto(`${files.http}/blank`)
    await page
      .evaluate(
        async ([url, name, options]) => {
          const { Client } = await import('/client/switchboard.js')
          globalThis.client = new Client(url, { ...options, name })
          globalThis.got = []
          client.addEventListener('message', ({ message }) => globalThis.got.push(message))
          await client.connect({ timeout: 5000 })
        },
        [cluster.nodes[0].url, name, options],
      )
      .catch((error) => assert.fail(String(error)))
    await eventually(() => page.evaluate(() => globalThis.got.includes('while away')))
    assert.equal(await page.evaluate(() => client.session), session)
    assert.deepEqual(seen, [])
    bob.close()
    await page.context().close()
  })
}

const keen = (page, url, options = {}) =>
  page.evaluate(
    async ([url, options]) => {
      const { Client } = await import('/client/switchboard.js')
      const client = new Client(url, { name: 'keen', ...options })
      return client.connect({ timeout: 6000 }).then(
        () => ['online'],
        ({ code, message }) => [code, message],
      )
    },
    [url, options],
  )

test('a page of an origin that may not connect is told so, by whatever transport', async () => {
  const page = await openPage(browser, `${files.http}/blank`)
  for (const transports of [['websocket'], ['websocket', 'sse', 'poll']]) {
    const [code, message] = await keen(page, closed.url, { transports })
    assert.equal(code, 'forbidden', message)
    assert.match(message, /origin/)
  }
  await page.context().close()
})

test('a page whose policy forbids it is told so', async () => {
  const page = await openPage(browser, `${files.http}/csp`)
  const [code, message] = await keen(page, cluster.nodes[0].url)
  assert.equal(code, 'blocked_by_csp', message)
  await page.context().close()
})

test('eight tabs of one browser by SSE over HTTP/1.1: all get in, and hear each other', async () => {
  const context = await browser.newContext()
  const tabs = []
  for (let i = 0; i < 8; i++) {
    const tab = await context.newPage()
    await tab.goto(`${files.http}/blank`)
    tabs.push(tab)
    const entered = await tab.evaluate(
      async ([url, name]) => {
        const { Client } = await import('/client/switchboard.js')
        globalThis.got = []
        globalThis.client = new Client(url, { name, transports: ['sse', 'poll'] })
        client.addEventListener('message', ({ message }) => globalThis.got.push(message))
        return client.connect({ signal: AbortSignal.timeout(8000) }).then(
          () => client.transport,
          ({ name }) => name,
        )
      },
      [cluster.nodes[0].url, `tab ${i}`],
    )
    assert.match(entered, /sse|poll/, `tab ${i}`)
  }
  for (const [i, tab] of tabs.entries()) await tab.evaluate((to) => client.send(to, 'hello'), `tab ${(i + 1) % 8}`)
  for (const tab of tabs) await eventually(() => tab.evaluate(() => globalThis.got.length === 1))
  await context.close()
})
