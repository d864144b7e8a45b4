// A real Jaeger, and the traces that its API shows.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { eventually, freePort, start } from '../browser/support/processes.mjs'

/** Starts the binary that JAEGER_BIN names, with everything in memory. `{url, grpc, http, stop()}` */
export async function startJaeger() {
  const [query, queryGrpc, grpc, http, health, metrics] = await Promise.all(Array.from({ length: 6 }, freePort))
  const directory = mkdtempSync(join(tmpdir(), 'switchboard-jaeger-'))
  const config = join(directory, 'jaeger.yaml')
  const at = (port) => `{endpoint: "127.0.0.1:${port}"}`
  writeFileSync(
    config,
    `service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [jaeger_storage_exporter]}
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: ${metrics}}}}}]}}
extensions:
  jaeger_query: {storage: {traces: memory}, http: ${at(query)}, grpc: ${at(queryGrpc)}}
  jaeger_storage: {backends: {memory: {memory: {max_traces: 10000}}}}
  healthcheckv2: {use_v2: true, http: ${at(health)}}
receivers: {otlp: {protocols: {grpc: ${at(grpc)}, http: ${at(http)}}}}
processors: {batch: {timeout: 200ms}}
exporters: {jaeger_storage_exporter: {trace_storage: memory}}
`,
  )
  const jaeger = start(process.env.JAEGER_BIN, ['--config', config])
  jaeger.ended.then(() => rmSync(directory, { recursive: true, force: true }))
  const url = `http://127.0.0.1:${query}`
  await eventually(async () => (await fetch(`${url}/api/services`)).ok, 60_000, `Jaeger answers:\n${jaeger.output}`)
  return { url, grpc: `http://127.0.0.1:${grpc}`, http: `http://127.0.0.1:${http}`, stop: () => jaeger.kill() }
}

/** Whether Jaeger warns of a span of this trace, such as of clocks that differ. Its older API knows no `host.name`. */
export async function hasWarnings(url, id) {
  const text = await (await fetch(`${url}/api/v3/traces/${id}`)).text()
  if (!text.includes('spanId')) throw new Error(`no trace ${id}: ${text}`)
  return text.includes('@jaeger@warnings')
}

const tagsOf = (tags = []) => Object.fromEntries(tags.map(({ key, value }) => [key, value]))

/** All traces of the service as `{id, spans}`. Times are in µs. A span has its `parent`, and its `links` to other traces. */
export async function tracesOf(url) {
  const { data } = await (await fetch(`${url}/api/traces?service=switchboard&lookback=1h&limit=1000`)).json()
  return data.map(({ traceID, spans, processes }) => ({
    id: traceID,
    spans: spans.map((span) => {
      const references = span.references ?? []
      const inside = references.filter((reference) => reference.traceID === traceID)
      const parent = inside.find(({ refType }) => refType === 'CHILD_OF') ?? inside[0]
      const resource = tagsOf(processes[span.processID].tags)
      return {
        id: span.spanID,
        name: span.operationName,
        tags: tagsOf(span.tags),
        resource,
        node: resource['service.instance.id'],
        start: span.startTime,
        end: span.startTime + span.duration,
        parent: parent?.spanID,
        links: references.filter((reference) => reference.traceID !== traceID).map((reference) => reference.traceID),
      }
    }),
  }))
}

/** The spans of a trace as Jaeger lists them: each below its parent, with its `depth`. */
export function rowsOf({ spans }) {
  const ids = new Set(spans.map(({ id }) => id))
  const below = (isBelow, depth) =>
    spans
      .filter(isBelow)
      .sort((one, other) => one.start - other.start)
      .flatMap((span) => [{ ...span, depth }, ...below(({ parent }) => parent === span.id, depth + 1)])
  return below(({ parent }) => !ids.has(parent), 0)
}
