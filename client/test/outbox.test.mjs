// What is not acknowledged: a server that refuses, forgets connections and takes its time, under a clock that a test
// turns.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Outbox } from '../src/outbox.js'
import { FakeClock, random } from './support/time.mjs'

/**
 * A server by PROTOCOL: it has a rate, remembers the last 256 ids to each name, and holds back what follows a refusal
 * to the same name until that is repeated or 10 s have passed. It may lose answers, as with the node that had them.
 */
class Server {
  constructor(clock, options = {}) {
    const usual = { perSecond: 200, latency: () => 10, refuses: () => undefined, loses: () => false }
    Object.assign(this, { clock, next: clock.random, ...usual, ...options })
    this.heard = []
    this.outcomes = new Map()
    this.refusals = 0
    this.stumbles = 0
    this.open = false
  }

  connect(outbox) {
    Object.assign(this, {
      outbox,
      open: true,
      tokens: this.perSecond * 2,
      at: this.clock.now(),
      held: new Map(),
      n: (this.n ?? 0) + 1,
    })
    this.dueIn = this.dueOut = 0
    outbox.opened({ signals_per_second: this.tells ? this.perSecond : undefined })
  }

  cut() {
    this.open = false
    this.outbox.lost()
  }

  /** In order, each way, while this connection lasts. */
  later(way, action) {
    const { n } = this
    this[way] = Math.max(this[way], this.clock.now() + this.latency())
    this.clock.setTimeout(() => this.open && this.n === n && action(), this[way] - this.clock.now())
  }

  take(text) {
    this.later('dueIn', () => {
      const message = JSON.parse(text)
      const answer = this.answer(message)
      if (!this.loses(message)) this.later('dueOut', () => this.outbox.settle({ id: message.id, ...answer }))
    })
  }

  refuse(message, code, retry_after_ms) {
    this.refusals += 1
    if (!this.held.has(message.name))
      this.held.set(message.name, { id: message.id, code, until: this.clock.now() + 10_000 })
    return { type: 'error', code, retry_after_ms }
  }

  answer(message) {
    const { id, name } = message
    const now = this.clock.now()
    this.tokens = Math.min(this.perSecond * 2, this.tokens + ((now - this.at) / 1000) * this.perSecond)
    this.at = now
    if (!this.outcomes.has(name)) this.outcomes.set(name, new Map())
    const outcomes = this.outcomes.get(name)
    const known = outcomes.get(id)
    if (known) return known
    const hold = this.held.get(name)
    if (hold && now < hold.until && hold.id !== id) return this.refuse(message, hold.code, 100)
    if (hold?.id === id) this.held.delete(name)
    if (this.tokens < 1)
      return this.refuse(message, 'rate_limited', Math.ceil(((1 - this.tokens) / this.perSecond) * 1000))
    this.tokens -= 1
    const code = this.refuses(message)
    if (code) return this.refuse(message, code, 200)
    this.heard.push([name, message.message])
    const outcome = { type: 'ack', status: 'delivered' }
    outcomes.set(id, outcome)
    if (outcomes.size > 256) outcomes.delete(outcomes.keys().next().value)
    return outcome
  }
}

function set(seed, options) {
  const clock = new FakeClock(seed)
  const server = new Server(clock, options)
  const outbox = new Outbox(clock, (text) => server.open && server.take(text))
  server.connect(outbox)
  return { clock, server, outbox }
}
const say = (outbox, name, message) => outbox.add({ type: 'message', name, message })
const numbers = (count) => Array.from({ length: count }, (_, i) => i)
const to = (server, name) => server.heard.filter(([one]) => one === name).map(([, message]) => message)

test('random histories of refusals, cuts and lost answers: all arrives, once, in order for each receiver', async () => {
  for (let seed = 1; seed <= 100; seed++) {
    const next = random(seed)
    const fate = random(-seed)
    const full = new Map()
    const refuses = ({ name }) => {
      // Somebody's inbox is full for a while, or a store does not answer.
      if (next() < 0.02) full.set(name, Math.ceil(next() * 30))
      const left = full.get(name) ?? 0
      full.set(name, left - 1)
      return left > 0 ? (next() < 0.5 ? 'inbox_full' : 'unavailable') : undefined
    }
    const { clock, server, outbox } = set(seed, {
      perSecond: seed % 2 ? 200 : 20,
      latency: () => next() * 100,
      next,
      refuses,
      loses: () => seed % 3 === 0 && fate() < 0.01,
    })
    server.tells = seed % 4 === 0
    const answers = []
    const sent = { bob: 0, carol: 0 }
    for (let step = 0; step < 60; step++) {
      for (let i = next() * 12; i > 1; i--) {
        const name = next() < 0.6 ? 'bob' : 'carol'
        answers.push(say(outbox, name, sent[name]++))
      }
      if (next() < 0.08) {
        server.cut()
        clock.pass(next() * 500)
        server.connect(outbox)
      }
      clock.pass(next() * 300)
    }
    server.loses = () => false
    clock.pass(600_000)
    assert.equal(outbox.size, 0, `seed ${seed}`)
    await Promise.all(answers)
    for (const name of ['bob', 'carol'])
      assert.deepEqual(to(server, name), numbers(sent[name]), `seed ${seed}, to ${name}`)
  }
})

test('900 messages at once are paced below the limit: none is refused', () => {
  const { clock, server, outbox } = set(1)
  for (const i of numbers(900)) say(outbox, 'bob', i)
  clock.pass(6000)
  assert.deepEqual(to(server, 'bob'), numbers(900))
  assert.equal(server.refusals, 0)
})

test('a reconnect paces what has waited', () => {
  const { clock, server, outbox } = set(1)
  server.cut()
  for (const i of numbers(1000)) say(outbox, 'bob', i)
  server.connect(outbox)
  clock.pass(500)
  assert.ok(server.heard.length <= 300, `${server.heard.length} in half a second`)
  clock.pass(6000)
  assert.deepEqual(to(server, 'bob'), numbers(1000))
  assert.equal(server.refusals, 0)
})

test('a limit that is not told is found out', () => {
  const { clock, server, outbox } = set(1, { perSecond: 20 })
  for (const i of numbers(300)) say(outbox, 'bob', i)
  clock.pass(60_000)
  assert.deepEqual(to(server, 'bob'), numbers(300))
})

test('what is refused for one receiver holds back nothing to others', () => {
  const { clock, server, outbox } = set(1, { refuses: ({ name }) => (name === 'away' ? 'inbox_full' : undefined) })
  for (const i of numbers(3)) say(outbox, 'away', i)
  clock.pass(30)
  say(outbox, 'here', 'hello')
  clock.pass(30)
  assert.deepEqual(server.heard, [['here', 'hello']])
})

test('sizes are counted in bytes of UTF-8, and the server says how many', async () => {
  const { outbox } = set(1)
  await assert.rejects(say(outbox, 'bob', '我'.repeat(30_000)), { code: 'too_large' })
  outbox.lost()
  const waits = assert.rejects(say(outbox, 'bob', 'x'.repeat(5000)), { code: 'too_large' })
  outbox.opened({ frame_bytes: 4096 })
  await waits
  assert.equal(outbox.size, 0)
})

test('a message that takes each connection with it goes alone, and is given up; the others arrive', async () => {
  const { clock, server, outbox } = set(1)
  const take = server.take.bind(server)
  // A proxy that breaks the connection and says nothing.
  server.take = (text) => (text.includes('poison') ? server.later('dueIn', () => server.cut()) : take(text))
  const sent = ['one', 'poison', 'two', 'three'].map((message) => say(outbox, 'bob', message))
  const refused = assert.rejects(sent[1], { code: 'unavailable' })
  for (let i = 0; i < 10; i++) {
    clock.pass(1000)
    if (!server.open) server.connect(outbox)
  }
  await Promise.all([sent[0], refused, sent[2], sent[3]])
  assert.deepEqual(to(server, 'bob'), ['one', 'two', 'three'])
})

test('what is taken back before it was sent never goes; what was under way does not go again', async () => {
  const { clock, server, outbox } = set(1)
  server.cut()
  const leave = new AbortController()
  const waits = assert.rejects(outbox.add({ type: 'message', name: 'bob', message: 'no' }, leave.signal), {
    name: 'AbortError',
  })
  leave.abort()
  await waits
  server.connect(outbox)
  clock.pass(100)
  assert.deepEqual(server.heard, [])
  assert.equal(outbox.size, 0)
})

test('a session that is gone: what was tried is in doubt, what was not goes over the next one', async () => {
  const { clock, server, outbox } = set(1)
  server.latency = () => 1000
  const doubtful = assert.rejects(say(outbox, 'bob', 'tried'), { code: 'unavailable' })
  clock.pass(10)
  server.cut()
  const goes = say(outbox, 'bob', 'waits')
  outbox.forget()
  await doubtful
  server.connect(outbox)
  clock.pass(5000)
  await goes
  assert.deepEqual(to(server, 'bob'), ['waits'])
})

test('answers that were lost with the node that had them are asked for again, over the same connection', async () => {
  const { clock, server, outbox } = set(1, { loses: ({ id }) => server.again.delete(id) })
  server.again = new Set([3, 4])
  const sent = [0, 1, 2, 3].map((message) => say(outbox, 'bob', message))
  clock.pass(7000)
  assert.equal(outbox.size, 2)
  clock.pass(3000)
  await Promise.all(sent)
  assert.deepEqual(to(server, 'bob'), [0, 1, 2, 3])
})

test('an answer that did not come before a later one is lost, and asked for at once', () => {
  const { clock, server, outbox } = set(1, { loses: ({ id }) => server.again.delete(id) })
  server.again = new Set([2, 3])
  for (const i of [0, 1, 2, 3]) say(outbox, i === 1 ? 'carol' : 'bob', i)
  clock.pass(100)
  assert.equal(outbox.size, 0)
  assert.deepEqual(to(server, 'bob'), [0, 2, 3])
  assert.deepEqual(to(server, 'carol'), [1])
})

test('an answer that was only late costs one repetition', () => {
  const clock = new FakeClock(1)
  const sent = []
  const outbox = new Outbox(clock, (text) => sent.push(JSON.parse(text).id))
  outbox.opened({})
  for (const i of numbers(3)) say(outbox, 'bob', i)
  for (const id of [2, 1, 3]) outbox.settle({ type: 'ack', id, status: 'delivered' })
  assert.deepEqual(sent, [1, 2, 3, 1])
})

test('however much follows what is not answered, it is repeated before its receiver has forgotten it', async () => {
  const { clock, server, outbox } = set(1, { loses: ({ id }) => id >= 3 && id <= 6 && clock.now() < 3000 })
  const sent = numbers(500).map((message) => say(outbox, 'bob', message))
  clock.pass(100)
  const others = numbers(400).map((message) => say(outbox, 'carol', message))
  clock.pass(20_000)
  await Promise.all([...sent, ...others])
  assert.deepEqual(to(server, 'bob'), numbers(500))
  assert.deepEqual(to(server, 'carol'), numbers(400))
})

test('a lost answer is asked for although other answers keep coming', () => {
  const refuses = ({ name }) => (name === 'nobody' ? 'user_unavailable' : undefined)
  const { clock, server, outbox } = set(1, { refuses, loses: ({ id }) => server.again.delete(id) })
  server.again = new Set([1])
  say(outbox, 'bob', 0)
  for (let i = 0; i < 10; i++) {
    say(outbox, 'nobody', i).catch(() => {})
    clock.pass(1000)
  }
  assert.equal(outbox.size, 0)
  assert.deepEqual(to(server, 'bob'), [0])
})
