// Silence is noticed in time, and sleep is not taken for it.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Backoff } from '../src/backoff.js'
import { Confirmation } from '../src/confirm.js'
import { Liveness } from '../src/liveness.js'
import { FakeClock } from './support/time.mjs'

function set({ answers = () => true, latency = 50 } = {}) {
  const clock = new FakeClock()
  const seen = { pings: 0, died: undefined, doubts: [] }
  const liveness = new Liveness(clock, {
    ping() {
      seen.pings += 1
      if (answers()) clock.setTimeout(() => liveness.heard(), latency)
    },
    dead: () => (seen.died = clock.now()),
    doubt: (doubtful) => seen.doubts.push(doubtful),
  })
  return { clock, liveness, seen }
}

for (const [busy, most] of [
  [true, 8000],
  [false, 20_000],
]) {
  test(`silence is noticed within ${most} ms ${busy ? 'in a call' : 'if idle'}, and doubt is told before`, () => {
    const { clock, liveness, seen } = set({ answers: () => false })
    liveness.busy = busy
    clock.pass(60_000)
    assert.ok(seen.died <= most, `${seen.died} ms`)
    assert.deepEqual(seen.doubts, [true])
    assert.equal(clock.pending, 0)
  })
}

test('the times of the login reply count', () => {
  const { clock, liveness, seen } = set({ answers: () => false })
  liveness.times = { idle_ms: 1000, answer_ms: 500 }
  clock.pass(60_000)
  assert.equal(seen.died, 1500)
})

test('an idle connection that answers costs one ping in 15 s, and lives for ever', () => {
  const { clock, seen } = set()
  clock.pass(3_600_000)
  assert.equal(seen.died, undefined)
  assert.ok(seen.pings >= 230 && seen.pings <= 241, `${seen.pings}`)
  assert.deepEqual(seen.doubts, [])
})

test('a call that begins after a silence of 10 s is noticed at once', () => {
  const { clock, liveness, seen } = set({ answers: () => false })
  clock.pass(10_000)
  liveness.busy = true
  clock.pass(4000)
  assert.equal(seen.died, 14_000)
})

test('a machine that slept, before a ping or after it, asks again and does not give up', () => {
  for (const before of [5000, 15_500, 18_999]) {
    let silent = true
    const { clock, seen } = set({ answers: () => !silent })
    clock.pass(before)
    silent = false
    clock.sleep(3_600_000)
    clock.pass(30_000)
    assert.equal(seen.died, undefined, `slept after ${before} ms`)
  }
})

test('a machine that slept and finds nobody gives up in time', () => {
  const { clock, seen } = set({ answers: () => false })
  clock.pass(5000)
  clock.sleep(60_000)
  const woke = clock.now()
  clock.pass(30_000)
  assert.ok(seen.died - woke <= 5000, `${seen.died - woke} ms`)
})

test('timers that are always a minute late, in a hidden tab, give up in the end', () => {
  const { clock, seen } = set({ answers: () => false })
  for (let i = 0; i < 5; i++) clock.sleep(60_000)
  assert.ok(seen.died <= 240_000, `${seen.died}`)
})

test('a probe asks at once, and once', () => {
  const { clock, liveness, seen } = set({ answers: () => false })
  liveness.probe()
  liveness.probe()
  assert.equal(seen.pings, 1)
  clock.pass(4000)
  assert.equal(seen.died, 4000)
})

test('waits grow, are random, obey the server, and begin anew', () => {
  const clock = new FakeClock(7)
  const backoff = new Backoff(clock, { min: 100, max: 1000 })
  assert.equal(backoff.next({ atOnce: true }), 0)
  const limits = [200, 400, 800, 1000, 1000]
  for (const limit of limits) {
    const delay = backoff.next({ atOnce: true })
    assert.ok(delay >= 0 && delay <= limit, `${delay} of ${limit}`)
  }
  assert.ok(backoff.next({ retryAfter: 5000 }) >= 5000)
  backoff.reset()
  assert.ok(backoff.next() <= 100)
  for (let i = 0; i < 2000; i++) assert.ok(backoff.next() <= 1000)
})

test('what the app was handed is confirmed after 32 messages or 128 KiB, and with each ping', () => {
  const said = []
  const confirmation = new Confirmation((text) => said.push(JSON.parse(text)))
  for (let i = 1; i <= 31; i++) confirmation.handed(`${i}`, 100)
  assert.deepEqual(said, [])
  confirmation.handed('32', 100)
  assert.deepEqual(said, [{ type: 'ack', seq: '32' }])
  assert.deepEqual(JSON.parse(confirmation.ping()), { type: 'ping' })
  confirmation.handed('33', 100)
  assert.deepEqual(JSON.parse(confirmation.ping()), { type: 'ping', seq: '33' })
  assert.deepEqual(JSON.parse(confirmation.ping()), { type: 'ping' })
  confirmation.handed('34', 70_000)
  confirmation.handed('35', 70_000)
  assert.deepEqual(said.slice(1), [{ type: 'ack', seq: '35' }])
})
