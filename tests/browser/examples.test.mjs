// The pages of examples/ that other tests do not open, as they are: a file goes over, and PeerJS makes a call.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

import { eventually, launchBrowser, openPage, ROOT, startCluster, startFiles } from './support/index.mjs'

const PEERJS = join(ROOT, 'tests/browser/peerjs/node_modules/peerjs/dist/peerjs.min.js')

let cluster, files
before(async () => {
  ;[cluster, files] = await Promise.all([startCluster(2), startFiles()])
})
after(() => Promise.all([cluster, files].map((each) => each?.stop())))

/** The page in two browsers, each of which finds another node where the page says localhost:9090. */
async function visit(t, name) {
  const pages = cluster.nodes.map(async (node) => {
    const browser = await launchBrowser({ flags: [`--host-resolver-rules=MAP localhost:9090 127.0.0.1:${node.port}`] })
    t.after(() => browser.close())
    const page = await openPage(browser)
    // There is no way to the place where the page gets PeerJS from.
    await page.route('https://unpkg.com/**', (route) => route.fulfill({ path: PEERJS, contentType: 'text/javascript' }))
    await page.goto(`${files.http}/examples/${name}`)
    return page
  })
  return Promise.all(pages)
}
const logIn = async (page, name) => {
  await page.fill('#me', name)
  await page.click('form button')
  await eventually(async () => (await page.evaluate(() => note.value)) === `You are ${name}`, 15_000, `${name} is logged in`)
}

test('a file of a megabyte goes over', async (t) => {
  const [ann, bob] = await visit(t, 'files.html')
  await logIn(ann, 'ann')
  await logIn(bob, 'bob')
  const buffer = Buffer.alloc(1_000_000, 'some words and ')
  await ann.setInputFiles('#file', { name: 'words.txt', mimeType: 'text/plain', buffer })
  await ann.fill('#you', 'bob')
  await ann.click('form button')
  await bob.waitForSelector('#received a', { timeout: 30_000 })
  assert.equal(await bob.textContent('#received a'), 'words.txt, 1000000 bytes')
  const arrived = await bob.evaluate(async () => (await fetch(document.querySelector('#received a').href)).text())
  assert.equal(arrived, buffer.toString())
  assert.deepEqual([...ann.errors, ...bob.errors], [])
})

test('PeerJS makes a call between two nodes', async (t) => {
  const [ann, bob] = await visit(t, 'peerjs.html')
  await logIn(ann, 'peer-ann')
  await logIn(bob, 'peer-bob')
  await ann.fill('#you', 'peer-bob')
  await ann.click('form button')
  for (const page of [ann, bob])
    await eventually(() => page.evaluate(() => theirs.getVideoPlaybackQuality().totalVideoFrames > 5), 20_000, 'a picture')
  assert.deepEqual([...ann.errors, ...bob.errors], [])
})

test('the page of the README is among the examples', () => {
  const [, page] = /```html\n(.*?)```/s.exec(readFileSync(join(ROOT, 'README.md'), 'utf8'))
  assert.equal(readFileSync(join(ROOT, 'examples/call.html'), 'utf8'), page)
})
