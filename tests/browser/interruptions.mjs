// Prints how long signalling is interrupted by what happens in the field, with this client library and another edition.
//
// node tests/browser/interruptions.mjs [CLIENT…]     folders of editions (client); `make interruptions`
//
// Two users send each other a message every 100 ms. One of them is behind a network that fails. Its longest wait is the
// time that a message took to arrive, which is about the gap that a call would see in its signalling. After a link was
// down, the connections that there were stay mute.

import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import WebSocket from 'ws'

import { CLIENT, eventually, startCluster, startNetwork } from './support/index.mjs'

const EVERY = 100
/** How long after its end an interruption may last. */
const PATIENCE = 60_000

const down = (seconds) => [
  `link down ${seconds} s`,
  async ({ network }) => {
    network.rules.silent = true
    await sleep(seconds * 1000)
    // What was lost on the way is not repeated: the connections that there were stay mute.
    network.strand()
    network.rules.silent = false
  },
]
const SCENARIOS = [
  down(3),
  down(20),
  down(40),
  ['another network at once', async ({ network }) => network.strand()],
  ['node stopped 20 s', async ({ one }) => (one.signal('SIGSTOP'), await sleep(20_000), one.signal('SIGCONT'))],
  ['node killed', async ({ one, door, two }) => (await one.kill(), (door.port = two.port))],
  [
    'host without power',
    async ({ network, one, door, two }) => {
      network.strand()
      await one.kill()
      door.port = two.port
    },
  ],
]

/** Sends until it is stopped; the longest time that a message took, and how many never arrived. */
function talk(from, to) {
  const sentAt = []
  const gaps = []
  let longest = 0
  to.addEventListener('message', ({ message }) => {
    gaps[message] = performance.now() - sentAt[message]
    longest = Math.max(longest, gaps[message])
  })
  const timer = setInterval(() => {
    sentAt.push(performance.now())
    from.send(to.name, sentAt.length - 1).catch(() => {})
  }, EVERY)
  return {
    /** Waits until what is sent from now on arrives. */
    async goesOn() {
      const next = sentAt.length
      await eventually(() => gaps[next] !== undefined, PATIENCE).catch(() => {})
    },
    stop() {
      clearInterval(timer)
      return { longest, lost: sentAt.length - gaps.filter((gap) => gap !== undefined).length }
    },
  }
}

async function measure(folder, name, happens) {
  const { Client } = await import(resolve(folder, 'switchboard.js'))
  const cluster = await startCluster(2)
  const [one, two] = cluster.nodes
  const door = { port: one.port }
  const network = await startNetwork(door)
  const clients = [network.url, two.url].map(
    (url, i) => new Client(url, { WebSocket, name: ['roams', 'stays'][i], transports: ['websocket'] }),
  )
  const [roams, stays] = clients
  await Promise.all(clients.map((client) => client.connect()))
  const heard = []
  stays.addEventListener('presence', ({ users }) => heard.push(users))
  await stays.watch(['roams'])
  const { session } = roams
  const ways = [talk(roams, stays), talk(stays, roams)]
  await Promise.all(ways.map((way) => way.goesOn()))
  await happens({ network, one, two, door })
  await Promise.all(ways.map((way) => way.goesOn()))
  await sleep(500)
  const [there, back] = ways.map((way) => way.stop())
  const seconds = (ms) => (ms / 1000).toFixed(1)
  const fate = roams.session === session ? 'kept' : 'lost'
  clients.forEach((client) => client.close())
  await network.stop()
  await cluster.stop()
  return `${name} | ${seconds(there.longest)} / ${seconds(back.longest)} s | ${fate} | ${there.lost + back.lost} | ${heard.length ? 'yes' : 'no'}`
}

const editions = process.argv.length > 2 ? process.argv.slice(2) : [CLIENT]
for (const folder of editions) {
  console.log(`\n${folder}\n\n| what | longest wait, there / back | session | lost | the other heard of it |`)
  console.log('| --- | --- | --- | --- | --- |')
  for (const [name, happens] of SCENARIOS) console.log(`| ${await measure(folder, name, happens)} |`)
}
process.exit(0)
