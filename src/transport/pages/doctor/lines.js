// Bare connections for the doctor: each way in by itself, with nothing that repairs it.

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** What both kinds have: messages can be waited for. */
class Line {
  #waiting = new Set()

  /** The next message of that sort, or undefined if none comes in time. */
  wait(sort, within) {
    return new Promise((resolve) => {
      const one = { sort, resolve }
      this.#waiting.add(one)
      setTimeout(() => {
        this.#waiting.delete(one)
        resolve(undefined)
      }, within)
    })
  }

  /** Calls back for each message of that sort. */
  each(sort, listen) {
    this.#waiting.add({ sort, resolve: listen, stays: true })
  }

  heard(message) {
    for (const one of this.#waiting) {
      if (!one.sort(message)) continue
      if (!one.stays) this.#waiting.delete(one)
      one.resolve(message)
    }
  }
}

/** A WebSocket on `/ws`. */
export class WebSocketLine extends Line {
  #socket

  /** Rejects if it is not open in time. */
  static async open(within) {
    const address = new URL('/ws', location.href)
    address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:'
    const socket = new WebSocket(address)
    await new Promise((resolve, reject) => {
      socket.onopen = resolve
      socket.onclose = () => reject(new Error('closed'))
      setTimeout(() => reject(new Error('late')), within)
    }).catch((error) => {
      socket.close()
      throw error
    })
    return new WebSocketLine(socket)
  }

  constructor(socket) {
    super()
    this.#socket = socket
    /** Its close code, once it is closed. */
    this.closed = new Promise((resolve) => (socket.onclose = ({ code }) => resolve(code)))
    socket.onmessage = ({ data }) => {
      const message = parse(data)
      if (message) this.heard(message)
    }
  }

  send(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message))
  }

  close() {
    this.#socket.close(1000)
  }
}

/** A session over HTTP, which hears by an event stream or by polling. */
export class HttpLine extends Line {
  #session
  #token
  #ending = new AbortController()
  #posts = Promise.resolve()

  /** `{line}`, or `{refused: {status, code, message}}`. */
  static async create(within) {
    try {
      const answer = await fetch('/v1/sessions', {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: '{}',
        cache: 'no-store',
        signal: AbortSignal.timeout(within),
      })
      if (answer.status !== 201) return { refused: await refusal(answer) }
      return { line: new HttpLine(await answer.json()) }
    } catch {
      return { refused: {} }
    }
  }

  /** One that listens already, by `sse` or `poll`. */
  static async open(door, within) {
    const { line } = await HttpLine.create(within)
    if (!line) throw new Error('refused')
    if (door === 'sse') line.#listen()
    else line.#poll()
    return line
  }

  constructor({ session, token }) {
    super()
    this.#session = session
    this.#token = token
  }

  /** In the order of the calls. */
  send(message) {
    this.#posts = this.#posts.then(() =>
      this.#fetch('/v1/messages', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(message) }).catch(
        () => null,
      ),
    )
  }

  close() {
    this.#ending.abort()
    const leave = { method: 'DELETE', headers: { Authorization: `Bearer ${this.#token}` }, keepalive: true }
    fetch(`/v1/sessions/${this.#session}`, leave).catch(() => null)
  }

  /** Whether the first bytes of an event stream, which the server sends at once, come through. */
  async tryStream(within) {
    const began = performance.now()
    const stop = new AbortController()
    const late = setTimeout(() => stop.abort(), within)
    const took = () => performance.now() - began
    let status
    try {
      const answer = await this.#stream(stop.signal)
      status = answer.status
      if (status !== 200) return { ok: false, ms: took(), ...(await refusal(answer)) }
      const { done } = await answer.body.getReader().read()
      return { ok: !done, status, ms: took() }
    } catch {
      return { ok: false, status, ms: took(), late: stop.signal.aborted }
    } finally {
      clearTimeout(late)
      stop.abort()
    }
  }

  /** Whether a poll brings the answer to a ping. */
  async tryPoll(within) {
    const began = performance.now()
    const took = () => performance.now() - began
    this.send({ type: 'ping' })
    let after = ''
    try {
      while (took() < within) {
        const answer = await this.#fetch(`/v1/events?mode=poll&wait=2${after}`, { signal: AbortSignal.timeout(within) })
        if (answer.status !== 200) return { ok: false, ms: took(), ...(await refusal(answer)) }
        const { events, next } = await answer.json()
        if (events.some(({ data }) => data.type === 'pong')) return { ok: true, status: 200, ms: took() }
        after = `&after=${encodeURIComponent(next)}`
      }
    } catch {
      // Told below.
    }
    return { ok: false, ms: took() }
  }

  /** `stayed` for that long, or `cut`. */
  async holdStream(within) {
    try {
      const answer = await this.#stream(AbortSignal.any([this.#ending.signal, AbortSignal.timeout(within)]))
      if (answer.status !== 200) return 'refused'
      let text = ''
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
      for (;;) {
        const { done, value } = await reader.read()
        if (done) return /^event: (bye|replaced|reset)/m.test(text) ? 'stayed' : 'cut'
        text = (text + value).slice(-4096)
      }
    } catch (error) {
      return error.name === 'TimeoutError' || error.name === 'AbortError' ? 'stayed' : 'cut'
    }
  }

  /** `stayed` until the server had nothing to say for that many seconds, or `cut`. */
  async holdPoll(wait) {
    try {
      const answer = await this.#fetch(`/v1/events?mode=poll&wait=${wait}`, { signal: AbortSignal.timeout((wait + 10) * 1000) })
      if (answer.status >= 500 && answer.status !== 503) return 'cut'
      return 'stayed'
    } catch (error) {
      return error.name === 'AbortError' ? 'stayed' : 'cut'
    }
  }

  #listen() {
    const source = new EventSource(`/v1/events?session=${encodeURIComponent(this.#token)}`)
    source.onmessage = ({ data }) => {
      const message = parse(data)
      if (message) this.heard(message)
    }
    this.#ending.signal.addEventListener('abort', () => source.close())
  }

  async #poll() {
    let after = ''
    while (!this.#ending.signal.aborted) {
      try {
        const answer = await this.#fetch(`/v1/events?mode=poll&wait=25${after}`)
        if (answer.status !== 200) return
        const { events, next } = await answer.json()
        for (const { data } of events) this.heard(data)
        after = `&after=${encodeURIComponent(next)}`
      } catch {
        await sleep(200)
      }
    }
  }

  #stream(signal) {
    return this.#fetch('/v1/events', { signal, headers: { Accept: 'text/event-stream' } })
  }

  #fetch(path, { headers, ...options } = {}) {
    return fetch(path, {
      cache: 'no-store',
      signal: this.#ending.signal,
      ...options,
      headers: { ...headers, Authorization: `Bearer ${this.#token}` },
    })
  }
}

async function refusal(answer) {
  const { code, message } = parse(await answer.text().catch(() => '')) ?? {}
  return { status: answer.status, code, message }
}

function parse(text) {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
