// The page of the README, as it is written there, makes a call between two nodes.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

import { eventually, launchBrowser, openPage, ROOT, startCluster, startFiles } from './support/index.mjs'

const [, page] = /```html\n(.*?)```/s.exec(readFileSync(join(ROOT, 'README.md'), 'utf8')) ?? []

let cluster, files
before(async () => {
  ;[cluster, files] = await Promise.all([startCluster(2), startFiles({ '/call.html': page })])
})
after(() => Promise.all([cluster, files].map((each) => each?.stop())))

test('the page of the README is a video call, in at most 25 lines', async (t) => {
  assert.ok(page, 'there is a page in the README')
  const lines = page.trim().split('\n')
  assert.ok(lines.length <= 25, `${lines.length} lines`)

  // Each browser finds another node where the page says localhost:9090.
  const visit = async (node) => {
    const browser = await launchBrowser({ flags: [`--host-resolver-rules=MAP localhost:9090 127.0.0.1:${node.port}`] })
    t.after(() => browser.close())
    const visitor = await openPage(browser)
    visitor.on('dialog', (dialog) => dialog.accept())
    await visitor.goto(`${files.http}/call.html`)
    return visitor
  }
  const [alice, bob] = await Promise.all(cluster.nodes.map(visit))
  const says = (visitor, expected) => eventually(async () => (await visitor.evaluate(() => note.value)) === expected, 15_000, expected)
  const shows = (visitor, id) => visitor.evaluate((id) => document.getElementById(id).getVideoPlaybackQuality().totalVideoFrames, id)

  for (const [visitor, name] of [[alice, 'alice'], [bob, 'bob']]) {
    await visitor.fill('#me', name)
    await visitor.click('form button')
    await says(visitor, `You are ${name}`)
  }
  const sessions = await Promise.all(cluster.nodes.map(async ({ admin }) => (await (await fetch(`${admin}/status`)).json()).sessions))
  assert.deepEqual(sessions, [1, 1], 'one at each node')

  await alice.fill('#you', 'bob')
  await alice.click('form button')
  await Promise.all([says(alice, 'bob: connected'), says(bob, 'alice: connected')])
  for (const visitor of [alice, bob]) {
    const seen = await eventually(() => shows(visitor, 'theirs'), 15_000, 'the other is seen')
    await eventually(async () => (await shows(visitor, 'theirs')) > seen + 5, 15_000, 'and moves')
    assert.ok((await shows(visitor, 'mine')) > 0)
  }
  await bob.click('#bye')
  await Promise.all([says(alice, 'bob: hangup'), says(bob, 'alice: hangup')])
  // What goes wrong is told: the name is taken.
  await bob.reload()
  await bob.fill('#me', 'alice')
  await bob.click('form button')
  await says(bob, 'The name is taken')
  assert.deepEqual([...alice.errors, ...bob.errors.filter((error) => !error.includes('The name is taken'))], [])
})
