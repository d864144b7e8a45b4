// HAProxy as deploy/haproxy has it, before nodes of ours.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { ROOT } from './cluster.mjs'
import { eventually, freePort, start } from './processes.mjs'

/** `{http, url, kill()}`; only addresses are other than as shipped. */
export async function startHaproxy(nodes) {
  const [port, operators] = [await freePort(), await freePort()]
  const servers = nodes.map((node, i) => `  server node${i} 127.0.0.1:${node.port} port ${new URL(node.admin).port}`)
  const config = readFileSync(join(ROOT, 'deploy/haproxy/haproxy.cfg'), 'utf8')
    .replace('  bind :9090', `  bind 127.0.0.1:${port}`)
    .replace('  bind :8404', `  bind 127.0.0.1:${operators}`)
    .replace(/^ {2}server-template .*$/m, servers.join('\n'))
  const directory = mkdtempSync(join(tmpdir(), 'switchboard-haproxy-'))
  writeFileSync(join(directory, 'haproxy.cfg'), config)
  const haproxy = start('haproxy', ['-db', '-f', join(directory, 'haproxy.cfg')])
  haproxy.ended.then(() => rmSync(directory, { recursive: true, force: true }))
  const isUp = async () => !haproxy.running || (await fetch(`http://127.0.0.1:${operators}/healthz`)).ok
  await eventually(isUp, 20_000, 'HAProxy has found its nodes')
  if (!haproxy.running) throw new Error(`HAProxy has ended:\n${haproxy.output}`)
  return Object.assign(haproxy, { url: `ws://127.0.0.1:${port}`, http: `http://127.0.0.1:${port}` })
}
