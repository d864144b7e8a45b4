// Two sides that offer whenever they like, over a link that takes its time and may lose what it carries, with peer
// connections that are as strict as a browser's.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Negotiation } from '../src/negotiation.js'
import { FakeClock, random } from './support/time.mjs'

let versions = 0

/** The states of webrtc-pc, and descriptions that say what each side has. */
class FakePeerConnection {
  signalingState = 'stable'
  connectionState = 'new'
  localDescription = null
  currentLocalDescription = null
  currentRemoteDescription = null
  has = 0
  #needed = false
  #before

  constructor(name) {
    this.name = name
  }

  /** The app adds something. */
  add() {
    this.has += 1
    this.#need()
  }

  #need() {
    this.#needed = true
    // As a browser does: once, later, and only if nothing is under way.
    queueMicrotask(() => this.#needed && this.signalingState === 'stable' && this.onnegotiationneeded?.())
  }

  async setLocalDescription() {
    await null
    const type = this.signalingState === 'have-remote-offer' ? 'answer' : 'offer'
    if (type === 'offer' && this.signalingState !== 'stable') throw new Error(`offer in ${this.signalingState}`)
    const sdp = `o=${this.name} ${++versions}\na=ice-ufrag:${versions}\na=has:${this.has}`
    this.#needed = false
    this.localDescription = { type, sdp }
    if (type === 'offer') this.signalingState = 'have-local-offer'
    else this.#stable(this.localDescription, this.remote)
    queueMicrotask(() => this.onicecandidate?.({ candidate: { candidate: `of ${versions}` } }))
  }

  async setRemoteDescription({ type, sdp }) {
    await null
    if (type === 'answer') {
      if (this.signalingState !== 'have-local-offer') throw new Error(`answer in ${this.signalingState}`)
      this.#stable(this.localDescription, { type, sdp })
    } else {
      // What was offered is taken back, and is to be offered again.
      if (this.signalingState === 'have-local-offer') this.#needed = true
      this.remote = { type, sdp }
      this.signalingState = 'have-remote-offer'
    }
  }

  #stable(local, remote) {
    Object.assign(this, { signalingState: 'stable', currentLocalDescription: local, currentRemoteDescription: remote })
    const said = local.sdp.endsWith(`a=has:${this.has}`)
    if (this.#needed || !said) this.#need()
  }

  async addIceCandidate() {}
}

function world(seed, { loss = 0 } = {}) {
  const clock = new FakeClock(seed)
  const next = random(seed)
  const failures = []
  const sides = ['alice', 'bob'].map((name) => ({ name, pc: new FakePeerConnection(name) }))
  sides.forEach((side, i) => {
    const other = sides[1 - i]
    let due = 0
    side.negotiation = new Negotiation(side.pc, {
      isPolite: () => side.name < other.name,
      isOver: () => false,
      failed: (error) => failures.push(`${side.name}: ${error.message}`),
      beforeAnswer: () => {},
      send(type, body) {
        if (next() < scene.loss) return
        due = Math.max(due, clock.now() + next() * 200)
        clock.setTimeout(() => other.negotiation.hear(type, body), due - clock.now())
      },
    })
  })
  const pass = async (ms) => {
    for (let i = 0; i < ms; i += 20) {
      clock.pass(20)
      for (let turn = 0; turn < 12; turn++) await null
    }
  }
  const scene = { sides, pass, next, failures, loss }
  return scene
}

function agree({ sides, failures }, what) {
  const [alice, bob] = sides.map(({ pc }) => pc)
  assert.deepEqual(failures, [], what)
  assert.deepEqual([alice.signalingState, bob.signalingState], ['stable', 'stable'], what)
  for (const [one, other] of [
    [alice, bob],
    [bob, alice],
  ]) {
    assert.equal(
      one.currentLocalDescription.sdp,
      other.currentRemoteDescription.sdp,
      `${what}: each has what the other said`,
    )
    assert.ok(one.currentLocalDescription.sdp.endsWith(`a=has:${one.has}`), `${what}: all that was added was said`)
  }
}

test('both offer at any moment, 80 histories: both are stable, and each has what the other said last', async () => {
  for (let seed = 1; seed <= 80; seed++) {
    const scene = world(seed)
    scene.sides[0].pc.add()
    for (let step = 0; step < 8; step++) {
      await scene.pass(scene.next() * 300)
      for (const { pc } of scene.sides) if (scene.next() < 0.6) pc.add()
    }
    await scene.pass(6000)
    agree(scene, `seed ${seed}`)
  }
})

test('what is lost on the way is said again, 50 histories', async () => {
  for (let seed = 1; seed <= 50; seed++) {
    const scene = world(seed, { loss: 0.3 })
    scene.sides[0].pc.add()
    for (let step = 0; step < 6; step++) {
      await scene.pass(scene.next() * 400)
      for (const { pc, negotiation } of scene.sides) {
        if (scene.next() < 0.4) pc.add()
        if (scene.next() < 0.3) negotiation.repeat()
      }
    }
    scene.loss = 0
    for (let i = 0; i < 6; i++) {
      await scene.pass(1500)
      for (const { negotiation } of scene.sides) negotiation.repeat()
    }
    await scene.pass(3000)
    agree(scene, `seed ${seed}`)
  }
})

test('an answer that is repeated does not pass for one to a later offer', async () => {
  const scene = world(1)
  const [alice, bob] = scene.sides
  alice.pc.add()
  await scene.pass(1000)
  const late = { ...alice.pc.currentRemoteDescription, to: 'another' }
  alice.pc.add()
  await scene.pass(40)
  alice.negotiation.hear('answer', late)
  await scene.pass(2000)
  agree(scene, 'after a late answer')
  assert.ok(bob.pc.currentRemoteDescription.sdp.endsWith('a=has:2'))
})

test('addresses of its own are told as just below unknown ones, in the same order; others as they are', async () => {
  const pc = new FakePeerConnection('alice')
  const told = []
  const found = []
  new Negotiation(pc, { isOver: () => false, send: (type, body) => told.push([type, body]), foundNetwork: () => found.push(1) })
  const candidate = (priority, kind) => `candidate:1 1 udp ${priority} 192.0.2.1 5000 typ ${kind}`
  const priorities = { host: [2122260223, 2122194687, 2113929216], srflx: [1686052607], relay: [41885439, 25108223] }
  for (const [kind, all] of Object.entries(priorities))
    for (const priority of all) pc.onicecandidate({ candidate: { candidate: candidate(priority, kind), sdpMid: '0' } })
  assert.ok(told.every(([type, { sdpMid }]) => type === 'candidate' && sdpMid === '0'))
  const now = told.map(([, body]) => Number(body.candidate.split(' ')[3]))
  assert.deepEqual(now.slice(3), [1686052607, 41885439, 25108223])
  // An unknown address has at least 110 × 2 ** 24 (RFC 8445, section 5.1.2.2).
  assert.ok(now[0] < 110 * 2 ** 24 && now[0] - now[1] === 65536 && now[2] > now[3], `${now}`)
  assert.deepEqual(found, [])
  pc.iceGatheringState = 'complete'
  pc.onicecandidate({ candidate: { candidate: candidate(2122260223, 'host') } })
  assert.deepEqual(found, [1])
})
