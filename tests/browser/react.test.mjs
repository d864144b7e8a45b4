// examples/react as `npm run dev` serves it, with the package as npm would pack it: a video call between two nodes.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { createServer } from 'vite'

import { ROOT, eventually, launchBrowser, openPage, startCluster } from './support/index.mjs'

const MODULES = join(ROOT, 'tests/browser/node_modules')

/** A copy of the example, with what `npm install` would put there. */
function install() {
  const app = mkdtempSync(join(tmpdir(), 'switchboard-react-'))
  cpSync(join(ROOT, 'examples/react'), app, { recursive: true, filter: (path) => !path.includes('node_modules') })
  const packed = join(app, 'node_modules/switchboard-client')
  mkdirSync(packed, { recursive: true })
  const quiet = { cwd: join(ROOT, 'client'), encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }
  const said = execFileSync('npm', ['pack', '--json', '--pack-destination', app], quiet)
  const [{ filename }] = JSON.parse(said.slice(said.indexOf('[')))
  execFileSync('tar', ['-xzf', join(app, filename), '-C', packed, '--strip-components=1'])
  for (const name of ['react', 'react-dom', 'scheduler', 'vite'])
    symlinkSync(join(MODULES, name), join(app, 'node_modules', name))
  return app
}

test('the React example calls, rings, shows a picture and hangs up', async (t) => {
  const app = install()
  t.after(() => rmSync(app, { recursive: true }))
  const cluster = await startCluster(2)
  t.after(() => cluster.stop())
  const vite = await createServer({ root: app, logLevel: 'silent', server: { port: 0 } })
  t.after(() => vite.close())
  await vite.listen()
  const [url] = vite.resolvedUrls.local

  const visit = async (node, name) => {
    const browser = await launchBrowser({ flags: [`--host-resolver-rules=MAP localhost:9090 127.0.0.1:${node.port}`] })
    t.after(() => browser.close())
    const page = await openPage(browser, url)
    await page.fill('[name=name]', name)
    await page.click('form button')
    await says(page, '#state', 'online')
    return page
  }
  const says = (page, where, words) =>
    eventually(async () => (await page.textContent(where, { timeout: 1000 })) === words, 30_000, `${where}: ${words}`)

  const [ann, bob] = [await visit(cluster.nodes[0], 'ann'), await visit(cluster.nodes[1], 'bob')]
  await ann.fill('[name=other]', 'bob')
  await ann.click('form button')
  await says(bob, '#call', 'ringing')
  await bob.click('text=Accept')
  for (const page of [ann, bob]) {
    await says(page, '#call', 'connected')
    await eventually(() => page.evaluate(() => theirs.getVideoPlaybackQuality().totalVideoFrames > 5), 20_000, 'a picture')
  }
  await bob.click('text=Hang up')
  await says(ann, '#call', 'hangup')
  assert.deepEqual([...ann.errors, ...bob.errors], [])
})
