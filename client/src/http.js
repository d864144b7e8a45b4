import { GIVEN_UP } from './codes.js'
import { SwitchboardError } from './errors.js'
import { poll } from './poll.js'
import { takeSlot } from './slots.js'
import { stream } from './sse.js'
import { bytes, ignore, sleep, unique } from './util.js'

/** The size of a POST, in bytes. */
const POST = 50_000
/** How long a request is tried again before the link is given up. */
const PERSISTENCE = 6000

/**
 * What a reader of events is given.
 * @typedef {object} Reading
 * @property {import('./link.js').World} world
 * @property {(path: string, init?: RequestInit) => Promise<Response>} ask
 * @property {(why: string) => void} giveUp
 * @property {() => void} alive a sign of life
 * @property {(id: string | undefined, message: any, text?: string) => void} heard
 * @property {() => string} after the id of the last event
 * @property {number} keepalive seconds
 * @property {boolean} mayWait whether a request may stay open
 */

/**
 * A session over HTTP: events by a stream or by polling, and POSTs.
 * @param {'sse' | 'poll'} kind
 * @param {import('./address.js').Address} address
 * @param {import('./link.js').World} world
 * @param {import('./link.js').Port} port
 */
export function http(kind, address, world, port) {
  const { clock } = world
  const leave = new AbortController()
  /** Given to us by the server. @type {{ session: string, token: string, keepalive: number } | undefined} */
  let door
  let after = ''
  /** When the reader heard something last. */
  let heardAt = 0
  /** @type {string[]} */
  const waiting = []
  let posting = false

  /** @param {number} code @param {string | number} [why] */
  const close = (code, why = code) => {
    leave.abort()
    // The server need not wait for us.
    if (door && code === 1000)
      ask(`v1/sessions/${door.session}`, { method: 'DELETE', keepalive: true }, null).catch(ignore)
    port.end({ code: why })
  }
  /** @param {string} path @param {RequestInit} [init] @param {AbortSignal | null} [signal] */
  const ask = async (path, { headers, ...init } = {}, signal = leave.signal) => {
    const authorization = door && { Authorization: `Bearer ${door.token}` }
    const request = {
      ...init,
      headers: { ...authorization, ...headers },
      cache: /** @type {const} */ ('no-store'),
      signal,
    }
    const response = await world.fetch(new URL(path, address.base), request)
    if (response.ok) return response
    const seconds = Number(response.headers.get('Retry-After'))
    const { code, message } = await response.json().catch(() => ({}))
    const error = new SwitchboardError(code ?? `http_${response.status}`, message, seconds ? seconds * 1000 : undefined)
    throw Object.assign(error, { status: response.status })
  }
  /**
   * Does something again until it works; what cannot work ends the link.
   * @param {() => Promise<unknown>} action
   * @param {() => number} [worked] when it worked last: a stream may break after hours
   */
  const persist = async (action, worked = () => 0) => {
    for (let failures = 0, since = clock.now(); ; failures++) {
      try {
        return await action()
      } catch (cause) {
        const error = /** @type {SwitchboardError & { status?: number }} */ (cause)
        if (leave.signal.aborted) return
        const { status = 0 } = error
        const final = status >= 400 && status < 500 && status !== 429 && status !== 409
        if (final || clock.now() - Math.max(since, worked()) > PERSISTENCE) return close(GIVEN_UP, error.code ?? 'lost')
        port.stumble(reasonOf(error))
        await sleep(clock, error.retryAfter ?? clock.random() * Math.min(2000, 200 * 2 ** failures), leave.signal)
      }
    }
  }
  const listen = async () => {
    try {
      const init = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{}' }
      door = await (await ask('v1/sessions', init)).json()
    } catch (error) {
      return port.end(/** @type {any} */ (error).status === 404 ? { code: 'not_found' } : reasonOf(error))
    }
    if (waiting.length && !posting) post()
    while (!leave.signal.aborted) {
      // A browser has few connections to a host, for all tabs: without one to spare, no request is left open.
      const slot = await takeSlot(address.base)
      const reading = reader(slot !== undefined)
      await persist(
        () => (kind === 'sse' && slot ? stream(reading) : poll(reading)),
        () => heardAt,
      )
      slot?.()
    }
  }
  /** @param {boolean} mayWait @returns {Reading} */
  const reader = (mayWait) => ({
    world,
    ask,
    mayWait,
    giveUp: (why) => close(GIVEN_UP, why),
    alive() {
      heardAt = clock.now()
      port.hear()
    },
    heard(id, message, text) {
      if (id) after = id
      port.hear(message, text)
    },
    after: () => after,
    keepalive: door?.keepalive ?? 15,
  })
  /** @param {string} text */
  const send = (text) => {
    waiting.push(text)
    if (!posting && door) post()
  }
  /** What waits goes in one request; if that fails it goes again, under the same key, before anything else. */
  const post = async () => {
    posting = true
    let most = 32
    await null
    while (waiting.length && !leave.signal.aborted) {
      const lines = waiting.splice(0, 1)
      for (
        let size = bytes(lines[0]);
        waiting.length && lines.length < most;
        lines.push(.../** @type {[string]} */ (waiting.splice(0, 1)))
      ) {
        size += bytes(waiting[0]) + 1
        if (size >= POST) break
      }
      const headers = { 'Content-Type': 'application/x-ndjson', 'Idempotency-Key': unique() }
      await persist(() =>
        ask('v1/messages', { method: 'POST', headers, body: lines.join('\n') }).catch((error) => {
          if (error.status !== 413 || lines.length === 1) throw error
          // Nothing of it was taken. One at a time, only a message that is too large by itself is refused.
          most = 1
          waiting.unshift(...lines)
        }),
      )
    }
    posting = false
  }
  const farewell = () => {
    if (!door) return
    const path = `v1/sessions/${door.session}/close?session=${encodeURIComponent(door.token)}`
    globalThis.navigator?.sendBeacon?.(new URL(path, address.base))
  }
  listen()
  return { send, close, farewell }
}

/** @param {unknown} error @returns {import('./errors.js').Why} */
function reasonOf(error) {
  const { code, message, retryAfter } = /** @type {SwitchboardError} */ (error)
  return typeof code === 'string' ? { code, message, retryAfter } : { code: 'unreachable', message }
}
