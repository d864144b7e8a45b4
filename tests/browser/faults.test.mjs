// Nodes that die or are replaced while browsers call each other.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { eventually, frames, launchBrowser, openCaller, openPage, startCluster, startFiles, startProxy, stateOf } from './support/index.mjs'

let cluster, files, browser
before(async () => {
  ;[cluster, files, browser] = await Promise.all([startCluster(2, { 'drain.window': '2s' }), startFiles(), launchBrowser()])
})
after(async () => {
  await browser?.close()
  await Promise.all([cluster, files].map((each) => each?.stop()))
})

const media = { video: { width: 160, height: 120 } }
const restart = async (index) => (cluster.nodes[index] = await cluster.nodes[index].restart())

/** Alice is at node one and Bob at two, as long as these live. */
async function pair(names) {
  const { nodes } = cluster
  const proxies = await Promise.all([startProxy([nodes[0], nodes[1]], { inOrder: true }), startProxy([nodes[1], nodes[0]], { inOrder: true })])
  const pages = await Promise.all(names.map((name, i) => openCaller(browser, files, proxies[i].url, name, { answer: 'hold' })))
  const stop = async () => {
    await Promise.all(pages.map((page) => page.context().close()))
    await Promise.all(proxies.map((proxy) => proxy.stop()))
  }
  return { pages, stop }
}

for (const [moment, rounds] of [['ringing', 4], ['ICE', 4]]) {
  test(`kill -9 of the node of one side while ${moment} is going on: the call connects, ${rounds} of ${rounds} times`, async () => {
    const took = []
    for (let i = 0; i < rounds; i++) {
      const names = [`a-${moment}-${i}`, `b-${moment}-${i}`]
      const [a, b] = names
      const { pages: [alice, bob], stop } = await pair(names)
      const victim = i % 2
      let killed
      const kill = async () => {
        killed = Date.now()
        await cluster.nodes[victim].kill()
      }
      await bob.exposeFunction('kill', kill)
      await alice.evaluate((b) => page.dial(b), b)
      await eventually(() => bob.evaluate((a) => page.calls[a]?.state === 'ringing', a))
      if (moment === 'ringing') {
        await kill()
        await bob.evaluate((a) => void page.calls[a].accept(), a)
      } else {
        // As soon as the browser has made its answer, its candidates are about to go.
        await bob.evaluate(async (a) => {
          const { pc } = page.calls[a]
          const answered = new Promise((resolve) => pc.addEventListener('signalingstatechange', () => pc.signalingState === 'stable' && resolve()))
          page.calls[a].accept()
          await answered
          globalThis.kill()
        }, a)
      }
      await eventually(async () => (await stateOf(alice, b)) === 'connected' && (await stateOf(bob, a)) === 'connected', 20_000)
      took.push(Date.now() - killed)
      await alice.evaluate((b) => page.calls[b].channel('chat').send('still here'), b)
      await eventually(() => bob.evaluate(() => page.heard.length))
      // Both sessions have found a node again, and nobody was told of an end.
      for (const page of [alice, bob]) await eventually(() => page.evaluate(() => client.state === 'online'))
      for (const page of [alice, bob]) assert.deepEqual(await page.evaluate(() => page.ends), [])
      await restart(victim)
      await stop()
    }
    console.log(`# kill -9 while ${moment}: connected ${took.join(', ')} ms after the kill`)
  })
}

test('a rolling restart under 20 data channel calls and a video call: none drops, nobody sees a hang-up', async () => {
  const COUNT = 20
  const proxy = await startProxy(cluster.nodes)
  const crowd = async (letter) => {
    const page = await openPage(browser, `${files.http}/blank`)
    await page.evaluate(
      async ([url, letter, COUNT]) => {
        const { connect } = await import('/client/switchboard.js')
        Object.assign(globalThis, { clients: [], calls: [], heard: [], ends: [], states: [], moves: 0 })
        const note = (i, call) => {
          globalThis.calls[i] = call
          globalThis.heard[i] = []
          call.channel('chat').addEventListener('message', ({ data }) => globalThis.heard[i].push(Number(data)))
          call.addEventListener('end', ({ reason }) => globalThis.ends.push([i, reason]))
          call.addEventListener('state', ({ state }) => globalThis.states.push(state))
        }
        await Promise.all(
          Array.from({ length: COUNT }, async (_, i) => {
            const client = (globalThis.clients[i] = await connect(url, { name: `${letter}${i}` }))
            client.addEventListener('call', ({ call }) => (note(i, call), call.accept()))
            client.addEventListener('state', ({ state }) => state === 'online' && globalThis.moves++)
          }),
        )
        globalThis.dial = () => Promise.all(globalThis.clients.map(async (client, i) => (note(i, client.call(`y${i}`)), globalThis.calls[i].connected)))
        globalThis.talk = () => {
          let n = 0
          globalThis.talking = setInterval(() => (globalThis.calls.forEach((call) => call.channel('chat').send(String(n))), n++), 100)
          globalThis.said = () => n
        }
      },
      [proxy.url, letter, COUNT],
    )
    return page
  }
  const [x, y] = await Promise.all([crowd('x'), crowd('y')])
  const alice = await openCaller(browser, files, proxy.url, 'alice', { media })
  const bob = await openCaller(browser, files, proxy.url, 'bob', { media })
  await alice.evaluate(() => page.dial('bob'))
  await x.evaluate(async () => void (await globalThis.dial()))
  await eventually(() => y.evaluate((COUNT) => globalThis.calls.filter((call) => call?.state === 'connected').length === COUNT, COUNT))
  await eventually(async () => (await frames(alice, 'bob')) > 2 && (await frames(bob, 'alice')) > 2)
  await Promise.all([x, y].map((page) => page.evaluate(() => globalThis.talk())))

  for (const index of [0, 1]) {
    const { code } = await cluster.nodes[index].drain()
    assert.equal(code, 0)
    await restart(index)
    for (const page of [x, y]) await eventually(() => page.evaluate(() => globalThis.clients.every(({ state }) => state === 'online')))
  }
  const moves = (await x.evaluate(() => globalThis.moves)) + (await y.evaluate(() => globalThis.moves))
  assert.ok(moves >= 2 * COUNT, `everybody has moved: ${moves}`)
  // A signal gets through afterwards, too.
  assert.match(await x.evaluate(() => globalThis.clients[0].send('y19', 'hello')), /delivered|queued/)
  for (const page of [x, y]) {
    await page.evaluate(() => clearInterval(globalThis.talking))
    assert.deepEqual(await page.evaluate(() => globalThis.ends), [])
    const bad = await page.evaluate(() => globalThis.states.filter((state) => !['ringing', 'connecting', 'connected'].includes(state)))
    assert.deepEqual(bad, [])
  }
  const said = await Promise.all([x, y].map((page) => page.evaluate(() => globalThis.said())))
  for (const [page, n] of [[y, said[0]], [x, said[1]]]) {
    await eventually(() => page.evaluate((n) => globalThis.heard.every(({ length }) => length === n), n))
    assert.ok(await page.evaluate(() => globalThis.heard.every((list) => list.every((value, i) => value === i))), 'each once, in order')
  }
  for (const page of [alice, bob]) assert.deepEqual(await page.evaluate(() => page.ends), [])
  const before = await frames(alice, 'bob')
  await eventually(async () => (await frames(alice, 'bob')) > before)
  console.log(`# rolling restart of two nodes: ${COUNT} data channel calls and a video call go on, ${moves} moves of sessions, ${said} messages heard on each channel, no hang-up`)
  assert.deepEqual([...x.errors, ...y.errors, ...alice.errors, ...bob.errors], [])
  await proxy.stop()
})
