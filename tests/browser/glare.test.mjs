// Both call each other in the same moment.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { eventually, launchBrowser, openCaller, startCluster, startFiles } from './support/index.mjs'

const TIMES = Number(process.env.GLARES ?? 100)

let cluster, files, browser
before(async () => {
  ;[cluster, files, browser] = await Promise.all([startCluster(2), startFiles(), launchBrowser()])
})
after(async () => {
  await browser?.close()
  await Promise.all([cluster, files].map((each) => each?.stop()))
})

test(`glare ${TIMES} times: as many connected calls, and both hang up in the same moment`, async () => {
  const [one, two] = cluster.nodes
  const alice = await openCaller(browser, files, one.url, 'alice')
  const bob = await openCaller(browser, files, two.url, 'bob')
  const round = (page, other, at) =>
    page.evaluate(
      async ([other, at]) => {
        const { page } = globalThis
        page.heard.length = page.ends.length = 0
        while (Date.now() < at); // As exactly as two processes can.
        if (!page.calls[other] || page.calls[other].state === 'ended') await page.dial(other)
        const call = page.calls[other]
        const { direction } = call
        await Promise.race([call.connected, new Promise((_, late) => setTimeout(late, 10_000, new Error('not connected within 10 s')))])
        call.channel('chat').send(`from ${page.name}`)
        while (!page.heard.length) await new Promise((heard) => call.channel('chat').addEventListener('message', heard, { once: true }))
        return { direction, heard: page.heard.map(([, data]) => data), setup: call.setupTime }
      },
      [other, at],
    )
  let glares = 0
  const setups = []
  for (let i = 0; i < TIMES; i++) {
    const at = Date.now() + 100
    const sides = await Promise.all([round(alice, 'bob', at), round(bob, 'alice', at)])
    assert.deepEqual(sides.map(({ heard }) => heard), [['from bob'], ['from alice']], `round ${i}`)
    if (sides.every(({ direction }) => direction === 'outgoing')) glares++
    setups.push(...sides.map(({ setup }) => setup))
    await Promise.all([alice.evaluate(() => page.calls.bob.hangup()), bob.evaluate(() => page.calls.alice.hangup())])
    for (const [page, other] of [[alice, 'bob'], [bob, 'alice']]) {
      await eventually(() => page.evaluate((other) => client.calls.size === 0 && globalThis.page.ends.length === 1, other))
    }
  }
  setups.sort((a, b) => a - b)
  console.log(`# ${TIMES} calls connected, ${glares} of them by glare; p50 ${setups[setups.length >> 1]} ms, longest ${setups.at(-1)} ms`)
  assert.ok(glares >= TIMES / 2, `${glares} of ${TIMES} were glares`)
  assert.deepEqual([...alice.errors, ...bob.errors], [])
})
