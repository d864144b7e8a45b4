// A browser that changes networks: it lives in a network namespace with two ways out, of which one, both or none work.

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { EXECUTABLE, launchBrowser } from './chromium.mjs'

const ip = (...args) => execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] })

/**
 * A namespace, or nothing where that takes more rights than there are. `host` is an address of this host to which both
 * ways lead; `use(0)`, `use(1)`, `use(0, 1)` or `use()` say which work from now on; `launch()` starts a browser in it.
 */
export function makeNamespace() {
  const id = process.pid % 10_000
  const space = `sbroam${id}`
  const links = [
    { name: `sbr${id}a`, subnet: '10.213.7' },
    { name: `sbr${id}b`, subnet: '10.213.8' },
  ]
  const host = '10.213.9.1'
  if (process.getuid?.() !== 0 || spawnSync('ip', ['netns', 'add', space]).status !== 0) return undefined
  const inside = (...args) => ip('-n', space, ...args)
  for (const { name, subnet } of links) {
    ip('link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}n`, 'netns', space)
    ip('addr', 'add', `${subnet}.1/24`, 'dev', name)
    ip('link', 'set', name, 'up')
    inside('addr', 'add', `${subnet}.2/24`, 'dev', `${name}n`)
  }
  ip('addr', 'add', `${host}/32`, 'dev', links[0].name)
  inside('link', 'set', 'lo', 'up')
  const directory = mkdtempSync(join(tmpdir(), 'switchboard-roaming-'))
  return {
    host,
    address: (i) => `${links[i].subnet}.2`,
    /** The second link, besides the first. */
    addSecond: () => inside('link', 'set', `${links[1].name}n`, 'up'),
    use(...indices) {
      links.forEach(({ name }, i) => inside('link', 'set', `${name}n`, indices.includes(i) ? 'up' : 'down'))
      for (const i of indices) inside('route', 'replace', 'default', 'via', `${links[i].subnet}.1`)
    },
    launch(options = {}) {
      const wrapper = join(directory, 'chromium')
      writeFileSync(wrapper, `#!/bin/sh\nexec ip netns exec ${space} ${EXECUTABLE} "$@"\n`, { mode: 0o755 })
      return launchBrowser({ ...options, executablePath: wrapper })
    },
    remove() {
      for (const { name } of links) spawnSync('ip', ['link', 'del', name])
      spawnSync('ip', ['netns', 'del', space])
      rmSync(directory, { recursive: true })
    },
  }
}

/**
 * Makes a page of `openCaller` send a picture that is drawn, and take calls. In it, `page.watch(name)` notes in
 * `page.seen` how long no packet of media came (`gap`), and how long nothing new was shown (`picture`), for which a
 * browser may wait for a whole picture, up to 3 s.
 */
export const draws = (page) =>
  page.evaluate(() => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 48 })
    const draw = canvas.getContext('2d')
    setInterval(() => ((draw.fillStyle = `hsl(${performance.now() % 360} 90% 50%)`), draw.fillRect(0, 0, 64, 48)), 40)
    page.own = canvas.captureStream(25)
    page.stream = async () => page.own
    page.seen = { last: undefined, gap: 0, picture: 0, shown: undefined, packets: 0 }
    page.watch = (name) => {
      const { seen } = page
      const { pc, video } = page.calls[name]
      const count = async () => {
        let packets = 0
        for (const one of (await pc.getStats()).values()) if (one.type === 'inbound-rtp') packets += one.packetsReceived
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
  })
