// The npm package in what apps are built with: packed, unpacked into an app, bundled, imported, and compiled against.

import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { gzipSync } from 'node:zlib'

import { build } from 'esbuild'
import webpack from 'webpack'

import { ROOT, eventually, launchBrowser, openPage, startFiles, startNode } from './support/index.mjs'

const MODULES = join(ROOT, 'tests/browser/node_modules')

let app, node, browser
before(async () => {
  app = mkdtempSync(join(tmpdir(), 'switchboard-app-'))
  mkdirSync(join(app, 'node_modules/switchboard-client'), { recursive: true })
  const said = execFileSync('npm', ['pack', '--json', '--pack-destination', app], {
    cwd: join(ROOT, 'client'),
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const [{ filename }] = JSON.parse(said.slice(said.indexOf('[')))
  execFileSync('tar', [
    '-xzf',
    join(app, filename),
    '-C',
    join(app, 'node_modules/switchboard-client'),
    '--strip-components=1',
  ])
  for (const name of ['typescript', '@types', 'react', 'react-dom', 'scheduler'])
    symlinkSync(join(MODULES, name), join(app, 'node_modules', name))
  writeFileSync(join(app, 'package.json'), '{"type":"module"}')
  writeFileSync(join(app, 'calls.js'), `import { Client } from 'switchboard-client'\nglobalThis.Client = Client\n`)
  writeFileSync(
    join(app, 'signalling.js'),
    `import { Session } from 'switchboard-client'\nglobalThis.Client = Session\n`,
  )
  for (const name of ['Client', 'Session'])
    writeFileSync(join(app, `lite-${name}.js`), `import { ${name} } from 'switchboard-client/lite'\nglobalThis.Client = ${name}\n`)
  ;[node, browser] = await Promise.all([startNode(), launchBrowser()])
})
after(async () => {
  await Promise.all([browser?.close(), node?.kill()])
  if (app) rmSync(app, { recursive: true })
})

/** What each bundler makes of an entry, as text. */
const BUNDLERS = {
  async esbuild(entry) {
    const { outputFiles } = await build({
      entryPoints: [entry],
      bundle: true,
      minify: true,
      format: 'esm',
      write: false,
    })
    return outputFiles[0].text
  },
  async Vite(entry) {
    const { build } = await import('vite')
    const { output } = await build({
      root: app,
      logLevel: 'silent',
      configFile: false,
      build: { write: false, rollupOptions: { input: entry } },
    })
    return output[0].code
  },
  async webpack(entry) {
    const path = join(app, 'webpacked')
    await new Promise((resolve, reject) =>
      webpack(
        {
          mode: 'production',
          context: app,
          entry,
          output: { path, filename: 'out.js' },
          performance: { hints: false },
        },
        (error, stats) => (error || stats.hasErrors() ? reject(error ?? stats.toString()) : resolve()),
      ),
    )
    return readFileSync(join(path, 'out.js'), 'utf8')
  },
}

for (const [name, bundle] of Object.entries(BUNDLERS)) {
  test(`${name}: what it makes of the package logs in, and leaves calls out for who takes none`, async () => {
    const entries = ['calls', 'signalling', 'lite-Client', 'lite-Session']
    const codes = []
    for (const entry of entries) codes.push(await bundle(join(app, `${entry}.js`)))
    const [calls, signalling, lite, liteSignalling] = codes
    const sizes = codes.map((text) => gzipSync(text, { level: 9 }).length / 1024)
    console.log(`# ${name}: ${entries.map((entry, i) => `${entry} ${sizes[i].toFixed(2)} KiB`).join(', ')}, gzipped`)
    for (const code of [calls, lite]) assert.match(code, /RTCPeerConnection/)
    for (const code of [signalling, liteSignalling])
      assert.doesNotMatch(code, /RTCPeerConnection|addIceCandidate|createDataChannel/)
    for (const code of [lite, liteSignalling]) assert.doesNotMatch(code, /v1\/events|sendBeacon|securitypolicyviolation/)
    const most = [16.2, 9.9, 14.2, 7.9]
    assert.ok(sizes.every((size, i) => size < most[i]), 'not larger than it was')
    const files = await startFiles({ '/app': '<!doctype html><title>app</title>' })
    for (const code of codes) {
      const page = await openPage(browser, `${files.http}/app`)
      await page.addScriptTag({ content: code, type: 'module' })
      await eventually(() => page.evaluate(() => Boolean(globalThis.Client)))
      assert.equal(
        await page.evaluate(
          (url) => new Client(url, { name: 'bundled' }).connect({ timeout: 5000 }).then(({ state }) => state),
          node.url,
        ),
        'online',
      )
      assert.deepEqual(page.errors, [])
      await page.context().close()
      await eventually(async () => (await (await fetch(`${node.admin}/status`)).json()).sessions === 0)
    }
    await files.stop()
  })
}

const PHONES = `
import { StrictMode, createElement as h, useState } from 'react'
import { createRoot } from 'react-dom/client'
import { useCall, useSwitchboard } from 'switchboard-client/react'
function Phone({ url, name, other }) {
  const { client, state, error, calls } = useSwitchboard(url, { name })
  const [placed, place] = useState()
  const call = placed ?? calls[0]
  const { state: about, reason } = useCall(call)
  const button = (what, onClick) => h('button', { id: name + '-' + what, onClick }, what)
  return h('p', null, h('output', { id: name }, [state, error?.code, about, reason].filter(Boolean).join(' ')),
    button('dial', () => place(client.call(other))), button('accept', () => call.accept()), button('hangup', () => call.hangup()))
}
globalThis.show = (url) => createRoot(document.body).render(h(StrictMode, null, h(Phone, { url, name: 'ann', other: 'bob' }), h(Phone, { url, name: 'bob', other: 'ann' })))
globalThis.Client = true
`

test('React: hooks that log in, ring and end as state, also in StrictMode', async () => {
  writeFileSync(join(app, 'phones.js'), PHONES)
  const options = {
    entryPoints: [join(app, 'phones.js')],
    bundle: true,
    format: 'esm',
    write: false,
    define: { 'process.env.NODE_ENV': '"development"' },
    preserveSymlinks: true,
  }
  const { outputFiles } = await build(options)
  const files = await startFiles({ '/app': '<!doctype html><title>app</title>' })
  const page = await openPage(browser, `${files.http}/app`)
  await page.addScriptTag({ content: outputFiles[0].text, type: 'module' })
  await eventually(() => page.evaluate(() => Boolean(globalThis.show)))
  await page.evaluate((url) => globalThis.show(url), node.url)
  const says = (name, words) =>
    eventually(async () => (await page.textContent(`#${name}`)) === words, 10_000, `${name}: ${words}`)
  await Promise.all([says('ann', 'online'), says('bob', 'online')])
  await page.click('#ann-dial')
  await says('bob', 'online ringing')
  await page.click('#bob-accept')
  await Promise.all([says('ann', 'online connected'), says('bob', 'online connected')])
  await page.click('#bob-hangup')
  await says('ann', 'online ended hangup')
  await says('bob', 'online')
  assert.deepEqual(page.errors, [])
  await page.context().close()
  await files.stop()
})

test('Node.js imports the package where there is no browser, as a server that renders pages does', () => {
  const script = `import { Client, version } from 'switchboard-client'; const client = new Client('wss://example.org/'); console.log(version, client.state)`
  assert.match(
    execFileSync('node', ['--input-type=module', '-e', script], { cwd: app, encoding: 'utf8' }),
    /^\d+\.\d+\.\d+ offline\n$/,
  )
})

const USE = `
import { Client, Session, type Call, type CallStats, type SwitchboardError } from 'switchboard-client'
export async function use() {
  const client = await new Client('/', { name: 'a', debug: (record) => record.what }).connect({ timeout: 1000 })
  client.addEventListener('call', ({ call }) => (call satisfies Call).data)
  client.addEventListener('attempt', ({ error, final, retryIn }) => [(error satisfies SwitchboardError).code, final, retryIn])
  const stats: CallStats = await client.call('b', { data: { any: 1 }, ringTimeout: 1000, giveUp: 5 }).stats()
  // @ts-expect-error There is no such event.
  client.addEventListener('cal', () => {})
  // @ts-expect-error A session has no calls.
  new Session('/').call('b')
  return stats.relayed satisfies boolean | undefined
}
`
for (const [module, resolution] of [
  ['esnext', 'bundler'],
  ['node16', 'node16'],
  ['nodenext', 'nodenext'],
]) {
  for (const lib of ['es2022,dom,esnext.disposable', 'es2022']) {
    test(`TypeScript, moduleResolution ${resolution}, ${lib.includes('dom') ? "with the DOM's types" : "without the DOM's types, in Node.js"}`, () => {
      writeFileSync(join(app, 'use.ts'), USE)
      const types = lib.includes('dom') ? [] : ['--types', 'node']
      const args = [
        '--noEmit',
        '--strict',
        '--target',
        'es2022',
        '--module',
        module,
        '--moduleResolution',
        resolution,
        '--lib',
        lib,
        ...types,
        'use.ts',
      ]
      const { status, stdout } = spawnSync(join(MODULES, '.bin/tsc'), args, { cwd: app, encoding: 'utf8' })
      assert.equal(status, 0, stdout)
    })
  }
}
