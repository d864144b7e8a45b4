// The clients for Python, Go and Rust at real nodes: through the death of a node, and in calls with Chromium.

import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { after, before, test } from 'node:test'

import { ROOT, eventually, launchBrowser, openCaller, start, startCluster, startFiles, stateOf } from './support/index.mjs'

const PYTHON = `${ROOT}target/browser-venv/bin/python`
const BUILT = `${ROOT}target/clients`
const STR0M = `${BUILT}/str0m/debug/robot`
const skip = spawnSync('go', ['version']).status !== 0 && 'there is no Go'
const env = { PYTHONPATH: `${ROOT}clients/python` }

let cluster, files, browser
before(async () => {
  if (!skip) {
    execFileSync('go', ['build', '-o', `${BUILT}/talker`, './internal/talker'], { cwd: `${ROOT}clients/go` })
    execFileSync('go', ['build', '-o', `${BUILT}/pion`, '.'], { cwd: `${ROOT}examples/pion` })
  }
  ;[cluster, files, browser] = await Promise.all([startCluster(2), startFiles(), launchBrowser()])
})
after(async () => {
  await browser?.close()
  await Promise.all([cluster, files].map((each) => each?.stop()))
})

const TALKERS = {
  Python: (...args) => start(PYTHON, [`${ROOT}clients/python/tests/talker.py`, ...args], { env }),
  Go: (...args) => start(`${BUILT}/talker`, args),
  Rust: (...args) => start(`${ROOT}target/debug/examples/talker`, args),
}
const ROBOTS = {
  aiortc: (...args) => start(PYTHON, [`${ROOT}examples/aiortc/robot.py`, ...args], { env }),
  pion: (...args) => start(`${BUILT}/pion`, args),
  str0m: (...args) => start(STR0M, args),
}
const SKIPS = {
  pion: skip,
  // A dependency that takes minutes to compile, for nobody else.
  str0m: !existsSync(STR0M) && 'it is not built: cargo build --manifest-path examples/str0m/Cargo.toml --target-dir target/clients/str0m',
}

/** What the program says; fails as soon as it has ended without it. */
async function told(program, what, within = 120_000) {
  await eventually(() => what.test(program.output) || !program.running, within, what)
  // What it wrote last may come after its end.
  return eventually(() => what.exec(program.output), 1000, `${what}, and it ended: ${program.output}`)
}

const pairs = [
  ['Python', 'Go'],
  ['Go', 'Rust'],
  ['Rust', 'Python'],
]
for (const [from, to] of pairs) {
  test(`${from} says 500 numbers to ${to} while kill -9 takes the nodes of both, one after the other`, { skip }, async () => {
    const [one, two] = cluster.nodes.map(({ url }) => url)
    const hearer = TALKERS[to](`${two},${one}`, `hearer-${to}`)
    const [, hearing] = await told(hearer, /online (\S+)/)
    const talker = TALKERS[from](`${one},${two}`, `talker-${from}`, `hearer-${to}`, '500')
    const [, talking] = await told(talker, /online (\S+)/)
    for (const [node, number] of [[1, 100], [0, 300]]) {
      await told(hearer, new RegExp(`heard message talker-${from} ${number}\n`))
      await cluster.nodes[node].kill()
      await told(hearer, new RegExp(`heard message talker-${from} ${number + 100}\n`))
      cluster.nodes[node] = await cluster.nodes[node].restart()
    }
    const [, answered, session] = await told(talker, /answered (\d+) (\S+)/)
    await told(hearer, /heard message \S+ 499\n/)
    const heard = [...hearer.output.matchAll(/heard (\w+) (\S+) (\S+)\n/g)].map(([, ...what]) => what.join(' '))
    assert.deepEqual(heard, Array.from({ length: 500 }, (_, i) => `message talker-${from} ${i}`))
    assert.deepEqual([answered, session], ['500', talking], 'it was resumed')
    assert.ok(hearing)
    await Promise.all([talker.kill(), hearer.kill()])
  })
}

for (const make of Object.keys(ROBOTS)) {
  for (const caller of ['Chromium', make]) {
    test(`examples/${make}: ${caller} calls, a data channel both ways, through the death of a node`, { skip: SKIPS[make] }, async () => {
      const [one, two] = cluster.nodes
      const [me, robot] = [`alice-${make}-${caller}`, `robot-${make}-${caller}`]
      const alice = await openCaller(browser, files, one.url, me)
      const program = ROBOTS[make](`${two.url},${one.url}`, robot, ...(caller === make ? [me] : []))
      await told(program, /I am robot/)
      if (caller === 'Chromium') await alice.evaluate((robot) => page.dial(robot), robot)
      await eventually(async () => (await stateOf(alice, robot)) === 'connected', 60_000)
      const echoes = async (text) => {
        await alice.evaluate(([robot, text]) => page.calls[robot].channel('chat').send(text), [robot, text])
        await eventually(async () => (await alice.evaluate(() => page.heard.map(([, data]) => data))).includes(`${robot} heard ${text}`), 60_000)
      }
      await echoes('hello')
      await two.kill()
      await echoes('are you there?')
      // The robot's session resumes at the other node, so that it hears the end.
      await alice.evaluate((robot) => page.calls[robot].hangup(), robot)
      await told(program, new RegExp(`${me} is gone: hangup`))
      cluster.nodes[1] = await two.restart()
      assert.deepEqual(alice.errors, [])
      await program.kill()
      await alice.context().close()
    })
  }

  test(`examples/${make}: it and Chromium call each other at the same moment, and get one call`, { skip: SKIPS[make] }, async () => {
    const [one, two] = cluster.nodes
    // Whichever name is smaller.
    for (const [me, robot] of [[`a-${make}`, `b-${make}`], [`d-${make}`, `c-${make}`]]) {
      const alice = await openCaller(browser, files, one.url, me)
      const program = ROBOTS[make](two.url, robot, me)
      await told(program, /I am/)
      await alice.evaluate((robot) => page.calls[robot] || page.dial(robot), robot)
      await eventually(async () => (await stateOf(alice, robot)) === 'connected', 60_000)
      await alice.evaluate((robot) => page.calls[robot].channel('chat').send('hello'), robot)
      await eventually(async () => (await alice.evaluate(() => page.heard)).some(([, data]) => data === `${robot} heard hello`), 60_000)
      assert.deepEqual(await alice.evaluate(() => page.ends), [])
      await program.kill()
      await alice.context().close()
    }
  })
}
