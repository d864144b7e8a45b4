// The harness itself: a page in Chromium logs in at a node through the proxy, with nothing but a WebSocket.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { eventually, launchBrowser, openPage, startCluster, startFiles, startProxy } from './support/index.mjs'

let cluster, proxy, files, browser
before(async () => {
  cluster = await startCluster(2)
  ;[proxy, files, browser] = await Promise.all([startProxy(cluster.nodes), startFiles(), launchBrowser()])
})
after(async () => {
  await browser?.close()
  await Promise.all([cluster, proxy, files].map((each) => each?.stop()))
})

const hello = (url) =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(url)
    socket.onopen = () => socket.send('{"type":"login","name":"smoke"}')
    socket.onmessage = ({ data }) => (resolve(JSON.parse(data)), socket.close())
    socket.onerror = () => reject(new Error('no connection'))
  })

test('a page logs in through the proxy, at one node after the other', async () => {
  const page = await openPage(browser, `${files.http}/blank`)
  const nodes = new Set()
  await eventually(async () => {
    const reply = await page.evaluate(hello, proxy.url)
    if (reply.success) nodes.add(reply.node.split('.')[0])
    return nodes.size === 2
  })
  assert.deepEqual([...nodes].sort(), ['one', 'two'])
  assert.deepEqual(page.errors, [])
})

test('what the proxy refuses, the page does not get', async () => {
  proxy.rules.websocket = 'refuse'
  const page = await openPage(browser, `${files.http}/blank`)
  await assert.rejects(page.evaluate(hello, proxy.url), /no connection/)
})
