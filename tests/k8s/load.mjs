// Pairs of clients of the library that send each other numbered messages until standard input ends; then what was
// lost, repeated, refused or cut. Fails if anything was: node load.mjs BASE PAIRS EVERY_MS

import { setTimeout as sleep } from 'node:timers/promises'

const [base, pairs, every] = process.argv.slice(2)
// As a node hands it out.
const library = await (await fetch(`${base}/client/switchboard.js`)).text()
const { Session } = await import(`data:text/javascript,${encodeURIComponent(library)}`)

const people = new Map()
const seen = { sent: 0, received: 0, repeated: 0, disordered: 0, refused: {}, closed: {} }
const delays = []
const count = (counts, key) => (counts[key] = (counts[key] ?? 0) + 1)

async function enter(name, other) {
  const me = { other, next: 0, got: new Set(), last: -1, outcomes: new Map(), sessions: new Set(), nodes: new Set(), longest: 0 }
  const debug = ({ what }) => what === 'missed' && (me.missed = true)
  const client = new Session(base, { name, transports: ['websocket'], debug })
  Object.assign(me, { client })
  people.set(name, me)
  client.addEventListener('state', ({ state, error }) => {
    if (state === 'online') {
      me.sessions.add(client.session)
      me.nodes.add(client.node)
      if (me.cutAt) me.longest = Math.max(me.longest, Date.now() - me.cutAt)
      me.cutAt = undefined
    }
    if (state === 'reconnecting') me.cutAt ??= Date.now()
    if (state === 'closed') count(seen.closed, error?.code)
  })
  client.addEventListener('message', ({ message: { number, at } }) => {
    seen.received++
    delays.push(Date.now() - at)
    if (me.got.has(number)) seen.repeated++
    else if (number < me.last) seen.disordered++
    me.got.add(number)
    me.last = Math.max(me.last, number)
  })
  await client.connect()
}

const under_way = new Set()
function speak(me) {
  const number = me.next++
  seen.sent++
  const sent = me.client.send(me.other, { number, at: Date.now() }).then(
    () => me.outcomes.set(number, 'acknowledged'),
    ({ code }) => (me.outcomes.set(number, 'refused'), count(seen.refused, code)),
  )
  under_way.add(sent)
  sent.finally(() => under_way.delete(sent))
}

const entering = []
for (let pair = 0; pair < pairs; pair++) {
  const [a, b] = ['a', 'b'].map((side) => `${side}${pair}-${process.pid}`)
  entering.push(enter(a, b), enter(b, a))
  await sleep(5)
}
await Promise.all(entering)
console.log(`${people.size} users are connected`)

let stops = false
process.stdin.on('end', () => (stops = true)).resume()
while (!stops) {
  for (const me of people.values()) speak(me)
  await sleep(Number(every))
}
await Promise.race([Promise.allSettled(under_way), sleep(30_000)])
await sleep(1000)

// What an emptied Redis loses is lost too, but its receiver is told that something may be.
const lost = { silently: 0, and_told: 0 }
for (const me of people.values()) {
  const from = people.get(me.other)
  for (let number = 0; number < from.next; number++)
    if (!me.got.has(number) && from.outcomes.get(number) === 'acknowledged') lost[me.missed ? 'and_told' : 'silently']++
}
delays.sort((one, other) => one - other)
const all = [...people.values()]
const result = {
  ...seen,
  lost,
  unanswered: under_way.size,
  longest_cut_ms: Math.max(...all.map(({ longest, cutAt }) => (cutAt ? Date.now() - cutAt : longest))),
  moved: all.filter(({ nodes }) => nodes.size > 1).length,
  told_missed: all.filter(({ missed }) => missed).length,
  sessions_lost: all.filter(({ sessions }) => sessions.size > 1).length,
  delay_ms: { p50: delays[Math.floor(delays.length * 0.5)], p99: delays[Math.floor(delays.length * 0.99)], max: delays.at(-1) },
}
console.log(JSON.stringify(result))
const { repeated, disordered, unanswered, sessions_lost } = result
const troubles = [lost.silently, repeated, disordered, unanswered, sessions_lost, ...Object.values(seen.refused), ...Object.values(seen.closed)]
process.exit(troubles.some((trouble) => trouble > 0) ? 1 : 0)
