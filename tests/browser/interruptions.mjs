// Prints how long media and signalling are interrupted by what happens in the field, with this client library and
// another edition.
//
// node tests/browser/interruptions.mjs [CLIENT…]     folders of editions (client); `make interruptions`; ONLY=words
//
// Two browsers are in a video call, and send each other a message every 100 ms. One of them lives in a network namespace
// behind a network that fails (as root; without, rows that cut media are left out). After a link was down, the TCP
// connections that there were stay mute. A message's wait is the time from `send()` until it was heard.

import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** How long after its end an interruption may last. */
const PATIENCE = 60_000
/** The last messages may be under way when they are counted. */
const UNDER_WAY = 3

const editions = process.argv.length > 2 ? process.argv.slice(2) : ['client']
// Which edition pages are given is read when the support is loaded: one process for each.
if (editions.length > 1) {
  const { spawnSync } = await import('node:child_process')
  for (const folder of editions) spawnSync(process.execPath, [process.argv[1], folder], { stdio: 'inherit' })
  process.exit(0)
}
process.env.CLIENT = resolve(editions[0])
const { begunBy, draws, eventually, launchBrowser, makeNamespace, openCaller, startCluster, startFiles, startNetwork, stateOf } =
  await import('./support/index.mjs')

const space = makeNamespace()

const down = (seconds) => [
  `link down ${seconds} s`,
  async ({ network }) => {
    space.use()
    await sleep(seconds * 1000)
    network.strand()
    space.use(0)
  },
  { cutsMedia: true },
]
const mute = (seconds) => [
  `server out of reach ${seconds} s`,
  async ({ network }) => {
    network.rules.silent = true
    await sleep(seconds * 1000)
    network.strand()
    network.rules.silent = false
  },
]
// Playwright's pages are always visible, and Chromium freezes only those that are not: so the page is told as a frozen
// one is, and its JavaScript is stopped.
const frozen = async ({ roams }) => {
  const devtools = await roams.context().newCDPSession(roams)
  await devtools.send('Debugger.enable')
  await roams.evaluate(() => document.dispatchEvent(new Event('freeze')))
  await devtools.send('Debugger.pause')
  await sleep(25_000)
  await devtools.send('Debugger.resume')
  await devtools.send('Debugger.disable')
  await roams.evaluate(() => document.dispatchEvent(new Event('resume')))
}
const asleep = async ({ roamer }) => {
  roamer.signal('SIGSTOP')
  await sleep(30_000)
  roamer.signal('SIGCONT')
}
const SCENARIOS = [
  down(3),
  down(20),
  down(40),
  mute(20),
  mute(40),
  ['switch of network', async () => space.use(1), { cutsMedia: true }],
  ['node killed', async ({ one, door, two }) => (await one.kill(), (door.port = two.port))],
  [
    'node stopped 20 s',
    async ({ network, one, door, two }) => {
      one.signal('SIGSTOP')
      network.strand()
      door.port = two.port
      await sleep(20_000)
      one.signal('SIGCONT')
    },
  ],
  [
    'host without power',
    async ({ network, one, door, two }) => {
      network.strand()
      await one.kill()
      door.port = two.port
    },
  ],
  ['page frozen 25 s', frozen, { isBlind: true }],
  ['laptop asleep 30 s', asleep],
  [
    'back/forward cache 20 s, no call',
    async ({ roams, files }) => {
      await roams.goto(`${files.http}/blank?elsewhere`)
      await sleep(20_000)
      await roams.goBack({ waitUntil: 'commit' })
    },
    { hasCall: false },
  ],
]

/** In a page: says something to somebody every 100 ms, and notes how long what is heard took. */
const talks = (page, to) =>
  page.evaluate((to) => {
    const now = () => performance.timeOrigin + performance.now()
    const talk = (globalThis.talk = { sent: 0, heard: [], refused: 0, longest: 0, seen: [] })
    client.addEventListener('message', ({ message: [n, at] }) => {
      talk.heard.push(n)
      talk.longest = Math.max(talk.longest, now() - at)
    })
    client.addEventListener('presence', ({ users }) => talk.seen.push(users))
    client.watch([to])
    talk.timer = setInterval(() => client.send(to, [talk.sent++, now()]).catch(() => talk.refused++), 100)
  }, to)

async function inCall(pages, names) {
  await Promise.all(pages.map(draws))
  await pages[0].evaluate((to) => page.dial(to), names[1])
  const states = () => Promise.all(pages.map((page, i) => stateOf(page, names[1 - i])))
  await eventually(async () => (await states()).every((state) => state === 'connected'), 30_000)
  const hasVideo = (page, i) => page.evaluate((name) => Boolean(page.calls[name].video), names[1 - i])
  await eventually(async () => (await Promise.all(pages.map(hasVideo))).every(Boolean))
  await Promise.all(pages.map((page, i) => page.evaluate((name) => page.watch(name), names[1 - i])))
}

/** What is sent from now on arrives, and media flows; not for ever, if it never does. */
async function goesOn(pages, { hasCall = true }) {
  const sent = await Promise.all(pages.map((page) => page.evaluate(() => talk.sent)))
  const isHeard = (page, i) => page.evaluate((n) => talk.heard.at(-1) > n, sent[1 - i])
  const flows = (page) => page.evaluate(() => performance.now() - page.seen.last < 300)
  const isWell = async () =>
    (await Promise.all(pages.map(isHeard))).every(Boolean) &&
    (!hasCall || (await Promise.all(pages.map(flows))).every(Boolean))
  await eventually(isWell, PATIENCE).catch(() => {})
  await sleep(500)
}

async function measure(happens, { hasCall = true, isBlind = false }) {
  const host = space?.host ?? '127.0.0.1'
  space?.use(0)
  const [cluster, files] = await Promise.all([startCluster(2), startFiles({}, { host })])
  const [one, two] = cluster.nodes
  const door = { port: one.port }
  const network = await startNetwork(door, {}, { host })
  // Playwright turns the back/forward cache off.
  const options = { ignoreDefaultArgs: ['--disable-back-forward-cache'], flags: ['--enable-features=BackForwardCache'] }
  const stayer = await launchBrowser()
  const roamer = await begunBy(() => (space ? space.launch(options) : launchBrowser(options)))
  await sleep(2500)
  const names = ['roams', 'stays']
  const answer = 'accept'
  const local = await startFiles()
  const roams = await openCaller(roamer.made, files, network.url, names[0], { answer })
  const stays = await openCaller(stayer, local, two.url, names[1], { answer })
  const pages = [roams, stays]
  if (hasCall) await inCall(pages, names)
  await Promise.all(pages.map((page, i) => talks(page, names[1 - i])))
  await sleep(5000)
  await Promise.all(pages.map((page) => page.evaluate(() => (talk.longest = page.seen ? (page.seen.gap = 0) : 0))))
  await happens({ network, one, two, door, roams, files, roamer })
  await goesOn(pages, { hasCall })
  const [there, back] = await Promise.all([stays, roams].map((page) => page.evaluate(() => talk)))
  const gaps = await Promise.all(pages.map((page) => page.evaluate(() => page.seen?.gap)))
  const ends = await Promise.all(pages.map((page) => page.evaluate(() => page.ends.map(([, reason]) => reason))))
  await Promise.all([roamer.made.close(), stayer.close()])
  await Promise.all([network, files, local, cluster].map((each) => each.stop()))
  const seconds = (ms) => (ms === undefined ? '–' : (ms / 1000).toFixed(1))
  const missed = (from, to) => Math.max(0, from.sent - from.refused - new Set(to.heard).size - UNDER_WAY)
  return [
    hasCall ? `${isBlind ? '–' : seconds(gaps[0])} / ${seconds(gaps[1])} s` : '–',
    `${seconds(there.longest)} / ${seconds(back.longest)} s`,
    there.refused + back.refused,
    missed(back, there) + missed(there, back),
    !hasCall ? '–' : ends.flat().length ? `ended: ${[...new Set(ends.flat())]}` : 'went on',
    there.seen.length || ends[1].length ? 'yes' : 'no',
  ]
}

console.log(`\n${editions[0]}\n`)
console.log('| what | no media, who roams / who stays | longest wait of a message, there / back | refused | lost | call | peer heard |')
console.log('| --- | --- | --- | --- | --- | --- | --- |')
for (const [name, happens, about = {}] of SCENARIOS) {
  if ((about.cutsMedia && !space) || (process.env.ONLY && !name.includes(process.env.ONLY))) continue
  const result = await measure(happens, about).catch((error) => [`not measured: ${error.message}`])
  console.log(`| ${[name, ...result].join(' | ')} |`)
}
space?.remove()
process.exit(0)
