// A call between two independent WebRTC stacks, Chromium with the client library and aiortc with the tutorial's words, on two nodes.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { ROOT, eventually, frames, launchBrowser, openCaller, start, startCluster, startFiles, stateOf } from './support/index.mjs'

let cluster, files, browser
before(async () => {
  ;[cluster, files, browser] = await Promise.all([startCluster(2), startFiles(), launchBrowser()])
})
after(async () => {
  await browser?.close()
  await Promise.all([cluster, files].map((each) => each?.stop()))
})

const media = { video: { width: 160, height: 120 } }
const aiortc = (...args) => start(`${ROOT}target/browser-venv/bin/python`, [`${ROOT}tests/browser/support/peer.py`, ...args])

for (const caller of ['Chromium', 'aiortc']) {
  test(`${caller} calls: video and chat both ways, until Chromium hangs up`, async () => {
    const [one, two] = cluster.nodes
    const [me, robot] = [`alice-${caller}`, `robot-${caller}`]
    const alice = await openCaller(browser, files, one.url, me, { media })
    const peer = aiortc(two.url, robot, ...(caller === 'aiortc' ? [me] : []))
    const told = (what) => eventually(() => (peer.running || peer.output.includes(what) ? peer.output.includes(what) : assert.fail(peer.output)), 30_000, what)
    await told('ready')
    if (caller === 'Chromium') await alice.evaluate((robot) => page.dial(robot), robot)
    await eventually(async () => (await stateOf(alice, robot)) === 'connected', 20_000)
    await eventually(async () => (await frames(alice, robot)) > 5, 20_000)
    // It echoes, and says how many frames of ours it has seen.
    await eventually(async () => {
      await alice.evaluate((robot) => page.calls[robot].channel('chat').send('hello'), robot)
      const heard = await alice.evaluate(() => page.heard.map(([, data]) => data))
      return heard.some((data) => Number(/heard hello and has seen (\d+)/.exec(data)?.[1]) > 5)
    }, 20_000)
    await alice.evaluate((robot) => page.calls[robot].hangup(), robot)
    await told('leave hangup')
    assert.equal((await peer.ended).code, 0, peer.output)
    assert.deepEqual(alice.errors, [])
  })
}
