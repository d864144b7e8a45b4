// Both hang up and call again, over a network that takes its time.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { eventually, launchBrowser, openCaller, startCluster, startFiles, startNetwork } from './support/index.mjs'

const ROUNDS = Number(process.env.REDIALS ?? 60)

let cluster, files, browser, networks
/** Milliseconds that the network takes at most, each way. */
let most = 200
before(async () => {
  ;[cluster, files, browser] = await Promise.all([startCluster(2), startFiles(), launchBrowser()])
  const delay = () => Math.random() * most
  networks = await Promise.all(cluster.nodes.map((node) => startNetwork(node, { delay })))
})
after(async () => {
  await browser?.close()
  await Promise.all([...(networks ?? []), cluster, files].map((each) => each?.stop()))
})

test(`both hang up and redial ${ROUNDS} times, with 0 to 200 ms each way: both sides agree, every time`, async () => {
  const [alice, bob] = await Promise.all([
    openCaller(browser, files, networks[0].url, 'alice'),
    openCaller(browser, files, networks[1].url, 'bob'),
  ])
  const redial = (page, other, at, pauses) =>
    page.evaluate(
      async ([other, at, pauses]) => {
        const { page } = globalThis
        const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
        while (Date.now() < at); // As exactly as two processes can.
        for (const [before, between] of pauses) {
          await sleep(before)
          client.calls.get(other)?.hangup()
          await sleep(between)
          if (!client.calls.get(other)) await page.dial(other)
        }
      },
      [other, at, pauses],
    )
  const look = (page, other) =>
    page.evaluate((other) => {
      const call = client.calls.get(other)
      return call ? { state: call.state, pair: [call.leg, call.peer] } : { state: 'none', pair: [] }
    }, other)
  const both = () => Promise.all([look(alice, 'bob'), look(bob, 'alice')])
  const isSettled = ([one, other]) =>
    (one.state === 'none' && other.state === 'none') ||
    (one.state === 'connected' &&
      other.state === 'connected' &&
      one.pair[0] === other.pair[1] &&
      one.pair[1] === other.pair[0])
  await alice.evaluate(() => page.dial('bob'))
  await eventually(async () => isSettled(await both()))
  // A Chromium page may have 500 peer connections that nobody has cleared away, and it is in no hurry.
  const collectors = await Promise.all([alice, bob].map((page) => page.context().newCDPSession(page)))
  let connected = 0
  const stuck = []
  for (let round = 0; round < ROUNDS; round++) {
    if (round % 50 === 49) await Promise.all(collectors.map((one) => one.send('HeapProfiler.collectGarbage')))
    // In the same moment, or nearly; over a fast network or a slow one.
    most = [0, 200, 200, 40][round % 4]
    const pauses = () => (round % 2 ? [0, 0] : [Math.random() * 200, Math.random() < 0.5 ? 0 : Math.random() * 200])
    // Once, or again before the call is there: then candidates and answers of the one before are under way.
    const times = Array.from({ length: 1 + (round % 3) })
    const at = Date.now() + 100
    await Promise.all([redial(alice, 'bob', at, times.map(pauses)), redial(bob, 'alice', at, times.map(pauses))])
    // Nothing is under way any more when both have been the same for longer than the network takes, twice.
    let since
    const settled = async () => {
      const states = await both()
      if (!isSettled(states)) return void (since = undefined)
      since ??= performance.now()
      return performance.now() - since > 900 && states
    }
    const states = await eventually(settled, 10_000).catch(both)
    if (!isSettled(states)) {
      stuck.push(JSON.stringify(states))
      await Promise.all([alice, bob].map((page) => page.evaluate(() => client.calls.forEach((call) => call.hangup()))))
      await eventually(async () => (await both()).every(({ state }) => state === 'none'), 10_000).catch(() => {})
    } else if (states[0].state === 'connected') connected++
  }
  console.log(
    `# ${ROUNDS} redials: ${connected} connected, ${ROUNDS - connected - stuck.length} both ended, ${stuck.length} do not agree`,
  )
  assert.deepEqual(stuck, [])
  assert.deepEqual([...alice.errors, ...bob.errors], [])
})

test('what nobody can accept does not ring, nobody calls themselves, and what rings ends', async () => {
  const [carol, dave] = await Promise.all([
    openCaller(browser, files, cluster.nodes[0].url, 'carol'),
    openCaller(browser, files, cluster.nodes[1].url, 'dave', { answer: 'hold' }),
  ])
  // Another make of client that says nothing sensible.
  await carol.evaluate(async () => {
    const socket = new WebSocket(page.url)
    const say = (message) => socket.send(JSON.stringify(message))
    await new Promise((resolve) => (socket.onopen = resolve))
    say({ type: 'login', name: 'odd' })
    for (const offer of [null, 1, 'x', {}, { sdp: null }]) say({ type: 'offer', name: 'dave', offer })
    await new Promise(
      (resolve) =>
        (socket.onmessage = ({ data }) => data.includes('pong') && resolve(say({ type: 'ping' }))) &&
        say({ type: 'ping' }),
    )
  })
  await carol.evaluate(() => client.send('dave', 'after'))
  assert.deepEqual(await dave.evaluate(() => Object.keys(page.calls)), [])
  const code = await carol.evaluate(() => {
    try {
      client.call('carol')
    } catch (error) {
      return error.code
    }
  })
  assert.equal(code, 'yourself')
  const reason = await carol.evaluate(
    () => page.client.call('dave', { ringTimeout: 500, data: { subject: 'lunch' } }).ended,
  )
  assert.equal(reason, 'timeout')
  await eventually(() => dave.evaluate(() => page.ends.length === 1))
  assert.deepEqual(await dave.evaluate(() => [page.calls.carol.data, page.ends]), [
    { subject: 'lunch' },
    [['carol', 'timeout', false]],
  ])
})
