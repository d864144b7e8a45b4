// Real processes: each dies with its owner, and with the test if that is killed.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readdirSync } from 'node:fs'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** Waits until `condition` (which may be async) is truthy, and returns what it was. Its last error is told if it never is. */
export async function eventually(condition, within = 10_000, what = condition.toString()) {
  const deadline = Date.now() + within
  for (;;) {
    let value, error
    try {
      value = await condition()
    } catch (cause) {
      error = cause
    }
    if (value) return value
    if (Date.now() > deadline) throw new Error(`not within ${within} ms: ${what}`, { cause: error })
    await sleep(20)
  }
}

/** A port of 127.0.0.1 that nobody listens on. */
export async function freePort() {
  const server = createServer()
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address()
  await once(server.close(), 'close')
  return port
}

const running = new Set()
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')))

/** Starts a process. What it writes is kept, and shown if the test asks for `output`. */
export function start(command, args, { env = {}, cwd } = {}) {
  // A node takes what begins with SWITCHBOARD_ for a setting.
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('SWITCHBOARD_')))
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', command, ...args], {
    cwd,
    env: { ...inherited, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  let output = ''
  const keep = (chunk) => (output = (output + chunk).slice(-200_000))
  child.stdout.on('data', keep)
  child.stderr.on('data', keep)
  const ended = once(child, 'exit').then(([code, signal]) => {
    running.delete(child)
    return { code, signal }
  })
  return {
    pid: child.pid,
    get output() { return output },
    get running() { return running.has(child) },
    ended,
    signal: (name) => child.kill(name),
    /** Ends it on the spot, and waits until it has gone. */
    async kill() {
      child.kill('SIGKILL')
      await ended
    },
  }
}

/** Those that a process has begun, and they in turn. */
function descendants(pid) {
  const children = {}
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const parent = readFileSync(`/proc/${entry}/stat`, 'utf8').split(') ')[1].split(' ')[1]
      ;(children[parent] ??= []).push(Number(entry))
    } catch {} // It has ended meanwhile.
  }
  const all = [pid]
  for (const one of all) all.push(...(children[one] ?? []))
  return all.slice(1)
}

/** What `make` makes, and `signal(name)` for the processes that it began, such as those of a browser. */
export async function begunBy(make) {
  const before = descendants(process.pid)
  const made = await make()
  const [first] = descendants(process.pid).filter((pid) => !before.includes(pid))
  const signal = (name) => [first, ...descendants(first)].forEach((pid) => process.kill(pid, name))
  return { made, signal }
}
