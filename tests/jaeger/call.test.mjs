// A call of two browsers on two nodes, as a person finds it in a real Jaeger. `make test-jaeger`

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { eventually, launchBrowser, openCaller, startFiles, startNode, startRedis, stateOf } from '../browser/support/index.mjs'
import { WebSocket } from '../browser/node_modules/ws/wrapper.mjs'
import { hasWarnings, rowsOf, startJaeger, tracesOf } from './jaeger.mjs'

/** For how long it rings. A span that lasts as long lasts longer than its signal took. */
const RINGS = 1500
/** No signal takes longer between two nodes of one machine. */
const SIGNAL = 500_000
/** What no span may hold: parts of session descriptions, candidates, and addresses. */
const SECRETS = [/v=0/, /a=(ice|candidate|fingerprint)/, /candidate:/, /\b(?:\d{1,3}\.){3}\d{1,3}\b/]
const NO_ADDRESS = new Set(['service.version', 'otel.scope.version', 'telemetry.sdk.version', 'internal.span.format'])

let jaeger, redis, nodes, files, browser
before(async () => {
  ;[jaeger, redis, files, browser] = await Promise.all([startJaeger(), startRedis(), startFiles(), launchBrowser()])
  const exports = [
    { OTEL_EXPORTER_OTLP_ENDPOINT: jaeger.grpc, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' },
    { OTEL_EXPORTER_OTLP_ENDPOINT: jaeger.http, OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf' },
  ]
  const start = (env, n) => startNode({ redis, id: ['one', 'two'][n], env: { ...env, OTEL_BSP_SCHEDULE_DELAY: '200' } })
  nodes = await Promise.all(exports.map(start))
})
after(async () => {
  await browser?.close()
  await Promise.all([jaeger, files, ...(nodes ?? [])].map((each) => each?.stop?.() ?? each?.kill?.()))
  await redis?.kill()
})

/** Places a call that rings for a while, connects, and is hung up. */
async function call() {
  const media = { video: { width: 160, height: 120 }, audio: true }
  const alice = await openCaller(browser, files, nodes[0].url, 'alice', { media })
  const bob = await openCaller(browser, files, nodes[1].url, 'bob', { media, answer: 'hold' })
  await alice.evaluate(() => page.dial('bob'))
  await eventually(async () => (await stateOf(bob, 'alice')) === 'incoming' || (await stateOf(alice, 'bob')) === 'ringing')
  await sleep(RINGS)
  await bob.evaluate(async () => page.calls.alice.accept({ stream: await page.stream() }))
  await eventually(async () => (await stateOf(alice, 'bob')) === 'connected' && (await stateOf(bob, 'alice')) === 'connected')
  await sleep(500)
  await alice.evaluate(() => page.calls.bob.hangup())
  await eventually(() => bob.evaluate(() => page.ends.length))
}

/** The trace in which the call was set up, and the one in which it ended, once Jaeger has both whole. */
async function whole() {
  const names = ({ spans }) => spans.map(({ name }) => name)
  return eventually(async () => {
    const traces = await tracesOf(jaeger.url)
    const setUp = traces.find((trace) => names(trace).filter((name) => name === 'connected').length === 2)
    const end = traces.find((trace) => names(trace).includes('process leave'))
    return setUp && end && names(end).includes('publish leave') && { setUp, end }
  }, 30_000)
}

const treeOf = (trace) => {
  const from = Math.min(...trace.spans.map(({ start }) => start))
  const line = ({ name, node, depth, start, end }) =>
    `${'  '.repeat(depth) + name}`.padEnd(32) + `${node.padEnd(12)} +${(start - from) / 1000} ms, ${(end - start) / 1000} ms`
  return rowsOf(trace).map(line).join('\n')
}

test('a call of two browsers is one trace that a person can read', async () => {
  await call()
  const { setUp, end } = await whole()
  console.log(`${treeOf(setUp)}\n${treeOf(end)}`)

  for (const { id, spans } of [setUp, end]) {
    assert.ok(!(await hasWarnings(jaeger.url, id)), 'Jaeger warns of nothing')
    const ids = new Set(spans.map(({ id }) => id))
    assert.equal(spans.filter(({ parent }) => !parent).length, 1, 'one root')
    for (const { name, node, parent, tags, resource, start, end } of spans) {
      const what = `${name} at ${node}`
      assert.ok(!parent || ids.has(parent), `the parent of ${what} is there`)
      const signal = tags['switchboard.signal']
      if (signal) {
        assert.match(name, new RegExp(`^(publish|process) ${signal}$`), 'the row says which signal it is')
        assert.ok(end - start < SIGNAL, `${what} lasts ${end - start} µs`)
        assert.ok(end > start, `${what} has a duration`)
        if (name.startsWith('publish')) assert.ok(tags['switchboard.outcome'], `${what} has an outcome`)
        assert.equal(tags['messaging.client.id'], node)
      }
      assert.ok(resource['host.name'], 'Jaeger corrects no clocks within a host')
      for (const [key, value] of Object.entries({ ...tags, ...resource }))
        if (!NO_ADDRESS.has(key)) for (const secret of SECRETS) assert.doesNotMatch(String(value), secret, `${key} of ${what}`)
    }
    assert.equal(new Set(spans.map(({ node }) => node)).size, 2, 'of both nodes')
  }

  const bars = setUp.spans.filter(({ name }) => name === 'connected')
  for (const bar of bars) assert.ok(bar.end - bar.start > RINGS * 1000, 'the set-up is a bar from the offer to the report')
  assert.deepEqual(end.spans.find(({ name }) => name === 'publish leave').links, [setUp.id], 'the end is linked to the set-up')
})

test('a call without a report has a bounded number of spans', async () => {
  const socket = async (node, name) => {
    const ws = new WebSocket(node.url)
    await new Promise((resolve) => (ws.onopen = resolve))
    ws.said = []
    ws.onmessage = ({ data }) => ws.said.push(JSON.parse(data))
    ws.send(JSON.stringify({ type: 'login', name }))
    await eventually(() => ws.said.some(({ success }) => success))
    return ws
  }
  const [one, two] = [await socket(nodes[0], 'carol'), await socket(nodes[1], 'dave')]
  one.send(JSON.stringify({ type: 'offer', name: 'dave', offer: {} }))
  await eventually(() => two.said.some(({ type }) => type === 'offer'))
  // The tutorial's client gives no ids: nobody waits for the outcome of a candidate while it rings.
  one.send(JSON.stringify({ type: 'candidate', name: 'dave', candidate: 'without an id' }))
  await sleep(RINGS)
  two.send(JSON.stringify({ type: 'answer', name: 'carol', answer: {} }))
  for (let n = 1; n <= 300; n++) {
    one.send(JSON.stringify({ type: 'candidate', name: 'dave', candidate: n, id: n }))
    if (n % 20 === 0) await eventually(() => one.said.filter(({ type }) => type === 'ack').length >= n)
  }
  one.send(JSON.stringify({ type: 'leave', name: 'dave' }))
  const trace = await eventually(async () => {
    const traces = await tracesOf(jaeger.url)
    return traces.find(({ spans }) => spans.some(({ name, tags }) => name === 'publish leave' && tags['switchboard.signals_without_span']))
  }, 30_000)
  assert.ok(trace.spans.length < 420, `${trace.spans.length} spans`)
  for (const { name, start, end } of trace.spans) assert.ok(end - start < SIGNAL, `${name} lasts ${end - start} µs`)
  for (const ws of [one, two]) ws.close()
})
