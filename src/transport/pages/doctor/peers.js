// What the doctor tries with peer connections: each STUN and TURN server by itself, and a call from this browser to itself.

import { sleep } from './lines.js'

const PATIENCE = 10_000
/** How long a picture may take after the connection is there. */
const PICTURE = 5000

/**
 * Whether one server gives what it is for.
 *
 * @returns {Promise<{url, kind: 'stun'|'turn', transport: 'udp'|'tcp'|'tls', ok: boolean, ms: number, errors: {code, text}[], expiresIn?: number}>}
 *   `expiresIn` in seconds, if the user name tells (as coturn's time-limited ones do)
 */
export async function probeIceServer({ url, username, credential }) {
  const kind = url.startsWith('stun') ? 'stun' : 'turn'
  const transport = /^turns:/.test(url) ? 'tls' : /[?&]transport=tcp/.test(url) ? 'tcp' : 'udp'
  const expiry = /^(\d{9,11})(:|$)/.exec(username ?? '')
  const seen = { url, kind, transport, ok: false, ms: 0, errors: [] }
  if (expiry) seen.expiresIn = Number(expiry[1]) - Math.floor(Date.now() / 1000)
  const began = performance.now()
  let connection
  try {
    const iceServers = [kind === 'turn' ? { urls: url, username, credential } : { urls: url }]
    connection = new RTCPeerConnection({ iceServers, iceTransportPolicy: kind === 'turn' ? 'relay' : 'all' })
    const wanted = kind === 'turn' ? 'relay' : 'srflx'
    const gathered = new Promise((resolve) => {
      connection.onicecandidate = ({ candidate }) => {
        if (candidate?.type === wanted) resolve(true)
        if (candidate === null) resolve(false)
      }
      connection.onicecandidateerror = ({ errorCode, errorText }) => {
        if (!seen.errors.some((error) => error.code === errorCode)) seen.errors.push({ code: errorCode, text: errorText })
      }
    })
    connection.createDataChannel('probe')
    await connection.setLocalDescription()
    const found = await Promise.race([gathered, sleep(PATIENCE)])
    // A reflexive address that is this device's own is not told: the server has answered all the same if gathering ends without an error.
    seen.ok = found === true || (kind === 'stun' && found === false && seen.errors.length === 0)
  } catch (error) {
    seen.errors.push({ code: 0, text: error.message })
  }
  connection?.close()
  seen.ms = performance.now() - began
  return seen
}

/**
 * Calls from this browser to itself, and hangs up.
 *
 * @param {object} how
 * @param {import('./lines.js').WebSocketLine[]} [how.through] two users, logged in: signals go by way of the server; without them, straight
 * @param {RTCIceServer[]} how.iceServers
 * @param {boolean} [how.relayed] one side may only use the relay
 * @param {boolean} [how.picture] send one, and see whether it arrives
 * @returns {Promise<{connected: boolean, state: string, ms: number, pair?: string, frames?: number}>}
 */
export async function callItself({ through, iceServers, relayed = false, picture = false }) {
  const began = performance.now()
  const caller = new RTCPeerConnection({ iceServers, iceTransportPolicy: relayed ? 'relay' : 'all' })
  const callee = new RTCPeerConnection({ iceServers })
  const drawing = picture ? draw(caller) : undefined
  try {
    const answer = through ? connectThrough(through, caller, callee) : connectStraight(caller, callee)
    const opened = new Promise((resolve) => {
      callee.ondatachannel = ({ channel }) => (channel.onmessage = () => resolve(true))
      const failed = () => caller.connectionState === 'failed' && resolve(false)
      caller.onconnectionstatechange = failed
    })
    const channel = caller.createDataChannel('call')
    channel.onopen = () => channel.send('hello')
    await caller.setLocalDescription()
    await answer()
    const connected = (await Promise.race([opened, sleep(PATIENCE)])) === true
    const seen = { connected, state: connected ? 'connected' : caller.iceConnectionState, ms: performance.now() - began }
    if (connected) seen.pair = await chosenPair(caller)
    if (connected && picture) seen.frames = await frames(callee)
    return seen
  } catch (error) {
    return { connected: false, state: error.message, ms: performance.now() - began }
  } finally {
    drawing?.stop()
    caller.close()
    callee.close()
    if (through) through[0].send({ type: 'leave', name: through[1].name })
  }
}

/** As any two clients do. Returns how to send the offer. */
function connectThrough([from, to], caller, callee) {
  const sending =
    (line, name) =>
    ({ candidate }) =>
      candidate && line.send({ type: 'candidate', name, candidate })
  caller.onicecandidate = sending(from, to.name)
  callee.onicecandidate = sending(to, from.name)
  to.each(
    (message) => message.type === 'offer' && message.name === from.name,
    async ({ offer }) => {
      await callee.setRemoteDescription(offer)
      await callee.setLocalDescription()
      to.send({ type: 'answer', name: from.name, answer: callee.localDescription })
    },
  )
  from.each(
    (message) => message.type === 'answer' && message.name === to.name,
    ({ answer }) => caller.setRemoteDescription(answer),
  )
  for (const [line, peer, connection] of [
    [from, to, caller],
    [to, from, callee],
  ]) {
    line.each(
      (message) => message.type === 'candidate' && message.name === peer.name,
      ({ candidate }) => connection.addIceCandidate(candidate).catch(() => null),
    )
  }
  return async () => from.send({ type: 'offer', name: to.name, offer: caller.localDescription })
}

/** Without the server: candidates wait until the offer has been read. */
function connectStraight(caller, callee) {
  const early = []
  caller.onicecandidate = ({ candidate }) => {
    if (!candidate) return
    if (callee.remoteDescription) callee.addIceCandidate(candidate).catch(() => null)
    else early.push(candidate)
  }
  callee.onicecandidate = ({ candidate }) => candidate && caller.addIceCandidate(candidate).catch(() => null)
  return async () => {
    await callee.setRemoteDescription(caller.localDescription)
    for (const candidate of early) callee.addIceCandidate(candidate).catch(() => null)
    await callee.setLocalDescription()
    await caller.setRemoteDescription(callee.localDescription)
  }
}

/** A picture that moves, without a camera. */
function draw(connection) {
  const canvas = document.createElement('canvas')
  canvas.width = 160
  canvas.height = 120
  const context = canvas.getContext('2d')
  let turn = 0
  const paint = () => {
    turn += 1
    context.fillStyle = `hsl(${(turn * 7) % 360} 50% 50%)`
    context.fillRect(0, 0, canvas.width, canvas.height)
  }
  paint()
  const timer = setInterval(paint, 60)
  const stream = canvas.captureStream(15)
  for (const track of stream.getTracks()) connection.addTrack(track, stream)
  return {
    stop() {
      clearInterval(timer)
      for (const track of stream.getTracks()) track.stop()
    },
  }
}

async function frames(connection) {
  const until = performance.now() + PICTURE
  for (;;) {
    let seen = 0
    for (const entry of (await connection.getStats()).values()) {
      if (entry.type === 'inbound-rtp' && entry.kind === 'video') seen = entry.framesDecoded ?? 0
    }
    if (seen >= 3 || performance.now() > until) return seen
    await sleep(100)
  }
}

/** How the two sides reach each other, such as `host to host` or `relay to srflx`. */
async function chosenPair(connection) {
  const stats = await connection.getStats()
  for (const entry of stats.values()) {
    if (entry.type !== 'transport' || !entry.selectedCandidatePairId) continue
    const { localCandidateId, remoteCandidateId } = stats.get(entry.selectedCandidatePairId)
    return `${stats.get(localCandidateId)?.candidateType} to ${stats.get(remoteCandidateId)?.candidateType}`
  }
  return undefined
}
