// Calls through a real relay, with the logins that nodes give: they open it while they are good, and no longer.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { startCoturn } from './support/coturn.mjs'
import { eventually, launchBrowser, openCaller, openPage, startFiles, startNode, startRedis, stateOf } from './support/index.mjs'

const SECRET = 'between-relay-and-nodes'

let redis, coturn, files, browser
before(async () => {
  ;[redis, coturn, files, browser] = await Promise.all([startRedis(), startCoturn({ secret: SECRET, args: ['--verbose'] }), startFiles(), launchBrowser()])
})
after(async () => {
  await browser?.close()
  await files?.stop()
  for (const each of [coturn, redis]) if (each?.running) await each.kill()
})

/** Nodes that know the relay, for as long as a test. */
async function startNodes(t, names, settings = {}) {
  settings = { 'ice.servers': coturn.urls.join(','), 'ice.turn_secret': SECRET, ...settings }
  const nodes = await Promise.all(names.map((id) => startNode({ redis, id, settings })))
  t.after(() => Promise.all(nodes.map((node) => node.kill())))
  return nodes
}

/** In the page: logs in with a bare WebSocket, and keeps what the server says of ICE servers. */
const login = ([url, name]) =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(url)
    window.told = []
    window.say = (message) => socket.send(JSON.stringify(message))
    socket.onopen = () => say({ type: 'login', name })
    socket.onerror = () => reject(new Error('no connection'))
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data)
      if (message.iceServers) told.push(message)
      if (message.type === 'login') return message.success ? resolve() : reject(new Error(data))
      window.heard?.(message)
    }
  })

/** In the page: a call that may use nothing but relays. */
const prepare = (peer) => {
  window.pc = new RTCPeerConnection({ iceServers: told.at(-1).iceServers, iceTransportPolicy: 'relay' })
  window.lines = []
  window.channel = pc.createDataChannel('chat', { negotiated: true, id: 0 })
  channel.onmessage = ({ data }) => lines.push(data)
  pc.onicecandidate = ({ candidate }) => candidate && say({ type: 'candidate', name: peer, candidate })
  window.heard = async ({ type, offer, answer, candidate }) => {
    if (type === 'candidate') await pc.addIceCandidate(candidate)
    if (type === 'answer') await pc.setRemoteDescription(answer)
    if (type === 'offer') {
      await pc.setRemoteDescription(offer)
      await pc.setLocalDescription()
      say({ type: 'answer', name: peer, answer: pc.localDescription })
    }
  }
}

/** In the page: the types of both ends of the pair that is used. */
const usedPair = async () => {
  const stats = await pc.getStats()
  const transport = [...stats.values()].find(({ type }) => type === 'transport')
  const pair = stats.get(transport?.selectedCandidatePairId)
  return pair && [stats.get(pair.localCandidateId).candidateType, stats.get(pair.remoteCandidateId).candidateType]
}

/** In the page: which relays these servers give us, and what they say if they do not. */
const gather = (iceServers) =>
  new Promise((resolve) => {
    const pc = new RTCPeerConnection({ iceServers, iceTransportPolicy: 'relay' })
    const found = { candidates: 0, errors: [] }
    pc.onicecandidate = ({ candidate }) => {
      if (candidate) return void (candidate.type === 'relay' && found.candidates++)
      pc.close()
      resolve(found)
    }
    pc.onicecandidateerror = ({ errorCode }) => found.errors.push(errorCode)
    pc.createDataChannel('gather')
    pc.setLocalDescription()
  })

test('two browsers on two nodes call each other through the relay alone', async (t) => {
  const [one, two] = await startNodes(t, ['one', 'two'])
  const pages = await Promise.all([one, two].map(() => openPage(browser, `${files.http}/blank`)))
  await Promise.all([pages[0].evaluate(login, [one.url, 'alice']), pages[1].evaluate(login, [two.url, 'bob'])])
  await Promise.all([pages[0].evaluate(prepare, 'bob'), pages[1].evaluate(prepare, 'alice')])
  await pages[0].evaluate(async () => {
    await pc.setLocalDescription()
    say({ type: 'offer', name: 'bob', offer: pc.localDescription })
  })
  for (const page of pages) {
    await eventually(() => page.evaluate(() => channel.readyState === 'open'), 20_000, 'the channel is open')
    assert.deepEqual(await page.evaluate(usedPair), ['relay', 'relay'])
    await page.evaluate(() => channel.send('through the relay'))
  }
  for (const page of pages) {
    await eventually(() => page.evaluate(() => lines.length))
    assert.deepEqual(await page.evaluate(() => lines), ['through the relay'])
    assert.deepEqual(page.errors, [])
  }
  // The relay has seen two users, and no name.
  const [first, second] = await Promise.all(pages.map((page) => page.evaluate(() => told[0].iceServers.at(-1).username)))
  assert.notEqual(first.split(':')[1], second.split(':')[1])
  for (const user of [first, second]) await eventually(() => coturn.output.includes(`user <${user}>`), 10_000, 'the relay knows its users')
  assert.ok(!/alice|bob/.test(coturn.output), 'and not their names')
})

test('a login that has run out is refused, and the one that was pushed meanwhile is not', async (t) => {
  const [node] = await startNodes(t, ['short'], { 'ice.turn_ttl': '4s', 'log.level': 'trace' })
  const page = await openPage(browser, `${files.http}/blank`)
  await page.evaluate(login, [node.url, 'carol'])
  const first = await page.evaluate(() => told[0])
  assert.equal(first.iceServersTtl, 4)
  const fresh = await page.evaluate(gather, first.iceServers)
  assert.ok(fresh.candidates > 0, JSON.stringify(fresh))

  const expiry = Number(first.iceServers.at(-1).username.split(':')[0])
  await eventually(() => Date.now() / 1000 > expiry + 1, 10_000, 'it has run out')
  const stale = await page.evaluate(gather, first.iceServers)
  assert.equal(stale.candidates, 0, JSON.stringify(stale))
  assert.ok(stale.errors.includes(401), JSON.stringify(stale))

  const last = await page.evaluate(() => told.at(-1))
  assert.equal(last.type, 'ice_servers')
  const renewed = await page.evaluate(gather, last.iceServers)
  assert.ok(renewed.candidates > 0, JSON.stringify(renewed))
  // Nobody prolongs a login: the password fits its own time only.
  const forged = structuredClone(first.iceServers)
  for (const server of forged) if (server.username) server.username = server.username.replace(expiry, expiry + 3600)
  assert.equal((await page.evaluate(gather, forged)).candidates, 0)

  // A log tells nobody how to use the relay.
  assert.match(node.output, /A user logged in/)
  const told = await page.evaluate(() => told)
  const secrets = [SECRET, ...told.flatMap(({ iceServers }) => iceServers.flatMap(({ credential }) => credential ?? []))]
  for (const secret of secrets) assert.ok(!node.output.includes(secret), `the log tells ${secret}`)
})

test('the library calls with what it was told last, over WebSockets and over HTTP', async (t) => {
  const [one, two] = await startNodes(t, ['one', 'two'], { 'ice.turn_ttl': '4s' })
  const options = { rtc: { iceTransportPolicy: 'relay' } }
  const [dora, emil] = await Promise.all([
    openCaller(browser, files, one.url, 'dora', { options }),
    openCaller(browser, files, two.url, 'emil', { options: { ...options, transports: ['sse'] } }),
  ])
  const expiry = (page) => page.evaluate(() => Number(client.iceServers.at(-1).username.split(':')[0]))
  const first = Math.max(...(await Promise.all([dora, emil].map(expiry))))
  await eventually(() => Date.now() / 1000 > first + 1, 10_000, 'what came with the login has run out')
  await dora.evaluate(() => page.dial('emil'))
  for (const [page, peer] of [[dora, 'emil'], [emil, 'dora']]) {
    await eventually(async () => (await stateOf(page, peer)) === 'connected', 20_000, `connected with ${peer}`)
    await page.evaluate((peer) => void (globalThis.pc = globalThis.page.calls[peer].pc), peer)
    assert.deepEqual(await page.evaluate(usedPair), ['relay', 'relay'])
    assert.deepEqual(page.errors, [])
  }
  await dora.evaluate(() => page.calls.emil.hangup())
  await eventually(() => emil.evaluate(() => page.ends.length))
})
