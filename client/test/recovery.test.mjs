// When ICE is restarted, and when a call is given up.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Recovery } from '../src/recovery.js'
import { FakeClock } from './support/time.mjs'

/** `flows` says whether something comes; `isThere` whether the server does. */
function set({ giveUp = 60_000 } = {}) {
  const clock = new FakeClock()
  const seen = { restarts: [], probes: 0, ended: undefined }
  const scene = { clock, seen, flows: true, isThere: true }
  let bytes = 0
  scene.recovery = new Recovery(clock, giveUp, {
    restart: () => (seen.restarts.push(clock.now()), scene.isThere),
    probe: () => seen.probes++,
    giveUp: () => (seen.ended = clock.now()),
    received: async () => (bytes += scene.flows ? 1000 : 0),
  })
  /** Lets time pass in steps, so that what is asked for is answered. */
  scene.pass = async (ms) => {
    for (let i = 0; i < ms; i += 100) {
      clock.pass(100)
      await null
      await null
      await null
    }
  }
  return scene
}

test('a call that flows is left alone', async () => {
  const { recovery, seen, pass } = set()
  recovery.connected()
  await pass(60_000)
  assert.deepEqual(seen, { restarts: [], probes: 0, ended: undefined })
})

test('a call that says nothing, as both are muted or it has only data, is left alone', async () => {
  const scene = set()
  scene.flows = false
  scene.recovery.connected()
  await scene.pass(60_000)
  assert.deepEqual(scene.seen.restarts, [])
})

test('what flowed and stops: the server is probed within 1.3 s, ICE restarted within 2 s, and a few times more', async () => {
  const scene = set()
  scene.recovery.connected()
  await scene.pass(5000)
  scene.flows = false
  const at = scene.clock.now()
  await scene.pass(1300)
  assert.equal(scene.seen.probes, 1)
  await scene.pass(60_000)
  const after = scene.seen.restarts.map((time) => time - at)
  assert.ok(after[0] <= 2000, `${after}`)
  assert.ok(after.length >= 3 && after.length <= 6, `${after}`)
  assert.equal(scene.seen.ended, undefined, 'the browser says when a connection is gone')
})

test('a network that has changed: ICE is restarted at once, and again until something comes', async () => {
  const scene = set()
  scene.recovery.connected()
  await scene.pass(5000)
  scene.flows = false
  scene.recovery.changed()
  await scene.pass(2500)
  scene.flows = true
  await scene.pass(30_000)
  assert.ok(scene.seen.restarts.length >= 2 && scene.seen.restarts.length <= 3, `${scene.seen.restarts}`)
})

test('the browser finds the new network late: ICE is restarted again soon after that, once', async () => {
  for (const late of [100, 600, 1500]) {
    const scene = set()
    scene.recovery.connected()
    await scene.pass(5000)
    scene.flows = false
    scene.recovery.changed()
    await scene.pass(late)
    const at = scene.clock.now()
    // By UDP and by TCP.
    scene.recovery.found()
    scene.recovery.found()
    await scene.pass(1300)
    const [, ...again] = scene.seen.restarts.map((time) => time - at)
    assert.ok(again.length === 1 && again[0] <= 1200, `${late}: ${again}`)
    scene.flows = true
    await scene.pass(30_000)
    assert.equal(scene.seen.restarts.length, 2)
  }
})

test('a network that is found while the call flows changes nothing; while it is interrupted ICE is restarted', async () => {
  const scene = set()
  scene.recovery.connected()
  await scene.pass(5000)
  scene.recovery.found()
  await scene.pass(30_000)
  assert.deepEqual(scene.seen.restarts, [])
  scene.recovery.interrupted(false)
  await scene.pass(1400)
  assert.equal(scene.seen.restarts.length, 1)
  scene.recovery.found()
  scene.recovery.found()
  await scene.pass(100)
  assert.equal(scene.seen.restarts.length, 2)
})

test('while the server is away a restart is owed, and made when it is back', async () => {
  const scene = set()
  scene.recovery.connected()
  await scene.pass(5000)
  scene.isThere = false
  scene.recovery.changed()
  scene.isThere = true
  scene.recovery.awake()
  assert.equal(scene.seen.restarts.length, 2)
  scene.recovery.awake()
  assert.equal(scene.seen.restarts.length, 2)
})

test('an interrupted call is given up in time, not sooner, and not if it comes back', async () => {
  const scene = set({ giveUp: 10_000 })
  scene.recovery.connected()
  scene.recovery.interrupted(false)
  await scene.pass(9900)
  assert.equal(scene.seen.ended, undefined)
  assert.ok(scene.seen.restarts.length >= 3)
  scene.recovery.connected()
  scene.recovery.interrupted(true)
  const at = scene.clock.now()
  await scene.pass(20_000)
  assert.equal(scene.seen.ended - at, 10_000)
})

test('what has ended does nothing more', async () => {
  const { clock, recovery, seen, pass } = set()
  recovery.connected()
  recovery.interrupted(false)
  recovery.end()
  await pass(100_000)
  assert.deepEqual([seen.restarts, seen.ended, clock.pending], [[], undefined, 0])
})
