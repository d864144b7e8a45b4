// A browser that is killed says nothing: how long it keeps its name, behind HAProxy as it is shipped.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import WebSocket from 'ws'

import { CLIENT, begunBy, eventually, launchBrowser, openCaller, startCluster, startFiles, startHaproxy } from './support/index.mjs'

const { connect } = await import(`${CLIENT}/switchboard.js`)

let cluster, files, haproxy
before(async () => {
  ;[cluster, files] = await Promise.all([startCluster(2), startFiles()])
  haproxy = await startHaproxy(cluster.nodes)
})
after(async () => {
  await haproxy?.kill()
  await Promise.all([cluster, files].map((each) => each?.stop()))
})

for (const transport of ['sse', 'poll']) {
  test(`a browser that is killed while it is connected by ${transport} behind HAProxy: its name is free within 20 s`, async () => {
    const { made: browser, signal } = await begunBy(launchBrowser)
    const options = { transports: [transport] }
    await openCaller(browser, files, haproxy.url, `killed ${transport}`, { options })
    const bob = await connect(cluster.nodes[0].url, { WebSocket, name: `watches ${transport}` })
    const gone = []
    bob.addEventListener('presence', ({ users }) => gone.push(users))
    await bob.watch([`killed ${transport}`])
    const began = performance.now()
    signal('SIGKILL')
    await eventually(() => gone.length, 60_000)
    const took = Math.round(performance.now() - began)
    console.log(`# killed while on ${transport}: seen to be gone after ${took} ms`)
    assert.ok(took <= 20_000 + 3000, `${took} ms`)
    bob.close()
    await browser.close().catch(() => {})
  })
}
