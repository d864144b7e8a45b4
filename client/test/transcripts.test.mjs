// Plays clients/transcripts.json, whose `about` says what the steps mean.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { Client } from '../src/index.js'

const { sessions, calls } = JSON.parse(readFileSync(new URL('../../clients/transcripts.json', import.meta.url)))
const LOGGED_IN = { type: 'login', success: true, name: 'alice', session: '0'.repeat(31) + '1', node: 'one' }
Object.assign(LOGGED_IN, { iceServers: [], resumed: false, grace_ms: 10_000, resume: 'secret' })

/** Things that come, and are waited for. */
class Queue {
  #items = []
  #waiting = []
  push(item) {
    if (this.#waiting.length) this.#waiting.shift()(item)
    else this.#items.push(item)
  }
  /** `undefined` if nothing comes in time. */
  async next(within = 15_000) {
    if (this.#items.length) return this.#items.shift()
    return new Promise((resolve) => {
      const take = (item) => (clearTimeout(timer), resolve(item))
      const timer = setTimeout(() => {
        this.#waiting = this.#waiting.filter((one) => one !== take)
        resolve(undefined)
      }, within)
      this.#waiting.push(take)
    })
  }
}

/** A connection, of which the test has the other end. */
const socketsOf = (play) =>
  class {
    readyState = 0
    frames = new Queue()
    constructor() {
      play.connections.push(this)
      setTimeout(() => {
        this.readyState = 1
        this.onopen?.()
      })
    }
    send(text) {
      this.frames.push(JSON.parse(text))
    }
    close(code) {
      this.readyState = 3
      this.frames.push({ closed: code })
    }
    say(message) {
      this.onmessage?.({ data: JSON.stringify(message) })
    }
    end(code) {
      this.readyState = 3
      this.onclose?.({ code, reason: '' })
    }
  }

let made = 0
/** It is connected once it has both descriptions. */
const peersOf = (play) =>
  class {
    signalingState = 'stable'
    connectionState = 'new'
    localDescription = null
    remoteDescription = null
    #id = ++made
    #version = 0
    createDataChannel() {
      queueMicrotask(() => this.signalingState === 'stable' && !this.remoteDescription && this.onnegotiationneeded?.())
      return { readyState: 'connecting', close() {} }
    }
    async setLocalDescription() {
      const type = this.signalingState === 'have-remote-offer' ? 'answer' : 'offer'
      const version = ++this.#version
      const sdp = `o=alice ${this.#id} ${version}\r\na=ice-ufrag:${this.#id}.${version}\r\n`
      this.localDescription = { type, sdp }
      if (type === 'offer') this.signalingState = 'have-local-offer'
      else this.#settle()
      this.onicecandidate?.({ candidate: null })
    }
    async setRemoteDescription(description) {
      this.remoteDescription = description
      if (description.type === 'offer') this.signalingState = 'have-remote-offer'
      else this.#settle()
    }
    #settle() {
      this.signalingState = 'stable'
      this.currentLocalDescription = this.localDescription
      this.currentRemoteDescription = this.remoteDescription
      if (!play.connectable) return
      setTimeout(() => {
        this.connectionState = 'connected'
        this.onconnectionstatechange?.()
      })
    }
    async addIceCandidate() {}
    async getStats() {
      return new Map()
    }
    close() {}
  }

class Play {
  connections = new Queue()
  events = new Queue()
  known = {}
  sent = []
  calls = {}
  connectable = true
  refusedAt = 0

  async run(steps) {
    const [WebSocket, RTCPeerConnection] = [socketsOf(this), peersOf(this)]
    const options = { name: 'alice', transports: ['websocket'], reconnect: { min: 20, max: 20 } }
    this.client = new Client('ws://localhost/', { ...options, WebSocket, RTCPeerConnection })
    this.client.addEventListener('message', ({ name, message }) => this.events.push({ type: 'message', name, message }))
    this.client.addEventListener('call', ({ call }) => (this.calls[call.name] = call))
    this.end = new Promise((resolve) =>
      this.client.addEventListener('state', ({ state, error }) => state === 'closed' && resolve(error?.code)),
    )
    this.opening = this.client.connect().then(
      () => 'let in',
      ({ code }) => code,
    )
    try {
      for (const [number, { times = 1, after_ms: after = 0, ...step }] of steps.entries()) {
        for (let repetition = 1; repetition <= times; repetition++) {
          const [[kind, what]] = Object.entries(step)
          await this[kind](filled(what, repetition)).catch((error) => {
            throw new Error(`step ${number + 1}, ${JSON.stringify(step)}: ${error.message}`, { cause: error })
          })
          // Timers of Node.js may be a millisecond early.
          assert.ok(performance.now() + 2 >= this.refusedAt + after, `step ${number + 1}: too soon`)
        }
      }
    } finally {
      this.client.close()
    }
  }

  matches(expected, heard) {
    if (expected === null) return heard === undefined || heard === null
    if (typeof expected === 'object')
      return typeof heard === 'object' && Object.entries(expected).every(([key, one]) => this.matches(one, heard?.[key]))
    if (String(expected).startsWith('$')) return heard !== undefined && (this.known[expected] ??= heard) === heard
    return expected === '*' || expected === heard
  }

  async nextFrame(within, butPings = true) {
    for (;;) {
      const frame = await this.now.frames.next(within)
      if (frame?.type === 'ping' && butPings) this.now.say({ type: 'pong' })
      else if (frame?.type === 'report') this.now.say({ type: 'ack', id: frame.id, status: 'delivered' })
      else return frame
    }
  }

  async logs_in(fields) {
    await this.connects()
    await this.sends({ type: 'login', name: 'alice', resumable: true })
    await this.server({ ...LOGGED_IN, ...fields })
    assert.equal(await this.opening, 'let in')
  }
  async connects() {
    this.now = await this.connections.next()
    assert.ok(this.now, 'it does not')
  }
  async sends(expected) {
    const frame = await this.nextFrame(15_000, expected.type !== 'ping')
    assert.ok(this.matches(expected, frame), `sent ${JSON.stringify(frame)}`)
  }
  async server(message) {
    if (message.retry_after_ms) this.refusedAt = performance.now()
    this.now.say(Object.fromEntries(Object.entries(message).map(([key, one]) => [key, this.known[one] ?? one])))
  }
  async closes(code) {
    this.now.end(code)
  }
  async breaks() {
    this.now.end(1006)
  }
  async silent() {
    const frame = await this.nextFrame(150)
    assert.equal(frame, undefined, `sent ${JSON.stringify(frame)}`)
  }
  async gone(code) {
    let frame
    do frame = await this.now.frames.next()
    while (frame && !frame.closed)
    assert.ok(frame && (code === true || frame.closed === code), `with ${frame?.closed}`)
  }
  async send([name, message]) {
    this.sent.push(this.client.send(name, message).catch(({ code }) => code))
  }
  async answers([number, expected]) {
    assert.equal(await this.sent[number - 1], expected)
  }
  async close() {
    this.client.close()
  }
  /** Of what may be lost the library takes care by itself. */
  async emits(expected) {
    if (expected.type !== 'message') return
    const event = await this.events.next()
    assert.ok(this.matches(expected, event), `was given ${JSON.stringify(event)}`)
  }
  async refused(code) {
    assert.equal(await this.opening, code)
  }
  async ended(code) {
    assert.equal(await this.end, code)
  }
  async call(name) {
    this.calls[name] = this.client.call(name)
    this.calls[name].connected.catch(() => {})
  }
  async accept(name) {
    this.calls[name].accept()
  }
  async hangup(name) {
    this.calls[name].hangup()
  }
  async unconnectable() {
    this.connectable = false
  }
  async state([name, state]) {
    for (const until = Date.now() + 15_000; this.calls[name]?.state !== state; await sleep(1))
      assert.ok(Date.now() < until, `it is ${this.calls[name]?.state}`)
  }
}

function filled(what, repetition) {
  if (what === '#') return repetition
  if (typeof what === 'string') return what.replaceAll('#', repetition)
  if (typeof what !== 'object' || what === null || Array.isArray(what)) return what
  return Object.fromEntries(Object.entries(what).map(([key, one]) => [key, filled(one, repetition)]))
}

for (const [part, transcripts] of Object.entries({ sessions, calls })) {
  for (const [title, steps] of Object.entries(transcripts)) test(`${part}: ${title}`, () => new Play().run(steps))
}
