// One call, as it should be: what every change must pass.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { eventually, frames, launchBrowser, openCaller, startCluster, startFiles, stateOf } from './support/index.mjs'

let cluster, files, browser
before(async () => {
  ;[cluster, files, browser] = await Promise.all([startCluster(2), startFiles(), launchBrowser()])
})
after(async () => {
  await browser?.close()
  await Promise.all([cluster, files].map((each) => each?.stop()))
})

test('a video call with chat between two nodes, until somebody hangs up', async () => {
  const [one, two] = cluster.nodes
  const media = { video: { width: 160, height: 120 }, audio: true }
  const alice = await openCaller(browser, files, one.url, 'alice', { media })
  const bob = await openCaller(browser, files, two.url, 'bob', { media })

  await alice.evaluate(() => page.dial('bob'))
  await eventually(async () => (await stateOf(alice, 'bob')) === 'connected' && (await stateOf(bob, 'alice')) === 'connected')
  await eventually(async () => (await frames(alice, 'bob')) > 5 && (await frames(bob, 'alice')) > 5)
  const before = await frames(alice, 'bob')
  await eventually(async () => (await frames(alice, 'bob')) > before)

  await alice.evaluate(() => page.calls.bob.channel('chat').send('hello'))
  await bob.evaluate(() => page.calls.alice.channel('chat').send('good day'))
  await eventually(() => alice.evaluate(() => page.heard.length))
  await eventually(() => bob.evaluate(() => page.heard.length))
  assert.deepEqual(await alice.evaluate(() => page.heard), [['bob', 'good day']])
  assert.deepEqual(await bob.evaluate(() => page.heard), [['alice', 'hello']])

  await alice.evaluate(() => page.calls.bob.hangup())
  await eventually(() => bob.evaluate(() => page.ends.length))
  assert.deepEqual(await bob.evaluate(() => page.ends), [['alice', 'hangup', false]])
  assert.deepEqual(await alice.evaluate(() => page.ends), [['bob', 'hangup', true]])
  assert.deepEqual([...alice.errors, ...bob.errors], [])
})
