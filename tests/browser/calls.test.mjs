// Video calls between two nodes, one after the other: how long from the click until they are connected.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { eventually, frames, launchBrowser, openCaller, startCluster, startFiles } from './support/index.mjs'

const TIMES = 11

let cluster, files, browser
before(async () => {
  ;[cluster, files, browser] = await Promise.all([startCluster(2), startFiles(), launchBrowser()])
})
after(async () => {
  await browser?.close()
  await Promise.all([cluster, files].map((each) => each?.stop()))
})

const media = { video: { width: 160, height: 120 } }

test(`${TIMES} video calls: from click to connected`, async () => {
  const [one, two] = cluster.nodes
  const alice = await openCaller(browser, files, one.url, 'alice', { media })
  const bob = await openCaller(browser, files, two.url, 'bob', { media })
  const took = []
  for (let i = 0; i < TIMES; i++) {
    const ms = await alice.evaluate(async () => {
      const clicked = performance.now()
      await page.dial('bob')
      await page.calls.bob.connected
      return performance.now() - clicked
    })
    took.push(Math.round(ms))
    await eventually(async () => (await frames(alice, 'bob')) > 2 && (await frames(bob, 'alice')) > 2)
    await alice.evaluate(() => page.calls.bob.hangup())
    await eventually(async () => (await bob.evaluate(() => page.ends.length)) === i + 1)
  }
  took.sort((a, b) => a - b)
  console.log(`# click to connected, video, two nodes: p50 ${took[TIMES >> 1]} ms, ${took[0]} to ${took.at(-1)} ms`)
  assert.deepEqual([...alice.errors, ...bob.errors], [])
})

test('declined, busy, cancelled, nobody there, and too long: each side hears why', async () => {
  const [one, two] = cluster.nodes
  const carol = await openCaller(browser, files, one.url, 'carol')
  const dave = await openCaller(browser, files, two.url, 'dave', { answer: 'declined' })
  const last = (page) => page.evaluate(() => page.ends.at(-1))
  const count = async (page, n) => (await page.evaluate(() => page.ends.length)) === n

  await carol.evaluate(() => page.dial('dave'))
  await eventually(async () => (await count(carol, 1)) && (await count(dave, 1)))
  assert.deepEqual([await last(carol), await last(dave)], [['dave', 'declined', false], ['carol', 'declined', true]])

  await dave.evaluate(() => (page.answer = 'hold'))
  await carol.evaluate(() => page.dial('dave'))
  await eventually(() => dave.evaluate(() => page.calls.carol.state === 'ringing'))
  await eventually(() => carol.evaluate(() => page.calls.dave.state === 'ringing'))
  await carol.evaluate(() => page.calls.dave.hangup())
  await eventually(() => count(dave, 2))
  assert.deepEqual([await last(carol), await last(dave)], [['dave', 'cancelled', true], ['carol', 'cancelled', false]])

  await carol.evaluate(() => page.dial('dave', { signal: AbortSignal.timeout(300) }))
  await eventually(() => count(dave, 3))
  assert.deepEqual([await last(carol), await last(dave)], [['dave', 'timeout', true], ['carol', 'timeout', false]])

  await carol.evaluate(() => page.dial('nobody'))
  await eventually(() => count(carol, 4))
  assert.deepEqual(await last(carol), ['nobody', 'unavailable', false])
})
