// Which call a signal belongs to: two sides that dial, hang up and answer at any moment, over a link that takes its
// time.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Pairing } from '../src/pairing.js'
import { FakeClock, random } from './support/time.mjs'

/** One side, as `Calls` is, without browsers: an offer is answered with an answer. */
class Side {
  constructor(name, clock, { pages = 0 } = {}) {
    Object.assign(this, { name, clock, pages })
    this.load()
  }

  /** The page is loaded (again): nothing is known. */
  load() {
    this.pages += 1
    this.pairing = new Pairing(`${this.name}${this.pages}`)
    this.call = undefined
  }

  send(type, body) {
    this.other.arrives({ type, ...body })
  }

  arrives(message) {
    // In order, and after a while.
    this.due = Math.max(this.due ?? 0, this.clock.now() + this.delay())
    this.clock.setTimeout(() => this.hear(message), this.due - this.clock.now())
  }

  dial() {
    if (this.call) return
    const pair = this.pairing.begin()
    this.call = { pair, state: 'calling', incoming: false }
    const { call } = this
    // A browser takes a moment to make an offer.
    this.clock.setTimeout(() => this.call === call && !call.answered && this.offer(call), this.slow() * 5)
  }

  offer(call) {
    call.sent = true
    this.send('offer', this.pairing.stamp('offer', call.pair))
    this.candidates(call)
  }

  candidates(call) {
    for (let i = 0; i < 3; i++) {
      this.clock.setTimeout(
        () => this.call === call && this.send('candidate', this.pairing.stamp('candidate', call.pair)),
        this.slow() * 30 * i,
      )
    }
  }

  hangUp() {
    const { call } = this
    if (!call) return
    this.end()
    this.send('bye', { bye: 'hangup', leg: call.pair.leg, peer: call.pair.peer })
    this.send('leave', {})
  }

  end() {
    this.pairing.end(this.call.pair)
    this.call = undefined
  }

  hear({ type, ...stamp }) {
    if (type === 'leave') return
    if (type === 'closed') return void (this.call && this.end())
    if (type === 'bye') {
      const means = this.pairing.hearBye(stamp)
      if (means === 'ends') this.end()
      else if (means === 'repeat') this.offer(this.call)
      return
    }
    const { to, reply } = this.pairing.hear(type, stamp)
    if (reply) this.send('bye', reply)
    if (to === 'new') {
      if (this.call) this.end()
      this.call = { pair: this.pairing.begin(), state: 'ringing', incoming: true }
      this.pairing.hear(type, stamp)
      const { call } = this
      this.clock.setTimeout(() => this.call === call && this.answer(call), this.slow() * 50)
    } else if (to === 'current') {
      const { call } = this
      // Perfect negotiation: of two offers one is taken.
      const isGlare = type === 'offer' && call.sent && !call.connected
      if (type === 'answer') call.connected = true
      else if (type === 'offer' && !call.incoming && (!isGlare || this.name < this.other.name)) this.answer(call)
    }
  }

  answer(call) {
    call.answered = call.connected = true
    this.send('answer', this.pairing.stamp('answer', call.pair))
  }
}

function world(seed, most) {
  const clock = new FakeClock(seed)
  const next = random(seed * 7919 + 1)
  const [alice, bob] = ['alice', 'bob'].map((name) => new Side(name, clock))
  Object.assign(alice, { other: bob })
  Object.assign(bob, { other: alice })
  for (const side of [alice, bob]) Object.assign(side, { delay: () => next() * most, slow: next })
  return { clock, next, alice, bob }
}

function agree({ alice, bob }, what) {
  const state = () =>
    JSON.stringify([alice, bob].map(({ call }) => call && { ...call.pair, connected: call.connected }))
  assert.equal(!alice.call, !bob.call, `${what}: one is in a call and the other is not: ${state()}`)
  if (!alice.call) return false
  assert.deepEqual(
    [alice.call.pair.leg, alice.call.pair.peer],
    [bob.call.pair.peer, bob.call.pair.leg],
    `${what}: ${state()}`,
  )
  assert.ok(alice.call.connected && bob.call.connected, `${what}: connected, both: ${state()}`)
  return true
}

test('both hang up and redial, 5000 times with 0 to 200 ms each way: both sides agree, and are connected', () => {
  let connected = 0
  for (let seed = 1; seed <= 500; seed++) {
    const scene = world(seed, 200)
    const { clock, next, alice, bob } = scene
    alice.dial()
    for (let round = 0; round < 10; round++) {
      clock.pass(next() < 0.5 ? next() * 300 : 2000)
      for (const side of next() < 0.5 ? [alice, bob] : [bob, alice]) {
        side.hangUp()
        clock.pass(next() < 0.7 ? 0 : next() * 100)
        side.dial()
      }
      if (round % 2 || next() < 0.5) continue
      clock.pass(5000)
      agree(scene, `seed ${seed}, round ${round}`)
    }
    clock.pass(5000)
    if (agree(scene, `seed ${seed}`)) connected++
  }
  assert.ok(connected >= 475, `${connected} of 500 ended connected: who hangs up last, unheard, wins`)
})

test('anything at any moment, pages that are loaded again too: both sides agree in the end', () => {
  for (let seed = 1; seed <= 2000; seed++) {
    const scene = world(seed, [0, 20, 200, 1000][seed % 4])
    const { clock, next, alice, bob } = scene
    for (let step = 0; step < 30; step++) {
      const side = next() < 0.5 ? alice : bob
      const what = next()
      if (what < 0.45) side.dial()
      else if (what < 0.9) side.hangUp()
      else if (seed % 3 === 0) {
        // Told by the server, as its session is over.
        side.load()
        side.other.arrives({ type: 'closed' })
      }
      clock.pass(next() < 0.6 ? next() * 20 : next() * 3000)
    }
    clock.pass(20_000)
    agree(scene, `seed ${seed}`)
  }
})

test('a call to somebody who has never heard of a call that was given up is heard', () => {
  const scene = world(1, 0)
  const { clock, alice, bob } = scene
  alice.dial()
  clock.pass(10)
  alice.hangUp()
  clock.pass(100)
  // A page that knows nothing of it.
  bob.load()
  bob.dial()
  clock.pass(1000)
  assert.equal(agree(scene, 'after a reload'), true)
})

test('clients of other makes, which have no legs, belong to whatever call there is', () => {
  const pairing = new Pairing('a')
  assert.deepEqual(pairing.hear('candidate', {}), { to: 'none' })
  assert.deepEqual(pairing.hear('offer', {}), { to: 'new' })
  pairing.begin()
  for (const type of ['offer', 'answer', 'candidate']) assert.deepEqual(pairing.hear(type, {}), { to: 'current' })
})

test('an older edition, which does not say what it heard, is understood', () => {
  const pairing = new Pairing('a')
  const pair = pairing.begin()
  pairing.stamp('offer', pair)
  assert.deepEqual(pairing.hear('offer', { leg: 'old' }), { to: 'current' })
  assert.equal(pair.peer, 'old')
  assert.equal(pairing.hearBye({ bye: 'hangup', leg: 'older', peer: 'x' }), undefined)
  assert.equal(pairing.hearBye({ bye: 'hangup', leg: 'old', peer: pair.leg }), 'ends')
})

test('a signal to a leg that is over is answered once by saying so', () => {
  const pairing = new Pairing('a')
  const pair = pairing.begin()
  pairing.stamp('offer', pair)
  pairing.end(pair)
  assert.deepEqual(pairing.hear('answer', { leg: 'b', peer: pair.leg }), {
    to: 'none',
    reply: { bye: 'hangup', leg: pair.leg, peer: 'b' },
  })
  assert.deepEqual(pairing.hear('candidate', { leg: 'b', peer: pair.leg }), { to: 'none' })
})

test('who speaks of a call that is over is told so, once for each pair of legs', () => {
  const bob = new Pairing('b')
  const pair = bob.begin()
  bob.stamp('offer', pair)
  assert.equal(bob.hear('answer', { leg: 'a.1', peer: pair.leg }).to, 'current')
  bob.end(pair)
  // Of an older leg of ours first: that says nothing of the last one.
  for (const peer of ['b.old', pair.leg]) {
    const reply = { bye: 'hangup', leg: peer, peer: 'a.1' }
    assert.deepEqual(bob.hear('candidate', { leg: 'a.1', peer }), { to: 'none', reply })
    assert.deepEqual(bob.hear('candidate', { leg: 'a.1', peer }), { to: 'none' })
  }
  assert.deepEqual(bob.hear('offer', { leg: 'a.1', heard: null }), { to: 'none' })
})
