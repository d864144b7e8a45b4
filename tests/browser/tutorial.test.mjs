// The tutorial's own client, which knows nothing of this project: with itself, and with the client library.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { eventually, frames, launchBrowser, openCaller, openPage, startCluster, startFiles, stateOf } from './support/index.mjs'

let cluster, files, browser
before(async () => {
  ;[cluster, files, browser] = await Promise.all([startCluster(2), startFiles(), launchBrowser()])
})
after(async () => {
  await browser?.close()
  await Promise.all([cluster, files].map((each) => each?.stop()))
})

async function open(node, name) {
  const page = await openPage(browser, `${files.http}/examples/tutorial.html?server=${node.url}`)
  await page.waitForFunction(() => globalThis.conn.readyState === 1)
  await page.fill('#usernameInput', name)
  await page.click('#loginBtn')
  await page.waitForFunction(() => document.title === 'ready')
  return page
}
const call = async (page, other) => {
  await page.fill('#callToUsernameInput', other)
  await page.click('#callBtn')
}
const plays = (page) => page.waitForFunction(() => document.querySelector('#remoteVideo').currentTime > 0.5, undefined, { timeout: 20_000 })
const say = async (page, text) => {
  await page.waitForFunction(() => globalThis.dataChannel.readyState === 'open')
  await page.fill('#msgInput', text)
  await page.click('#sendMsgBtn')
}
const left = (page) => page.waitForFunction(() => document.title === 'left', undefined, { timeout: 10_000 })

test('two of the tutorial’s clients on two nodes: video, chat, hang-up', async () => {
  const [one, two] = cluster.nodes
  const [alice, bob] = await Promise.all([open(one, 'UserA'), open(two, 'UserB')])
  await call(alice, 'UserB')
  await Promise.all([plays(alice), plays(bob)])
  await say(alice, 'hello')
  await say(bob, 'good day')
  await bob.waitForFunction(() => document.querySelector('#chatarea').textContent === 'UserA: hello\n')
  await alice.waitForFunction(() => document.querySelector('#chatarea').textContent === 'UserB: good day\n')
  await alice.click('#hangUpBtn')
  await left(bob)
  assert.deepEqual([...alice.errors, ...bob.errors], [])
})

for (const caller of ['the tutorial’s client', 'the client library']) {
  test(`the tutorial’s client and the client library: ${caller} calls`, async () => {
    const [one, two] = cluster.nodes
    const suffix = caller.length
    const old = await open(one, `old${suffix}`)
    const bob = await openCaller(browser, files, two.url, `new${suffix}`, { media: { video: { width: 160, height: 120 } } })
    if (caller === 'the client library') await bob.evaluate((name) => page.dial(name), `old${suffix}`)
    else await call(old, `new${suffix}`)
    await plays(old)
    await eventually(async () => (await frames(bob, `old${suffix}`)) > 5, 20_000)
    assert.equal(await stateOf(bob, `old${suffix}`), 'connected')
    await bob.evaluate((name) => page.calls[name].channel('chat').send('hello'), `old${suffix}`)
    await old.waitForFunction(() => document.querySelector('#chatarea').textContent.endsWith(': hello\n'))
    await bob.evaluate((name) => page.calls[name].hangup(), `old${suffix}`)
    await left(old)
    assert.deepEqual([...old.errors, ...bob.errors], [])
  })
}
