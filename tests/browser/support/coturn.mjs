// A relay of our own on loopback: Debian's coturn, which shares a secret with the nodes.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createSocket } from 'node:dgram'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { eventually, freePort, start } from './processes.mjs'

/**
 * `{port, urls, kill(), output}`; `urls` are what `ice.servers` takes: STUN, TURN over UDP, TURN over TCP, and over TLS, if it is to have a
 * certificate (of its own making, for 127.0.0.1), as the last one.
 */
export async function startCoturn({ secret, tls = false, args = [] }) {
  const port = await freePort()
  const directory = mkdtempSync(join(tmpdir(), 'switchboard-coturn-'))
  const tlsPort = tls && (await freePort())
  const coturn = start('turnserver', [
    '-n',
    '--listening-ip=127.0.0.1',
    '--relay-ip=127.0.0.1',
    `--listening-port=${port}`,
    '--use-auth-secret',
    `--static-auth-secret=${secret}`,
    '--realm=switchboard.test',
    '--fingerprint',
    ...(tls ? [`--tls-listening-port=${tlsPort}`, ...certificate(directory)] : ['--no-tls']),
    '--no-dtls',
    '--no-cli',
    // Both ends are on loopback here. Never elsewhere.
    '--allow-loopback-peers',
    `--pidfile=${join(directory, 'pid')}`,
    `--userdb=${join(directory, 'db')}`,
    '--log-file=stdout',
    '--simple-log',
    ...args,
  ])
  coturn.ended.then(() => rmSync(directory, { recursive: true, force: true }))
  await eventually(() => !coturn.running || answersStun(port), 10_000, 'coturn answers')
  if (!coturn.running) throw new Error(`coturn has ended:\n${coturn.output}`)
  const [host, urls] = [`127.0.0.1:${port}`, []]
  urls.push(`stun:${host}`, `turn:${host}?transport=udp`, `turn:${host}?transport=tcp`)
  if (tls) urls.push(`turns:127.0.0.1:${tlsPort}?transport=tcp`)
  return Object.assign(coturn, { port, urls })
}

/** One that nobody has signed but itself. */
function certificate(directory) {
  const [cert, key] = [join(directory, 'cert.pem'), join(directory, 'key.pem')]
  const args = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert]
  const { status, stderr, error } = spawnSync('openssl', args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`openssl made no certificate: ${error ?? stderr}`)
  return [`--cert=${cert}`, `--pkey=${key}`]
}

/** A binding request of RFC 8489, answered. */
function answersStun(port) {
  const request = Buffer.from('000100002112a442000102030405060708090a0b', 'hex')
  return new Promise((resolve) => {
    const socket = createSocket('udp4')
    const end = (answer) => (clearTimeout(timer), socket.close(), resolve(answer))
    const timer = setTimeout(() => end(false), 300)
    socket.on('message', (answer) => end(answer.subarray(8, 20).equals(request.subarray(8, 20))))
    socket.on('error', () => end(false))
    socket.send(request, port, '127.0.0.1')
  })
}
