// A network that lets no WebSocket through, and a node that dies: the page goes on over HTTP at another node.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { eventually, launchBrowser, openCaller, startCluster, startFiles, startProxy, stateOf } from './support/index.mjs'

let cluster, files, browser
before(async () => {
  ;[cluster, files, browser] = await Promise.all([startCluster(2), startFiles(), launchBrowser()])
})
after(async () => {
  await browser?.close()
  await Promise.all([cluster, files].map((each) => each?.stop()))
})

/** Alice is at node one and Bob at two, as long as these live; both over HTTP. */
async function pair(names, answer) {
  const { nodes } = cluster
  const rules = () => ({ inOrder: true, websocket: 'refuse' })
  const proxies = await Promise.all([startProxy([nodes[0], nodes[1]], rules()), startProxy([nodes[1], nodes[0]], rules())])
  const pages = await Promise.all(names.map((name, i) => openCaller(browser, files, proxies[i].url, name, { answer })))
  for (const page of pages) assert.equal(await page.evaluate(() => client.transport), 'sse')
  const stop = async () => {
    await Promise.all(pages.map((page) => page.context().close()))
    await Promise.all(proxies.map((proxy) => proxy.stop()))
  }
  return { pages, stop }
}

const restart = async (index) => (cluster.nodes[index] = await cluster.nodes[index].restart())

for (const victim of [0, 1]) {
  test(`kill -9 of the ${victim ? "callee's" : "caller's"} node while a call is being set up: it connects`, async () => {
    const [a, b] = [`alice-${victim}`, `bob-${victim}`]
    const { pages: [alice, bob], stop } = await pair([a, b], 'hold')
    await alice.evaluate((b) => page.dial(b), b)
    await eventually(() => bob.evaluate((a) => page.calls[a]?.state === 'ringing', a))
    const killed = Date.now()
    await cluster.nodes[victim].kill()
    await bob.evaluate((a) => void page.calls[a].accept(), a)
    await eventually(async () => (await stateOf(alice, b)) === 'connected' && (await stateOf(bob, a)) === 'connected', 20_000)
    console.log(`# connected ${Date.now() - killed} ms after the kill`)
    await alice.evaluate((b) => page.calls[b].channel('chat').send('still here'), b)
    await eventually(() => bob.evaluate(() => page.heard.length))
    for (const page of [alice, bob]) assert.deepEqual(await page.evaluate(() => page.ends), [])
    await restart(victim)
    await stop()
  })

  test(`kill -9 of the ${victim ? "receiver's" : "sender's"} node in a chat of 150 messages: all arrive once, in order`, async () => {
    const [a, b] = [`writer-${victim}`, `reader-${victim}`]
    const { pages: [alice, bob], stop } = await pair([a, b], 'hold')
    await bob.evaluate(() => {
      Object.assign(page, { got: [], silence: 0, last: performance.now() })
      client.addEventListener('message', ({ message }) => {
        page.got.push(message)
        page.silence = Math.max(page.silence, performance.now() - page.last)
        page.last = performance.now()
      })
    })
    // The writer goes on while the node is gone.
    await alice.evaluate((b) => {
      page.sent = []
      const say = (n) => {
        page.sent.push(client.send(b, n).catch((error) => String(error)))
        if (n < 149) setTimeout(say, 4, n + 1)
      }
      say(0)
    }, b)
    await eventually(() => bob.evaluate(() => page.got.length >= 40))
    await cluster.nodes[victim].kill()
    await eventually(() => bob.evaluate(() => page.got.length >= 150), 30_000, 'all have arrived')
    assert.deepEqual(await bob.evaluate(() => page.got), Array.from({ length: 150 }, (_, n) => n))
    const outcomes = new Set(await alice.evaluate(() => Promise.all(page.sent)))
    assert.deepEqual([...outcomes].filter((outcome) => !['delivered', 'queued'].includes(outcome)), [])
    console.log(`# the longest silence was ${Math.round(await bob.evaluate(() => page.silence))} ms`)
    await restart(victim)
    await stop()
  })
}
