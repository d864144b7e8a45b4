// What the doctor tries, one part after the other. Each part becomes a plain fact; what it means is judged in verdict.js.

import { HttpLine, WebSocketLine, sleep } from './lines.js'
import { callItself, probeIceServer } from './peers.js'

/** How long anything may take that answers at once when all is well. */
const PATIENCE = 5000
/** How long quiet connections are watched: longer than a poll waits (25 s), and than any ping or keepalive of the server's defaults. */
const WATCHED = 30_000
/** Logins: at least, to meet a second node, and at most. */
const LOGINS = [4, 8]
const SIGNALS = 10
const ICE_SERVERS = 8

/**
 * Tries everything, and calls `tell(facts)` whenever there is more to know.
 *
 * @param {(facts: object, busy: string) => void} tell
 * @param {{ watched?: number }} options how long quiet connections are watched, in ms
 */
export async function examine(tell, { watched = WATCHED } = {}) {
  const facts = {}
  let busy = ''
  const put = (part, value) => {
    facts[part] = value
    tell(facts, busy)
    return value
  }
  const doing = (what) => {
    busy = what
    tell(facts, busy)
  }
  doing('Looking at this browser')
  put('page', thisPage())
  put('media', await devices())

  doing('Asking the server who you are')
  put('whoami', await whoami())

  doing('Trying the ways in')
  const idle = { watched }
  const watches = []
  const watch = (door, watching) => watches.push(watching.then((seen) => (idle[door] = seen)))
  await Promise.all([
    tryWebSocket().then((seen) => {
      put('websocket', seen)
      if (!seen.opened) return
      watch(
        'websocket',
        watchTwice(() => quietWebSocket(watched)),
      )
      watch('busy', busyWebSocket(watched))
    }),
    tryHttp(put).then(({ sse, poll }) => {
      if (sse) watch('sse', quietHttp('sse', watched))
      if (poll) watch('poll', quietHttp('poll', watched))
    }),
  ])

  doing('Logging in')
  const lines = await logInAround(facts, put)
  try {
    if (lines.length > 1) {
      doing('Sending signals')
      const [from, to] = lines
      put('signals', [await sendSignals(from, to), await sendSignals(to, from)])
    }
    // Before STUN and TURN, which may take their time: nobody speaks on the lines meanwhile.
    if (lines.length > 1 && facts.page.webrtc) {
      doing('Calling itself')
      const [from, to] = lines
      put('call', await callItself({ through: [from, to], iceServers: from.iceServers, picture: true }))
    }
    if (lines.length > 0 && facts.page.webrtc) {
      doing('Trying STUN and TURN')
      await tryIce(lines[0].iceServers, put)
    }
  } finally {
    for (const line of lines) line.close()
  }
  if (watches.length > 0) {
    doing('Watching whether quiet connections stay')
    await Promise.all(watches)
    put('idle', idle)
  }
  doing('')
  return facts
}

function thisPage() {
  return { webrtc: 'RTCPeerConnection' in window, secure: window.isSecureContext, protocol: location.protocol }
}

/** How many there are; asking that needs no permission. */
async function devices() {
  const all = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? []
  const count = (kind) => all.filter((device) => device.kind === kind).length
  return { cameras: count('videoinput'), microphones: count('audioinput') }
}

/** Several at once, since they may come to several nodes. */
async function whoami() {
  const began = performance.now()
  const ask = async () => {
    const answer = await fetch('/v1/whoami', { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE) })
    if (!answer.ok) return { status: answer.status }
    return { view: await answer.json(), ms: performance.now() - began }
  }
  const answers = await Promise.all(Array.from({ length: 4 }, () => ask().catch(() => ({}))))
  const good = answers.filter((answer) => answer.view)
  if (good.length === 0) return { ok: false, status: answers.find((answer) => answer.status)?.status, nodes: [] }
  const [{ view, ms }] = good
  const ahead = Math.round(Date.now() / 1000 - view.time)
  return { ok: true, ms, view, ahead, nodes: [...new Set(good.map((answer) => answer.view.node))] }
}

// ---------------------------------------------------------------------------------------------------------------------------------
// The doors

async function tryWebSocket() {
  const began = performance.now()
  const tries = 2
  const lines = await Promise.all(Array.from({ length: tries }, () => WebSocketLine.open(PATIENCE).catch(() => null)))
  const line = lines.find(Boolean)
  const ms = performance.now() - began
  if (!line) return { opened: false, tries }
  line.send({ type: 'ping' })
  const pong = await line.wait((message) => message.type === 'pong', PATIENCE)
  for (const each of lines) each?.close()
  return { opened: true, pong: Boolean(pong), ms, tries: tries }
}

/** A session without a name, and both ways to hear of it. */
async function tryHttp(put) {
  const { line, refused } = await HttpLine.create(PATIENCE)
  if (!line) {
    put('session', { ok: false, ...refused })
    return {}
  }
  put('session', { ok: true })
  const sse = put('sse', await line.tryStream(PATIENCE))
  const poll = put('poll', await line.tryPoll(PATIENCE))
  if ([sse, poll].some((door) => door.code === 'session_gone')) put('gone', true)
  line.close()
  return { sse: sse.ok, poll: poll.ok }
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Users

/**
 * Logs in several times, by the best door that is open, until two nodes have been met. Two lines are kept, at two nodes if that can be:
 * browsers have six connections to a host by HTTP/1.1, and event streams hold theirs.
 */
async function logInAround({ websocket, sse, poll }, put) {
  const door = websocket?.pong ? 'ws' : sse?.ok ? 'sse' : poll?.ok ? 'poll' : undefined
  if (!door) return []
  const open = door === 'ws' ? () => WebSocketLine.open(PATIENCE) : () => HttpLine.open(door, PATIENCE)
  const logins = []
  const nodes = new Set()
  let lines = []
  const [least, most] = LOGINS
  while (logins.length < most && (logins.length < least || nodes.size < 2)) {
    const { line, seen } = await logIn(door, open)
    logins.push(seen)
    if (line) {
      nodes.add(line.node)
      const kept = [lines[0] ?? line, lines.find(({ node }) => node !== lines[0].node) ?? (lines[0] && line)].filter(Boolean)
      for (const spare of [...lines, line]) if (!kept.includes(spare)) spare.close()
      lines = kept
    }
    put('logins', logins)
  }
  put('nodes', [...nodes])
  return lines
}

async function logIn(door, open) {
  const began = performance.now()
  const line = await open().catch(() => null)
  if (!line) return { seen: { door, ok: false, code: 'no_connection' } }
  line.name = `doctor-${crypto.getRandomValues(new Uint32Array(1))[0].toString(16)}`
  line.send({ type: 'login', name: line.name })
  const reply = await line.wait((message) => message.type === 'login' || message.type === 'error', PATIENCE)
  const ms = performance.now() - began
  if (reply?.success) {
    line.node = reply.node
    line.iceServers = reply.iceServers ?? []
    return { line, seen: { door, ok: true, node: reply.node, ms } }
  }
  line.close()
  return { seen: { door, ok: false, code: reply?.code ?? 'no_answer', message: reply?.message, ms } }
}

async function sendSignals(from, to) {
  const times = []
  let code
  for (let number = 0; number < SIGNALS; number += 1) {
    const began = performance.now()
    const arrival = to.wait((message) => message.type === 'message' && message.name === from.name && message.message?.number === number, PATIENCE)
    const refusal = from.wait((message) => message.type === 'error' && message.id === `s${number}`, PATIENCE)
    from.send({ type: 'message', name: to.name, message: { number }, id: `s${number}` })
    const heard = await Promise.race([arrival, refusal.then((error) => error ?? arrival)])
    if (heard?.type === 'message') times.push(performance.now() - began)
    else {
      code = heard?.code
      break
    }
  }
  times.sort((one, other) => one - other)
  return {
    from: from.node,
    to: to.node,
    sent: SIGNALS,
    received: times.length,
    code,
    p50: times[Math.floor(times.length / 2)],
    max: times.at(-1),
  }
}

// ---------------------------------------------------------------------------------------------------------------------------------
// STUN and TURN

async function tryIce(iceServers, put) {
  const each = iceServers.flatMap(({ urls, username, credential }) => [urls].flat().map((url) => ({ url, username, credential })))
  const ice = await Promise.all(each.slice(0, ICE_SERVERS).map(probeIceServer))
  put('ice', ice)
  const relay = []
  const tried = new Set()
  for (const [index, seen] of ice.entries()) {
    const host = seen.url.split(/[:?]/)[1]
    if (seen.kind !== 'turn' || !seen.ok || tried.has(host)) continue
    tried.add(host)
    const { url, username, credential } = each[index]
    const { connected, ms } = await callItself({ iceServers: [{ urls: url, username, credential }], relayed: true })
    relay.push({ url, connected, took: ms })
  }
  if (relay.length > 0) put('relay', relay)
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Connections that must stay

/** A cut counts if it happens again: once may be chance. */
async function watchTwice(watch) {
  const first = await watch()
  if (!first.cut) return first
  const second = await watch()
  return second.cut ? { ...first, again: second.ms } : { cut: false, once: first.ms }
}

async function quietWebSocket(watched) {
  const line = await WebSocketLine.open(PATIENCE).catch(() => null)
  return line ? ended(line, watched) : { cut: false }
}

async function busyWebSocket(watched) {
  const line = await WebSocketLine.open(PATIENCE).catch(() => null)
  if (!line) return { cut: false }
  const beat = setInterval(() => line.send({ type: 'ping' }), 1000)
  const seen = await ended(line, watched)
  clearInterval(beat)
  return seen
}

/** Cut: gone without a close frame. The server says goodbye. */
async function ended(line, watched) {
  const began = performance.now()
  const code = await Promise.race([line.closed, sleep(watched)])
  const ms = performance.now() - began
  line.close()
  return code === 1006 ? { cut: true, ms } : { cut: false }
}

async function quietHttp(door, watched) {
  const { line } = await HttpLine.create(PATIENCE)
  if (!line) return { cut: false }
  const began = performance.now()
  const outcome = door === 'sse' ? await line.holdStream(watched) : await line.holdPoll(Math.min(25, Math.round(watched / 1000)))
  const ms = performance.now() - began
  line.close()
  return outcome === 'cut' ? { cut: true, ms } : { cut: false }
}
