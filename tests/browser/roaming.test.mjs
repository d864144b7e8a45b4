// A browser that changes networks: it lives in a network namespace with two ways out, of which one, both or none work.

import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import {
  EXECUTABLE,
  eventually,
  launchBrowser,
  openCaller,
  startCluster,
  startFiles,
  startNetwork,
  stateOf,
} from './support/index.mjs'

const ip = (...args) => execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] })
const ID = process.pid % 10_000
const SPACE = `sbroam${ID}`
/** Two links between this host and the namespace; `HERE` is an address of this host that both lead to. */
const LINKS = [
  { name: `sbr${ID}a`, subnet: '10.213.7' },
  { name: `sbr${ID}b`, subnet: '10.213.8' },
]
const HERE = '10.213.9.1'
const isPossible = process.getuid?.() === 0 && spawnSync('ip', ['netns', 'add', SPACE]).status === 0
const skip = !isPossible && 'it takes root and network namespaces'

const inside = (...args) => ip('-n', SPACE, ...args)
/** Which of the links work from now on. */
function use(...indices) {
  LINKS.forEach(({ name }, i) => inside('link', 'set', `${name}n`, indices.includes(i) ? 'up' : 'down'))
  for (const i of indices) inside('route', 'replace', 'default', 'via', `${LINKS[i].subnet}.1`)
}

let cluster, files, networks, browser, roaming, directory
before(async () => {
  if (!isPossible) return
  for (const { name, subnet } of LINKS) {
    ip('link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}n`, 'netns', SPACE)
    ip('addr', 'add', `${subnet}.1/24`, 'dev', name)
    ip('link', 'set', name, 'up')
    inside('addr', 'add', `${subnet}.2/24`, 'dev', `${name}n`)
  }
  ip('addr', 'add', `${HERE}/32`, 'dev', LINKS[0].name)
  inside('link', 'set', 'lo', 'up')
  use(0)
  ;[cluster, files] = await Promise.all([startCluster(2), startFiles({}, { host: HERE })])
  networks = await Promise.all(cluster.nodes.map((node) => startNetwork(node, {}, { host: HERE })))
  directory = mkdtempSync(join(tmpdir(), 'switchboard-roaming-'))
  const wrapper = join(directory, 'chromium')
  writeFileSync(wrapper, `#!/bin/sh\nexec ip netns exec ${SPACE} ${EXECUTABLE} "$@"\n`, { mode: 0o755 })
  ;[browser, roaming] = await Promise.all([launchBrowser(), launchBrowser({ executablePath: wrapper })])
})
after(async () => {
  await Promise.all([browser, roaming].map((each) => each?.close()))
  await Promise.all([...(networks ?? []), cluster, files].map((each) => each?.stop()))
  if (!isPossible) return
  for (const { name } of LINKS) spawnSync('ip', ['link', 'del', name])
  spawnSync('ip', ['netns', 'del', SPACE])
  if (directory) rmSync(directory, { recursive: true })
})

/** A call of two who each send a picture that is drawn; the one who roams is the first. */
async function pair(names) {
  use(0)
  // Chromium breaks off what it loads while networks come and go, for a moment.
  await sleep(2500)
  const pages = await Promise.all(
    [roaming, browser].map((each, i) => openCaller(each, files, networks[i].url, names[i], { answer: 'hold' })),
  )
  await Promise.all(
    pages.map((page) =>
      page.evaluate(() => {
        const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 48 })
        const draw = canvas.getContext('2d')
        setInterval(
          () => ((draw.fillStyle = `hsl(${performance.now() % 360} 90% 50%)`), draw.fillRect(0, 0, 64, 48)),
          40,
        )
        page.own = canvas.captureStream(25)
        page.stream = async () => page.own
        page.seen = { last: undefined, gap: 0, picture: 0, shown: undefined, packets: 0 }
        // How long no packet of media came; and how long nothing new was shown, for which a browser may wait for a
        // whole picture, up to 3 s.
        page.watch = (name) => {
          const { seen } = page
          const { pc, video } = page.calls[name]
          const count = async () => {
            let packets = 0
            for (const one of (await pc.getStats()).values())
              if (one.type === 'inbound-rtp') packets += one.packetsReceived
            const now = performance.now()
            seen.gap = Math.max(seen.gap, now - (seen.last ?? now))
            if (packets > seen.packets) Object.assign(seen, { packets, last: now })
            setTimeout(count, 50)
          }
          const look = () => {
            const now = performance.now()
            seen.picture = Math.max(seen.picture, now - (seen.shown ?? now))
            seen.shown = now
            video.requestVideoFrameCallback(look)
          }
          count()
          video.requestVideoFrameCallback(look)
        }
        page.answer = 'accept'
      }),
    ),
  )
  await pages[0].evaluate((b) => page.dial(b), names[1])
  await eventually(
    async () =>
      (await Promise.all(pages.map((page, i) => stateOf(page, names[1 - i])))).every((state) => state === 'connected'),
    20_000,
  )
  await eventually(async () =>
    (
      await Promise.all(
        pages.map((page, i) => page.evaluate((name) => Boolean(globalThis.page.calls[name].video), names[1 - i])),
      )
    ).every(Boolean),
  )
  await Promise.all(pages.map((page, i) => page.evaluate((name) => globalThis.page.watch(name), names[1 - i])))
  await eventually(async () =>
    (await Promise.all(pages.map((page) => page.evaluate(() => page.seen.shown > 0)))).every(Boolean),
  )
  // A moment of steady pictures, as in any call.
  await sleep(4000)
  await Promise.all(pages.map((page) => page.evaluate(() => (page.seen.gap = page.seen.picture = 0))))
  return pages
}

async function gaps(pages, names, what, within) {
  const fresh = (page) => page.evaluate(() => performance.now() - page.seen.shown < 500)
  await eventually(async () => (await Promise.all(pages.map(fresh))).every(Boolean), within, 'pictures again').catch(
    async (error) => {
      const states = await Promise.all(
        pages.map((page, i) =>
          page.evaluate(
            (name) => [client.state, globalThis.page.calls[name].state, globalThis.page.calls[name].reason],
            names[1 - i],
          ),
        ),
      )
      throw new Error(`${what}: ${JSON.stringify(states)}`, { cause: error })
    },
  )
  // It stays.
  await sleep(1500)
  await eventually(async () => (await Promise.all(pages.map(fresh))).every(Boolean), within)
  const seen = await Promise.all(pages.map((page) => page.evaluate(() => Math.round(page.seen.gap))))
  const pictures = await Promise.all(pages.map((page) => page.evaluate(() => Math.round(page.seen.picture))))
  const ends = await Promise.all(pages.map((page) => page.evaluate(() => page.ends)))
  console.log(`# ${what}: no media for ${seen.join(' and ')} ms, no new picture for ${pictures.join(' and ')} ms`)
  assert.deepEqual(ends, [[], []])
  await eventually(
    async () => (await Promise.all(pages.map((page) => page.evaluate(() => client.state === 'online')))).every(Boolean),
    20_000,
  )
  await Promise.all(pages.map((page) => page.context().close()))
  return seen
}

test('a switch to another network at once: the gap is at most 3 s', { skip }, async () => {
  const names = ['walker', 'sitter']
  const pages = await pair(names)
  use(1)
  const seen = await gaps(pages, names, 'switch of network', 20_000)
  assert.ok(Math.max(...seen) <= 3000, `${seen} ms`)
})

test('both networks at once, then the one in use goes', { skip }, async () => {
  const names = ['strider', 'stayer']
  const pages = await pair(names)
  inside('link', 'set', `${LINKS[1].name}n`, 'up')
  await sleep(2000)
  use(1)
  const seen = await gaps(pages, names, 'the other network was there before', 20_000)
  assert.ok(Math.max(...seen) <= 3000, `${seen} ms`)
})

for (const seconds of [3, 20, 40]) {
  test(`no network for ${seconds} s, then another one: the call goes on within 3 s`, { skip }, async () => {
    const names = [`diver ${seconds}`, `waiter ${seconds}`]
    const pages = await pair(names)
    use()
    await sleep(seconds * 1000)
    use(1)
    const seen = await gaps(pages, names, `nothing for ${seconds} s, then another network`, 20_000)
    assert.ok(Math.max(...seen) <= seconds * 1000 + 3000, `${seen} ms`)
  })
}
