// Calls whose signalling is away for longer than a session is kept: the browsers have each other, and need no server.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { eventually, launchBrowser, openCaller, startCluster, startFiles, startNetwork, stateOf } from './support/index.mjs'

/** Longer than any session is kept: 5 s of its node, and 10 s of grace. */
const DARK = 40_000

let cluster, files, browser
before(async () => {
  ;[cluster, files, browser] = await Promise.all([startCluster(2), startFiles(), launchBrowser()])
})
after(async () => {
  await browser?.close()
  await Promise.all([cluster, files].map((each) => each?.stop()))
})

for (const [who, sides] of Object.entries({ 'of one side': [0], 'of both sides': [0, 1] })) {
  test(`the signalling ${who} is away for 40 s: the call goes on, with other sessions, until somebody ends it`, async () => {
    const networks = await Promise.all(cluster.nodes.map((node) => startNetwork(node)))
    const names = ['dora', 'emil'].map((name) => `${name} ${sides.length}`)
    const pages = await Promise.all(names.map((name, i) => openCaller(browser, files, networks[i].url, name)))
    const states = () => Promise.all(pages.map((page, i) => stateOf(page, names[1 - i])))
    const isConnected = async () => (await states()).every((state) => state === 'connected')
    await pages[0].evaluate((other) => page.dial(other), names[1])
    await eventually(isConnected, 20_000)
    const sessions = await Promise.all(pages.map((page) => page.evaluate(() => client.session)))
    const legs = await Promise.all(pages.map((page, i) => page.evaluate((name) => page.calls[name].leg, names[1 - i])))

    for (const i of sides) networks[i].rules.silent = true
    await sleep(DARK / 2)
    await pages[0].evaluate((name) => page.calls[name].channel('chat').send('in the dark'), names[1])
    await eventually(() => pages[1].evaluate(() => page.heard.length === 1))
    await sleep(DARK / 2)
    assert.ok(await isConnected(), String(await states()))
    for (const i of sides) {
      networks[i].strand()
      networks[i].rules.silent = false
    }
    for (const i of sides) {
      const isBack = () => pages[i].evaluate((old) => client.state === 'online' && client.session !== old, sessions[i])
      await eventually(isBack, 30_000, 'logged in, with another session')
    }
    await eventually(isConnected)
    const ends = () => Promise.all(pages.map((page) => page.evaluate(() => page.ends)))
    assert.deepEqual(await ends(), [[], []])
    const now = await Promise.all(pages.map((page, i) => page.evaluate((name) => page.calls[name].leg, names[1 - i])))
    assert.deepEqual(now, legs, 'the same call')
    await pages[1].evaluate((name) => page.calls[name].hangup(), names[0])
    await eventually(async () => (await ends()).every((one) => one.length === 1), 10_000, 'the end is told')
    assert.deepEqual((await ends())[0], [[names[1], 'hangup', false]])
    // What ended leaves nothing behind: the next call begins as any other.
    await pages[1].evaluate((other) => page.dial(other), names[0])
    await eventually(isConnected, 20_000)
    assert.deepEqual(pages[1].errors, [])
    await Promise.all(pages.map((page) => page.context().close()))
    await Promise.all(networks.map((network) => network.stop()))
  })
}
