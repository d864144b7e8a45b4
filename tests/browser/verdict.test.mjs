// What the doctor makes of facts, without a browser: each cause by itself, and that one does not pass for another.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { asText, diagnose } from '../../src/transport/pages/doctor/verdict.js'

const login = (node, code) => ({ door: 'ws', ok: !code, node, code, ms: 3 })
const signal = (from, to, more = {}) => ({ from, to, sent: 10, received: 10, p50: 2, max: 4, ...more })
const server = (url, more = {}) => ({ url, kind: url.startsWith('stun') ? 'stun' : 'turn', transport: url.startsWith('turns') ? 'tls' : url.endsWith('tcp') ? 'tcp' : 'udp', ok: true, ms: 40, errors: [], ...more })
const failing = (url, code, more = {}) => server(url, { ok: false, errors: code ? [{ code, text: 'words' }] : [], ...more })

const UDP = 'turn:turn.example.org:3478?transport=udp'
const TCP = 'turn:turn.example.org:3478?transport=tcp'
const TLS = 'turns:turn.example.org:443?transport=tcp'
const STUN = 'stun:turn.example.org:3478'

/** All is well; each test changes something. */
const facts = (changes = {}) => ({
  page: { webrtc: true, secure: true, protocol: 'https:' },
  media: { cameras: 1, microphones: 2 },
  whoami: { ok: true, ms: 5, view: { version: '0.1.0', http_version: '1.1' }, nodes: ['one', 'two'] },
  websocket: { opened: true, pong: true, ms: 9, tries: 2 },
  session: { ok: true },
  sse: { ok: true, status: 200, ms: 8 },
  poll: { ok: true, status: 200, ms: 8 },
  logins: [login('one'), login('two'), login('one'), login('two')],
  nodes: ['one', 'two'],
  signals: [signal('one', 'two'), signal('two', 'one')],
  ice: [server(STUN), server(UDP), server(TCP)],
  relay: [{ url: UDP, connected: true, took: 60 }],
  call: { connected: true, state: 'connected', ms: 50, pair: 'host to host', frames: 4 },
  idle: { watched: 30_000, websocket: { cut: false }, busy: { cut: false }, sse: { cut: false }, poll: { cut: false } },
  ...changes,
})

const shut = { websocket: { opened: false, tries: 2 } }
const cut = (ms) => ({ cut: true, ms, again: ms })
const CASES = [
  ['no_webrtc', 'broken', { page: { webrtc: false, secure: true, protocol: 'https:' }, call: undefined, ice: undefined, relay: undefined }],
  ['insecure_page', 'limited', { page: { webrtc: true, secure: false, protocol: 'http:' } }],
  ['unreachable', 'broken', { whoami: { ok: false, status: 502, nodes: [] }, ...shut, session: { ok: false, status: 502 }, sse: undefined, poll: undefined, logins: [] }],
  ['origin_refused', 'broken', { ...shut, session: { ok: false, status: 403, code: 'forbidden' }, sse: undefined, poll: undefined, logins: [] }],
  ['too_many_connections', 'broken', { sse: { ok: false, status: 429, code: 'too_many', ms: 3 }, logins: [login(undefined, 'no_connection')], nodes: [], signals: undefined }],
  ['draining', 'broken', { ...shut, session: { ok: false, status: 503, code: 'draining' }, sse: undefined, poll: undefined, logins: [] }],
  ['websocket_blocked', 'limited', shut],
  ['websocket_mute', 'limited', { websocket: { opened: true, pong: false, ms: 9, tries: 2 } }],
  ['sse_buffered', 'limited', { sse: { ok: false, status: 200, late: true, ms: 5000 } }],
  ['sse_refused', 'limited', { sse: { ok: false, status: 502, ms: 20 } }],
  ['poll_failed', 'limited', { poll: { ok: false, status: 502, ms: 20 } }],
  ['http_door_shut', 'limited', { session: { ok: false, status: 404 }, sse: undefined, poll: undefined }],
  ['redis_away', 'broken', { session: { ok: false, status: 503, code: 'unavailable' }, logins: [login(undefined, 'unavailable'), login(undefined, 'unavailable')], nodes: [], signals: undefined }],
  ['node_cut_off', 'broken', { logins: [login('one'), login(undefined, 'unavailable')], nodes: ['one'], signals: [signal('one', 'one')] }],
  ['login_refused', 'broken', { logins: [login(undefined, 'unauthorized')], nodes: [], signals: undefined }],
  ['login_unanswered', 'broken', { logins: [login(undefined, 'no_answer')], nodes: [], signals: undefined }],
  ['connections_refused', 'limited', { logins: [login('one'), login('two'), login(undefined, 'no_connection')] }],
  ['nodes_apart', 'broken', { signals: [signal('one', 'two', { received: 0, code: 'user_unavailable' })] }],
  ['nodes_apart', 'broken', { gone: true, sse: { ok: false, status: 404, code: 'session_gone', ms: 4 }, poll: { ok: false, status: 404, code: 'session_gone', ms: 4 } }],
  ['signals_lost', 'broken', { signals: [signal('one', 'two', { received: 7 })] }],
  ['signals_slow', 'limited', { signals: [signal('one', 'two', { p50: 900 })] }],
  ['idle_cut', 'limited', { idle: { watched: 30_000, websocket: cut(3000), busy: { cut: false } } }],
  ['connections_cut', 'limited', { idle: { watched: 30_000, websocket: cut(3000), busy: cut(3000) } }],
  ['stun_unreachable', 'limited', { ice: [failing(STUN), server(UDP)] }],
  ['turn_credentials', 'limited', { ice: [server(STUN), failing(UDP, 401, { expiresIn: 3500 })], relay: [] }],
  ['turn_expired', 'limited', { ice: [server(STUN), failing(UDP, 401, { expiresIn: -3600 })], relay: [] }],
  ['turn_unreachable', 'limited', { ice: [server(STUN), failing(UDP), failing(TCP, 701)], relay: [] }],
  ['turn_tls', 'limited', { ice: [server(STUN), server(UDP), failing(TLS, 701)] }],
  ['turn_full', 'limited', { ice: [server(STUN), failing(UDP, 486)], relay: [] }],
  ['turn_refused', 'limited', { ice: [server(STUN), failing(UDP, 403)], relay: [] }],
  ['relay_mute', 'limited', { relay: [{ url: UDP, connected: false }] }],
  ['call_failed', 'broken', { call: { connected: false, state: 'checking', ms: 10_000 } }],
  ['no_media', 'limited', { call: { connected: true, state: 'connected', ms: 50, frames: 0 } }],
]

test('a healthy house is called well, and nothing is asked of anybody', () => {
  const verdict = diagnose(facts())
  assert.deepEqual([verdict.overall, verdict.causes], ['well', []])
  assert.ok(verdict.checks.every((check) => check.state === 'ok'), JSON.stringify(verdict.checks))
})

for (const [code, overall, changes] of CASES) {
  test(`${code}: named, alone, with what to do and by whom`, () => {
    const verdict = diagnose(facts(changes))
    assert.deepEqual(verdict.causes.map((cause) => cause.code), [code])
    assert.equal(verdict.overall, overall)
    for (const words of ['title', 'why', 'todo', 'whose']) assert.match(verdict.causes[0][words], /\w{3}/)
    assert.doesNotMatch(asText(verdict), /undefined|NaN|\[object/)
  })
}

test('what works worse is told after what does not work', () => {
  const verdict = diagnose(facts({ ...shut, call: { connected: false, state: 'checking', ms: 10_000 } }))
  assert.deepEqual(verdict.causes.map((cause) => cause.code), ['call_failed', 'websocket_blocked'])
  assert.equal(verdict.overall, 'broken')
})

test('notes leave all well', () => {
  for (const [code, changes] of [
    ['one_node', { nodes: ['one'], signals: [signal('one', 'one')] }],
    ['no_ice_servers', { ice: [], relay: undefined }],
    ['no_turn', { ice: [server(STUN)], relay: undefined }],
    ['turn_udp_blocked', { ice: [failing(UDP), server(TCP)] }],
    ['idle_cut_sse', { idle: { watched: 30_000, websocket: { cut: false }, busy: { cut: false }, sse: { cut: true, ms: 9000 } } }],
  ]) {
    const verdict = diagnose(facts(changes))
    assert.deepEqual([verdict.overall, verdict.causes.map((cause) => cause.code)], ['well', [code]])
  }
})

test('a cut that did not happen again accuses nobody', () => {
  assert.equal(diagnose(facts({ idle: { watched: 30_000, websocket: { cut: false, once: 4000 }, busy: { cut: false } } })).overall, 'well')
})

test('half the facts are no reason to fail: it is shown while it is found out', () => {
  const all = facts()
  const so_far = {}
  for (const part of Object.keys(all)) {
    so_far[part] = all[part]
    assert.doesNotMatch(asText(diagnose(so_far)), /undefined|NaN/, part)
  }
  assert.deepEqual(diagnose({}).checks, [])
})

test('the text has the verdict, what to do, and each check, and no credential', () => {
  const text = asText(diagnose(facts({ ice: [failing(UDP, 401, { expiresIn: 3500, credential: 'hidden' })], relay: [] })), { when: '2026-11-24', where: 'https://example.org', browser: 'Some Browser' })
  for (const words of ['limited', 'https://example.org', 'Some Browser', 'ice.turn_secret', '[turn_credentials]', 'FAIL  TURN by UDP']) assert.ok(text.includes(words), words)
  assert.doesNotMatch(text, /hidden/)
})
