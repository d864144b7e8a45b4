// A Redis and the nodes that share it.

import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { eventually, freePort, start } from './processes.mjs'

/** The top of the source tree. */
export const ROOT = fileURLToPath(new URL('../../../', import.meta.url))

/** The client library: another edition of it, to compare with, if CLIENT says so. */
export const CLIENT = process.env.CLIENT ?? join(ROOT, 'client')

const BINARY = process.env.SWITCHBOARD_BIN ?? join(ROOT, 'target/debug/switchboard')

/**
 * A redis-server of our own, that stores nothing. `{url, port, ask(command), kill(), restart()}`; `restart` starts an empty one on the same port.
 * With `of`, it is a replica of the one on that port.
 */
export async function startRedis({ port, of } = {}) {
  port ??= await freePort()
  const directory = mkdtempSync(join(tmpdir(), 'switchboard-redis-'))
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', directory]
  if (of) args.push('--replicaof', '127.0.0.1', String(of), '--repl-diskless-sync-delay', '0')
  const redis = start('redis-server', args)
  redis.ended.then(() => rmSync(directory, { recursive: true, force: true }))
  await eventually(async () => (await ask(port, 'PING')).includes('PONG'), 10_000, 'redis-server answers')
  return Object.assign(redis, {
    port,
    url: `redis://127.0.0.1:${port}`,
    ask: (command) => ask(port, command),
    async restart() {
      await redis.ended
      return startRedis({ port, of })
    },
  })
}

/**
 * One node, ready. Settings are written as on the command line: `{'presence.grace': '5s'}`.
 * `{url, http, admin, id, port, kill(), drain(), restart(), output}`; `restart` starts it anew on the same port.
 */
export async function startNode({ redis, id = 'node', port, settings = {}, env = {} } = {}) {
  if (!existsSync(BINARY)) throw new Error(`${BINARY} is not there: cargo build, or set SWITCHBOARD_BIN`)
  port ??= await freePort()
  const admin = await freePort()
  const args = ['--listen', `127.0.0.1:${port}`, '--admin-listen', `127.0.0.1:${admin}`, '--node-id', id]
  if (redis) args.push('--redis-url', redis.url)
  for (const [key, value] of Object.entries(settings)) args.push('--set', `${key}=${value}`)
  const node = start(BINARY, args, { env })
  await eventually(async () => !node.running || (await fetch(`http://127.0.0.1:${admin}/readyz`)).ok, 20_000, `node ${id} is ready`)
  if (!node.running) throw new Error(`node ${id} has ended:\n${node.output}`)
  return Object.assign(node, {
    id,
    port,
    url: `ws://127.0.0.1:${port}`,
    http: `http://127.0.0.1:${port}`,
    admin: `http://127.0.0.1:${admin}`,
    /** SIGTERM: it sends its sessions elsewhere, and ends. */
    async drain() {
      node.signal('SIGTERM')
      return node.ended
    },
    /** Another process on the same port, once the first has ended. */
    async restart() {
      await node.ended
      return startNode({ redis, id, port, settings, env })
    },
  })
}

/** A Redis, unless there is one, and nodes named one, two, … `{redis, nodes, stop()}` */
export async function startCluster(count, settings = {}, redis, env = {}) {
  redis ??= await startRedis()
  const names = ['one', 'two', 'three', 'four'].slice(0, count)
  const nodes = await Promise.all(names.map((id) => startNode({ redis, id, settings, env }))).catch(async (error) => {
    await redis.kill()
    throw error
  })
  return {
    redis,
    nodes,
    async stop() {
      await Promise.all([...nodes, redis].filter((each) => each.running).map((each) => each.kill()))
    },
  }
}

/** The answer, as far as it came in one piece. */
function ask(port, command) {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(`${command}\r\n`))
    socket.on('data', (data) => (socket.destroy(), resolve(String(data))))
    socket.on('error', reject)
  })
}
