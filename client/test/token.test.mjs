// A token that ends soon is replaced over the link that heard so.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Login } from '../src/login.js'
import { FakeClock } from './support/time.mjs'

const settled = () => new Promise((resolve) => setImmediate(resolve))

function setUp(token) {
  const said = []
  const clock = new FakeClock()
  const link = () => ({ kind: 'websocket', send: (text) => said.push(JSON.parse(text)) })
  const port = { current: link(), link: () => port.current }
  const life = new AbortController()
  return { said, clock, port, link, life, login: new Login(clock, token, port) }
}

test('an app is asked for a new token, again if it has none', async () => {
  const tokens = [undefined, Promise.reject(new Error('away')), 'new']
  tokens[1].catch(() => {})
  const { said, clock, life, login } = setUp(() => tokens.shift())
  login.renew(life.signal)
  await settled()
  assert.deepEqual(said, [])
  for (let tries = 0; tries < 2; tries += 1) {
    clock.pass(5000)
    await settled()
  }
  assert.deepEqual(said, [{ type: 'token', token: 'new' }])
  assert.equal(clock.pending, 0)
})

test('a link that comes meanwhile has logged in with a token of its own', async () => {
  let give
  const { said, port, link, life, login } = setUp(() => new Promise((resolve) => (give = resolve)))
  login.renew(life.signal)
  await settled()
  port.current = link()
  give('late')
  await settled()
  assert.deepEqual(said, [])
})

test('a token that is no function is not replaced', async () => {
  const { said, life, login } = setUp('fixed')
  login.renew(life.signal)
  await settled()
  assert.deepEqual(said, [])
  assert.equal(login.renews, false)
})
