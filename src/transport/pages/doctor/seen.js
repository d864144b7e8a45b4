// What was seen of each part, in a line.

import { said } from './relays.js'
import { list, ms, seconds } from './words.js'

const NAMES = { ws: 'WebSocket', sse: 'SSE', poll: 'poll' }

/** One line for each thing that was tried, whatever the verdict. */
export function checks(facts) {
  const { page, whoami, websocket, session, sse, poll, logins, signals, idle, ice, relay, call, media } = facts
  const lines = []
  const line = (id, title, state, words) => lines.push({ id, title, state, said: words })
  if (page) {
    line(
      'page',
      'This page',
      page.webrtc && page.secure ? 'ok' : page.webrtc ? 'warn' : 'fail',
      `${page.webrtc ? 'WebRTC is there' : 'no WebRTC'}, ${page.secure ? 'loaded securely' : 'not loaded securely'}${media ? `; ${cameras(media)}` : ''}`,
    )
  }
  if (whoami) {
    line(
      'whoami',
      'Server',
      whoami.ok ? 'ok' : 'fail',
      whoami.ok
        ? `version ${whoami.view.version}, HTTP/${whoami.view.http_version}, answered in ${ms(whoami.ms)}; met ${list(whoami.nodes)}${whoami.view.auth === 'open' ? '; names are first come: it checks no tokens' : ''}`
        : whoami.status
          ? `answered ${whoami.status}`
          : 'no answer',
    )
  }
  if (websocket) {
    line(
      'websocket',
      'WebSocket',
      websocket.opened && websocket.pong ? 'ok' : 'fail',
      websocket.opened ? (websocket.pong ? `open in ${ms(websocket.ms)}` : 'opens, but stays mute') : `does not open (${websocket.tries} tries)`,
    )
  }
  for (const [id, title, door] of [
    ['sse', 'Event stream (SSE)', sse],
    ['poll', 'Polling', poll],
  ]) {
    if (door)
      line(
        id,
        title,
        door.ok ? 'ok' : 'fail',
        door.ok
          ? `first word after ${ms(door.ms)}`
          : door.status && door.status !== 200
            ? `answered ${door.status}${door.code ? ` (${door.code})` : ''}`
            : `no word within ${seconds(door.ms)}`,
      )
    else if (session)
      line(
        id,
        title,
        'skip',
        session.status ? `no session: answered ${session.status}${session.code ? ` (${session.code})` : ''}` : 'no session: no answer',
      )
  }
  if (logins?.length) {
    const welcome = logins.filter((login) => login.ok)
    line(
      'login',
      'Login',
      welcome.length === logins.length ? 'ok' : welcome.length ? 'warn' : 'fail',
      `${welcome.length} of ${logins.length} welcome` +
        (welcome.length
          ? `, by ${list([...new Set(welcome.map((login) => NAMES[login.door]))])}, at ${list([...new Set(welcome.map((login) => login.node))])}`
          : '') +
        (welcome.length < logins.length
          ? `; refused: ${list([...new Set(logins.filter((login) => !login.ok).map((login) => login.code ?? 'no answer'))])}`
          : ''),
    )
  }
  for (const one of signals ?? []) {
    const well = one.received === one.sent
    line(
      'signal',
      one.from === one.to ? 'Signal to itself, at one node' : 'Signal to itself, across nodes',
      well ? 'ok' : 'fail',
      `${one.from} to ${one.to}: ${well ? `half of ${one.sent} took less than ${ms(one.p50)}, the slowest ${ms(one.max)}` : `${one.received} of ${one.sent} arrived${one.code ? ` (${one.code})` : ''}`}`,
    )
  }
  if (ice) {
    if (ice.length === 0) line('ice', 'STUN and TURN', 'skip', 'none configured')
    for (const server of ice) {
      line(
        `ice:${server.url}`,
        server.kind === 'stun' ? 'STUN' : `TURN by ${server.transport === 'tls' ? 'TLS' : server.transport.toUpperCase()}`,
        server.ok ? 'ok' : 'fail',
        server.ok ? `${server.url}: ${server.kind === 'stun' ? 'answered' : 'relay address given'} in ${ms(server.ms)}` : said(server),
      )
    }
  }
  for (const one of relay ?? []) {
    line(
      `relay:${one.url}`,
      'Call through the relay',
      one.connected ? 'ok' : 'fail',
      one.connected ? `${one.url}: connected in ${ms(one.took)}` : `${one.url}: did not connect`,
    )
  }
  if (call) {
    line(
      'call',
      'Call with itself',
      call.connected ? 'ok' : 'fail',
      call.connected
        ? `connected in ${ms(call.ms)} (${call.pair ?? '?'})${call.frames === undefined ? '' : `, ${call.frames} frames seen`}`
        : `not connected (${call.state})`,
    )
  }
  if (idle) {
    const cut = ['websocket', 'sse', 'poll'].filter((door) => idle[door]?.cut)
    const tried = ['websocket', 'sse', 'poll'].filter((door) => idle[door])
    if (tried.length) {
      line(
        'idle',
        'Quiet connections',
        cut.length === 0 ? 'ok' : 'warn',
        cut.length === 0
          ? `stay for ${seconds(idle.watched)}`
          : list(cut.map((door) => `${door === 'websocket' ? 'WebSocket' : door === 'sse' ? 'SSE' : 'poll'} cut after ${seconds(idle[door].ms)}`)),
      )
    }
  }
  return lines
}

function cameras({ cameras, microphones }) {
  return `${count(cameras, 'camera')}, ${count(microphones, 'microphone')}`
}

const count = (number, what) => (number === 0 ? `no ${what}` : number === 1 ? `a ${what}` : `${number} ${what}s`)
