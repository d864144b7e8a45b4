// Redis loses its data while browsers call each other: what the client library does when it is told `missed`.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { eventually, launchBrowser, openPage, startCluster, startFiles, startRedis } from './support/index.mjs'
import { startWire } from './support/tcp.mjs'

let redis, wire, cluster, files, browser
before(async () => {
  redis = await startRedis()
  wire = await startWire(redis.port)
  // Nodes are not to know which Redis it is.
  const found = { url: `redis://127.0.0.1:${wire.port}` }
  ;[cluster, files, browser] = await Promise.all([startCluster(2, {}, found), startFiles(), launchBrowser()])
})
after(async () => {
  await browser?.close()
  await Promise.all([cluster, files].map((each) => each?.stop()))
  await wire?.stop()
  await redis?.kill()
})

/** A call is to be connected so long after the loss. */
const WITHIN = 15_000
/** After `presence.node_ttl` the nodes ask call peers whether they still have the call: by then a wrong leave has come. */
const ASKED = 7000

/** Ways to lose data. Each returns how, once what is to be known before is written. */
const LOSSES = {
  FLUSHALL: async () => async () => assert.equal(await redis.ask('FLUSHALL'), '+OK\r\n'),
  'kill -9 and an empty restart': async () => async () => {
    await redis.kill()
    redis = await redis.restart()
  },
  'the promotion of a replica that lags': async () => {
    const replica = await startRedis({ of: redis.port })
    await eventually(async () => (await replica.ask('INFO replication')).includes('master_link_status:up'))
    await replica.ask('REPLICAOF NO ONE')
    return async () => {
      wire.cut()
      await redis.kill()
      redis = replica
      wire.mend(replica.port)
    }
  },
}

/**
 * What is under way when the data is lost, and what the nodes can no longer deliver then: signals of these types do not reach the side that
 * waits for them. `rings`: the callee answers after the loss. `dials`: the call is placed at the moment of the loss. `media`: the callee
 * answers with a track, for which it makes an offer of its own at once.
 */
const SCENES = {
  'the offer is lost': { callee: ['offer', 'candidate'] },
  'it rings': { rings: true },
  'it is dialled': { dials: true },
  'the answer is lost': { caller: ['answer', 'candidate'] },
  'the answer and an offer after it are lost': { caller: ['answer', 'offer', 'candidate'], media: true },
  'the candidates are lost': { caller: ['candidate'], callee: ['candidate'] },
}

/** Runs in a page: clients that log in, each with a WebSocket that can lose what it hears. */
async function setUp({ url, names }) {
  const { Client } = await import('/client/switchboard.js')
  const people = (globalThis.people = {})
  for (const name of names) {
    const person = (people[name] = { loses: [], lost: [], missed: 0, leaves: 0, watches: new Set(), heard: [], news: [], ends: [] })
    class Lossy extends WebSocket {
      set onmessage(hear) {
        super.onmessage =
          hear &&
          ((event) => {
            const { type, missed } = JSON.parse(event.data)
            if (person.loses.includes(type)) return person.lost.push(type)
            if (missed) person.missed++
            if (type === 'leave') person.leaves++
            hear(event)
          })
      }
      send(text) {
        const { type, watch, id } = JSON.parse(text)
        if (type === 'presence' && watch) person.watches.add(id)
        super.send(text)
      }
    }
    const client = (person.client = new Client(url, { WebSocket: Lossy, transports: ['websocket'] }))
    client.addEventListener('message', ({ message }) => person.heard.push(message))
    client.addEventListener('presence', ({ users }) => person.news.push(users))
    const note = (call) => {
      person.call = call
      call.addEventListener('end', ({ reason }) => person.ends.push(reason))
      call.connected.then(() => (person.connectedAt = Date.now()), () => {})
      call.channel('chat').addEventListener('message', ({ data }) => person.heard.push(data))
    }
    person.dial = (other) => note(client.call(other))
    person.accept = () => person.call.accept({ stream: person.media && document.createElement('canvas').captureStream(1) })
    client.addEventListener('call', ({ call }) => (note(call), person.holds || person.accept()))
    await client.login(name)
  }
}

const crowd = async (node, names) => {
  const page = await openPage(browser, `${files.http}/blank`)
  await page.evaluate(setUp, { url: node.url, names })
  return page
}
const each = (pages, action, argument) => Promise.all(pages.map((page) => page.evaluate(action, argument)))

for (const [loss, prepare] of Object.entries(LOSSES)) {
  const calls = Object.entries(SCENES).flatMap(([what, scene]) =>
    // Which side gives way if both make an offer depends on the names.
    ['ab', 'ba'].map((letters, i) => {
      const name = (letter) => `${letter} ${what} ${i} ${loss}`
      return { what, ...scene, from: name(letters[0]), to: name(letters[1]) }
    }),
  )

  test(`${loss} while ${calls.length} calls are being set up: all connect, and nobody hears a leave`, async () => {
    const pages = await Promise.all([crowd(cluster.nodes[0], calls.map(({ from }) => from)), crowd(cluster.nodes[1], calls.map(({ to }) => to))])
    const [callers, callees] = pages
    await callers.evaluate((calls) => calls.forEach(({ from, caller = [] }) => (people[from].loses = caller)), calls)
    await callees.evaluate(
      (calls) => calls.forEach(({ to, callee = [], rings, media }) => Object.assign(people[to], { loses: callee, holds: rings, media })),
      calls,
    )
    const lose = await prepare()
    const dial = (calls) => callers.evaluate((calls) => calls.forEach(({ from, to }) => people[from].dial(to)), calls)
    await dial(calls.filter(({ dials }) => !dials))
    const before = calls.filter(({ dials }) => !dials)
    await eventually(() =>
      callers.evaluate(
        (calls) =>
          calls.every(({ from, caller = [] }) => {
            const { call, lost } = people[from]
            return call.state !== 'calling' && call.pc.iceGatheringState === 'complete' && caller.every((type) => lost.includes(type))
          }),
        before,
      ),
    )
    await eventually(() =>
      callees.evaluate(
        (calls) =>
          calls.every(({ to, callee = [], rings }) => {
            const { call, lost } = people[to]
            const isThere = callee.includes('offer') ? !call : rings || call?.pc.iceGatheringState === 'complete'
            return isThere && callee.every((type) => lost.includes(type))
          }),
        before,
      ),
    )
    const connected = () => each(pages, () => Object.values(people).filter(({ call }) => call?.state === 'connected').length)
    assert.deepEqual(await connected(), [0, 0], 'nothing is connected before the loss')
    await each(pages, () => Object.values(people).forEach((person) => (person.loses = [])))

    const lostAt = Date.now()
    await Promise.all([lose(), dial(calls.filter(({ dials }) => dials))])
    await callees.evaluate((calls) => calls.forEach(({ to, rings }) => rings && people[to].accept()), calls)
    await eventually(async () => (await connected()).every((count) => count === calls.length), WITHIN).catch(async (error) => {
      const states = await each(pages, () => Object.entries(people).map(([name, { call, ends }]) => [name, call?.state, call?.pc.signalingState, ...ends]))
      throw new Error(`not all are connected: ${JSON.stringify(states.flat().filter(([, state]) => state !== 'connected'))}`, { cause: error })
    })
    const at = await each(pages, () => Object.fromEntries(Object.entries(people).map(([name, { connectedAt }]) => [name, connectedAt])))
    for (const what of Object.keys(SCENES)) {
      const took = calls.filter((call) => call.what === what).map(({ from, to }) => Math.max(at[0][from], at[1][to]) - lostAt)
      console.log(`# ${loss}, ${what}: connected ${took.join(' and ')} ms later`)
    }
    await each(pages, () => Object.values(people).forEach(({ call }) => call.channel('chat').send('here')))
    await eventually(async () => (await each(pages, () => Object.values(people).every(({ heard }) => heard.includes('here')))).every(Boolean))
    await eventually(() => Date.now() - lostAt > ASKED)
    for (const page of pages) {
      const told = await page.evaluate(() => Object.values(people).map(({ missed, leaves, ends, call }) => [missed, leaves, ends.length, call.state]))
      for (const one of told) assert.deepEqual(one, [1, 0, 0, 'connected'], 'missed once, no leave, no end')
      assert.deepEqual(page.errors, [])
      assert.deepEqual(page.said.filter((words) => words.includes('negotiation')), [])
    }
    await Promise.all(pages.map((page) => page.context().close()))
  })

  test(`${loss}: watches are asked for again, and what is not acknowledged arrives once`, async () => {
    const [alice, bob, carol] = ['alice', 'bob', 'carol'].map((name) => `${name} ${loss}`)
    const pages = await Promise.all([crowd(cluster.nodes[0], [alice]), crowd(cluster.nodes[1], [bob])])
    const [one, two] = pages
    const watched = await one.evaluate(([alice, ...names]) => people[alice].client.watch(names), [alice, bob, carol])
    assert.deepEqual(watched, { [bob]: true, [carol]: false })
    await one.evaluate(
      ([alice, bob]) => {
        const person = people[alice]
        Object.assign(person, { said: 0, acked: new Set(), failed: [] })
        const say = () => {
          const n = person.said++
          const answered = () => (person.missed ? 'after' : 'before')
          person.client.send(bob, n).then(() => person.acked.add(`${n} ${answered()}`), ({ code }) => person.failed.push([n, code]))
        }
        person.talking = setInterval(say, 10)
      },
      [alice, bob],
    )
    const lose = await prepare()
    await eventually(() => two.evaluate((bob) => people[bob].heard.length > 20, bob))
    await lose()
    await eventually(async () => (await each(pages, () => Object.values(people).every(({ missed }) => missed === 1))).every(Boolean))
    const late = await crowd(cluster.nodes[1], [carol])
    await eventually(() => one.evaluate(([alice, carol]) => people[alice].news.some((users) => users[carol]), [alice, carol]))
    const { watches, news, said, acked, failed } = await one.evaluate(async (alice) => {
      const person = people[alice]
      clearInterval(person.talking)
      while (person.acked.size + person.failed.length < person.said) await new Promise((resolve) => setTimeout(resolve, 20))
      const { news, said, failed } = person
      return { watches: person.watches.size, news, said, failed, acked: [...person.acked] }
    }, alice)
    await eventually(() => two.evaluate(([bob, last]) => people[bob].heard.includes(last), [bob, said - 1]))
    const heard = await two.evaluate((bob) => people[bob].heard, bob)
    const after = acked.filter((words) => words.endsWith('after')).map((words) => Number.parseInt(words))
    console.log(`# ${loss}: ${said} said, ${heard.length} heard, ${after.length} acknowledged after the loss`)
    assert.deepEqual(failed, [])
    assert.equal(new Set(heard).size, heard.length, 'nothing came twice')
    assert.deepEqual(after.filter((n) => !heard.includes(n)), [], 'what was not acknowledged by then has arrived')
    assert.deepEqual(news, [{ [carol]: true }], 'nobody seemed to be gone')
    assert.equal(watches, 2, 'the first time, and after the loss')
    await Promise.all([...pages, late].map((page) => page.context().close()))
  })
}
