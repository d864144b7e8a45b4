// The doctor, in a browser, before houses that are really broken: it names the cause that was built in, and that one alone.

import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { after, afterEach, before, describe, test } from 'node:test'

import { startCoturn } from './support/coturn.mjs'
import { eventually, freePort, launchBrowser, openPage, startNode, startProxy, startRedis } from './support/index.mjs'
import { startWire } from './support/tcp.mjs'

const SECRET = 'of the relay'
/** What the doctor may take: it watches quiet connections for 30 s. */
const WITHIN = 90_000
/** For houses whose fault is elsewhere: quiet connections are watched for 2 s. */
const SHORT = 2

let browser, turn
const built = []
before(async () => {
  ;[browser, turn] = await Promise.all([launchBrowser(), startCoturn({ secret: SECRET, tls: true })])
})
after(async () => {
  await Promise.all([browser?.close(), turn?.kill()])
})
afterEach(async () => {
  for (const part of built.splice(0).reverse()) await (part.stop ?? part.kill ?? part.close).call(part)
})
const build = async (part) => {
  built.push(await part)
  return built.at(-1)
}

/** The relay, without TLS: browsers do not trust its certificate. */
const withTurn = (more = {}) => ({ 'ice.servers': turn.urls.slice(0, 3).join(','), 'ice.turn_secret': SECRET, ...more })
const withTls = () => withTurn({ 'ice.servers': turn.urls.join(',') })

/** Two nodes and their Redis. */
async function house(settings = withTurn()) {
  const redis = await build(startRedis())
  const nodes = await Promise.all(['one', 'two'].map((id) => startNode({ redis, id, settings })))
  built.push(...nodes)
  return { redis, nodes }
}

/** What the doctor says of what is at that address. */
async function examine(http, { watch, browser: other = browser } = {}) {
  const page = await openPage(other, `${http}/doctor${watch ? `?watch=${watch}` : ''}`)
  try {
    await page.click('#again')
    await page.waitForSelector('body[data-done]', { timeout: WITHIN })
    const { result, facts } = await page.evaluate(() => window.doctor)
    const text = await page.inputValue('#text')
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write'])
    await page.click('#copy')
    await eventually(async () => (await page.textContent('#copied')) === 'Copied.')
    const copied = await page.evaluate(() => navigator.clipboard.readText())
    assert.deepEqual(page.errors, [])
    return { ...result, facts, text, copied, codes: result.causes.filter((cause) => cause.weight !== 'note').map((cause) => cause.code) }
  } finally {
    await page.context().close()
  }
}

/** The one cause, in words that name the setting or the part that is to be looked at. */
function named(verdict, code, words) {
  assert.deepEqual(verdict.codes, [code], verdict.text)
  assert.match(verdict.causes[0].todo, words)
  assert.ok(verdict.text.includes(`[${code}]`))
}

describe('a house that is well', () => {
  test('two nodes behind a proxy that is good, and a relay: all well, and every part was tried', async () => {
    const { nodes } = await house(withTls())
    const proxy = await build(startProxy(nodes))
    // The relay's certificate is of its own making.
    const trusting = await build(launchBrowser({ flags: ['--ignore-certificate-errors'] }))
    const verdict = await examine(proxy.http, { browser: trusting })
    assert.deepEqual([verdict.overall, verdict.causes], ['well', []], verdict.text)
    const tried = verdict.checks.map((check) => check.id.split(':')[0])
    for (const part of ['page', 'whoami', 'websocket', 'sse', 'poll', 'login', 'signal', 'ice', 'relay', 'call', 'idle']) assert.ok(tried.includes(part), `${part} in ${tried}`)
    assert.ok(verdict.checks.every((check) => check.state === 'ok'), verdict.text)
    assert.deepEqual(verdict.facts.ice.map(({ kind, transport }) => `${kind} ${transport}`), ['stun udp', 'turn udp', 'turn tcp', 'turn tls'])
    const [there, back] = verdict.facts.signals
    assert.ok(there.from !== there.to && there.from === back.to, 'signals went from node to node')
    assert.ok(verdict.facts.call.frames >= 3)
    assert.match(verdict.text, /all well/)
  })

  test('one node alone, without a relay: well, and it says what could not be tried', async () => {
    const node = await build(startNode())
    const verdict = await examine(node.http, { watch: SHORT })
    assert.equal(verdict.overall, 'well', verdict.text)
    assert.deepEqual(verdict.causes.map((cause) => cause.code).sort(), ['no_ice_servers', 'one_node'])
    assert.equal(verdict.copied, verdict.text, 'what is copied is the text')
  })
})

describe('broken houses', () => {
  test('a proxy that lets no WebSocket through', async () => {
    const { nodes } = await house()
    const proxy = await build(startProxy(nodes, { websocket: 'refuse' }))
    // Longer, for the streams that are watched take connections of which a browser has six.
    const verdict = await examine(proxy.http, { watch: 10 })
    named(verdict, 'websocket_blocked', /Upgrade/)
    assert.ok(verdict.facts.logins.every((login) => login.door === 'sse' && login.ok), 'it went on by HTTP')
    assert.ok(verdict.facts.call.connected)
  })

  test('a proxy that opens WebSockets and passes nothing on', async () => {
    const { nodes } = await house()
    const proxy = await build(startProxy(nodes, { websocket: 'mute' }))
    named(await examine(proxy.http, { watch: SHORT }), 'websocket_mute', /proxy|antivirus/)
  })

  test('a proxy that holds event streams back', async () => {
    const { nodes } = await house()
    const proxy = await build(startProxy(nodes, { sse: 'buffer' }))
    named(await examine(proxy.http, { watch: SHORT }), 'sse_buffered', /proxy_buffering off/)
  })

  test('a proxy that cuts what is quiet for three seconds', async () => {
    const { nodes } = await house()
    const proxy = await build(startWire(nodes[0].port, { idle: 3000 }))
    const verdict = await examine(proxy.http)
    named(verdict, 'idle_cut', /session\.ping_every/)
    // The page's clock starts when it has heard of the connection, the proxy's with its last byte.
    const seconds = Number(/([\d.]+) s/.exec(verdict.causes[0].title)[1])
    assert.ok(seconds > 2.5 && seconds < 4, verdict.causes[0].title)
  })

  test('Redis away', async () => {
    const { nodes, redis } = await house()
    const proxy = await build(startProxy(nodes))
    await redis.kill()
    await eventually(async () => !(await fetch(`${nodes[0].admin}/readyz`)).ok && !(await fetch(`${nodes[1].admin}/readyz`)).ok)
    named(await examine(proxy.http, { watch: SHORT }), 'redis_away', /redis\.url/)
  })

  test('one of two nodes cut off from Redis', async () => {
    const redis = await build(startRedis())
    const wire = await build(startWire(redis.port))
    const one = await build(startNode({ redis, id: 'one', settings: withTurn() }))
    const two = await build(startNode({ redis: { url: `redis://127.0.0.1:${wire.port}` }, id: 'two', settings: withTurn() }))
    const proxy = await build(startProxy([one, two]))
    wire.cut()
    await eventually(async () => !(await fetch(`${two.admin}/readyz`)).ok)
    const verdict = await examine(proxy.http, { watch: SHORT })
    named(verdict, 'node_cut_off', /readyz/)
    assert.match(verdict.causes[0].title, /two\./)
  })

  test('two nodes, each with a Redis of its own', async () => {
    const nodes = []
    for (const id of ['one', 'two']) nodes.push(await build(startNode({ redis: await build(startRedis()), id, settings: withTurn() })))
    const proxy = await build(startProxy(nodes))
    named(await examine(proxy.http, { watch: SHORT }), 'nodes_apart', /redis\.prefix/)
  })

  test('an Origin that is not allowed', async () => {
    const { nodes } = await house(withTurn({ 'limits.origins': '["https://app.example.org"]' }))
    named(await examine(nodes[0].http, { watch: SHORT }), 'origin_refused', /limits\.origins/)
  })

  test('all the world behind one address, which may have one connection', async () => {
    const { nodes } = await house(withTurn({ 'limits.connections_per_ip': '1' }))
    const proxy = await build(startProxy(nodes.slice(0, 1)))
    named(await examine(proxy.http, { watch: SHORT }), 'too_many_connections', /limits\.connections_per_ip/)
  })

  test('a relay with another secret', async () => {
    const { nodes } = await house(withTurn({ 'ice.turn_secret': 'mistyped' }))
    const proxy = await build(startProxy(nodes))
    named(await examine(proxy.http, { watch: SHORT }), 'turn_credentials', /static-auth-secret/)
  })

  test('a login for the relay that has run out, written into the configuration', async () => {
    const username = `${Math.floor(Date.now() / 1000) - 7200}:somebody`
    const credential = createHmac('sha1', SECRET).update(username).digest('base64')
    const servers = [{ urls: [`stun:127.0.0.1:${turn.port}`] }, { urls: [`turn:127.0.0.1:${turn.port}?transport=udp`], username, credential }]
    const { nodes } = await house({ 'ice.servers': JSON.stringify(servers) })
    const proxy = await build(startProxy(nodes))
    const verdict = await examine(proxy.http, { watch: SHORT })
    named(verdict, 'turn_expired', /ice\.turn_secret/)
    assert.ok(!verdict.text.includes(credential) && !verdict.text.includes(username), 'no credential in what is pasted elsewhere')
  })

  test('a relay by TLS with a certificate that no browser trusts', async () => {
    const { nodes } = await house(withTls())
    const proxy = await build(startProxy(nodes))
    named(await examine(proxy.http, { watch: SHORT }), 'turn_tls', /certificate/)
  })

  test('a relay whose port is closed', async () => {
    const closed = await freePort()
    const servers = JSON.stringify([`stun:127.0.0.1:${turn.port}`, `turn:127.0.0.1:${closed}?transport=udp`, `turn:127.0.0.1:${closed}?transport=tcp`])
    const { nodes } = await house(withTurn({ 'ice.servers': servers }))
    const proxy = await build(startProxy(nodes))
    named(await examine(proxy.http, { watch: SHORT }), 'turn_unreachable', /firewall/)
  })
})
