// What is published to npm, and the library outside of a browser.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'

import WebSocket from 'ws'

import { Client, connect, version } from '../../client/switchboard.js'
import { ROOT, eventually, startCluster, startProxy } from './support/index.mjs'

let cluster, proxy
before(async () => {
  cluster = await startCluster(2)
  proxy = await startProxy(cluster.nodes, { inOrder: true })
})
after(async () => {
  await Promise.all([cluster, proxy].map((each) => each?.stop()))
})

test('the package has the module, its types, a README and the licence, and the version of the server', () => {
  const [packed] = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json'], { cwd: `${ROOT}client`, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }))
  assert.deepEqual(packed.files.map(({ path }) => path).sort(), ['LICENSE', 'README.md', 'dist/lite.js', 'dist/switchboard.js', 'package.json', 'react/index.d.ts', 'react/index.js', 'switchboard.d.ts'])
  const cargo = /^version = "(.*)"/m.exec(readFileSync(`${ROOT}Cargo.toml`, 'utf8'))[1]
  assert.deepEqual([packed.version, version], [cargo, cargo])
  const manifest = JSON.parse(readFileSync(`${ROOT}client/package.json`))
  assert.equal(Object.keys(manifest.exports['.'])[0], 'types')
  assert.equal(manifest.sideEffects, false)
  assert.equal(manifest.dependencies, undefined)
})

for (const transports of [['websocket'], ['sse'], ['poll']]) {
  test(`in Node.js by ${transports}: messages, presence, refusals, and a node that is killed`, async () => {
    const [a, b] = [`a-${transports}`, `b-${transports}`]
    const options = { WebSocket, transports }
    const alice = await connect(proxy.url, { ...options, name: a })
    const bob = await connect(proxy.url, { ...options, name: b })
    const [got, seen] = [[], []]
    bob.addEventListener('message', ({ name, message }) => got.push([name, message]))
    alice.addEventListener('presence', ({ users }) => seen.push(users))
    assert.equal(alice.transport, transports[0])
    await assert.rejects(alice.send('nobody', 1), { code: 'user_unavailable' })
    await assert.rejects(alice.login('again'), { code: 'already_logged_in' })
    await assert.rejects(alice.send(b, 'x'.repeat(70_000)), { code: 'too_large' })
    const other = new Client(proxy.url, options)
    await assert.rejects(other.login(a), { code: 'name_taken' })
    await assert.rejects(other.send(a, 1), { code: 'not_logged_in' })
    assert.equal(await other.login(`c-${transports}`), other)
    assert.deepEqual(await alice.watch([b, 'nobody']), { [b]: true, nobody: false })

    const { session } = alice
    const sent = Promise.all(Array.from({ length: 20 }, (_, i) => alice.send(b, i)))
    await cluster.nodes[0].kill()
    assert.ok((await sent).every((status) => status === 'delivered' || status === 'queued'))
    await eventually(() => got.length >= 20, 20_000)
    assert.deepEqual(got, Array.from({ length: 20 }, (_, i) => [a, i]))
    assert.equal(alice.session, session)
    other.close()
    bob.close()
    await eventually(() => seen.length, 15_000)
    assert.deepEqual(seen, [{ [b]: false }])
    alice.close()
    assert.equal(alice.state, 'closed')
    await assert.rejects(alice.send(b, 1), { code: 'not_logged_in' })
    cluster.nodes[0] = await cluster.nodes[0].restart()
  })
}

test('what is given up: a login that takes too long, and a client that is closed', async () => {
  const nowhere = await startProxy(cluster.nodes, { websocket: 'refuse', sse: 'refuse', poll: 'refuse' })
  await assert.rejects(connect(nowhere.url, { WebSocket, name: 'late', signal: AbortSignal.timeout(300) }), { name: 'TimeoutError' })
  const client = new Client(nowhere.url, { WebSocket })
  const login = client.login('closed')
  client.close()
  await assert.rejects(login, { code: 'closed' })
  await nowhere.stop()
})
