/**
 * The browser's side of Switchboard: one module, no dependencies. Types and what each member does: switchboard.d.ts.
 *
 * Top-down: `Client` keeps one session alive over connections that come and go, and sends what has not been acknowledged again. `Call` is
 * one RTCPeerConnection that negotiates, recovers and reports by itself. `Channel` is a data channel. Below them are the links: a WebSocket,
 * or the HTTP door by server-sent events or by polling.
 */

export const version = '0.1.0'

const TRANSPORTS = ['websocket', 'sse', 'poll']
/** Milliseconds that a transport has for its first answer: on its own, and if another one was the good one last time. */
const FIRST_ANSWER = 4000
const FIRST_ANSWER_AGAIN = 1500
/** After so long a silence the client asks whether anybody is there, and so long it waits for an answer. */
const SILENCE = 20_000
const ANSWER = 8000
/** So long after the WebSocket failed it is tried again, if there is no call. */
const UPGRADE = 60_000
/** A connection of this age was a good one: the next one that is lost is replaced without hesitation. */
const STABLE = 5000
/** A peer connection may be interrupted so long before a restart, and before it is given up. */
const RESTART = 2000
const GIVE_UP = 30_000
/** The longest that an offer waits for its first candidate before it is taken back. */
const GATHER = 1000
/** The longest message, and the size of a POST, in bytes of UTF-8, as the server counts them. */
const MESSAGE = 65_536
const POST = 50_000
/** What may wait for an acknowledgement. */
const OUTBOX = 1000

/** Close codes: ours for a connection that is replaced (the session stays), and the server's that mean "go on elsewhere" and "stop". */
const GIVEN_UP = 4900
const AT_ONCE = [1012, 4010, 'bye', 'upgrade']
const STOP = { 1000: 'closed', 1009: 'too_large', too_large: 'too_large', http_413: 'too_large', 4000: 'replaced', 4003: 'forbidden', 4009: 'not_logged_in' }
/** Refusals of a signal that are worth another try. */
const AGAIN = ['unavailable', 'inbox_full', 'rate_limited']

export class SwitchboardError extends Error {
  constructor(code, message = code, retryAfter) {
    super(message)
    this.name = 'SwitchboardError'
    this.code = code
    this.retryAfter = retryAfter
  }
}

export const connect = (url, options) => new Client(url, options).connect(options)

export class Client extends EventTarget {
  state = 'offline'
  name
  session
  node
  transport
  calls = new Map()

  #options
  #address
  /** Aborted when the client is closed. */
  #life
  #online = deferred()
  #link
  #good
  /** Who we want to be: `{name, established, promise, resolve, reject}`. */
  #identity
  /** Ends the wait for the answer to a login. */
  #answered
  /** The secret that resumes the session, and the last signal that we have seen of it. */
  #resume
  #last
  #iceServers = []
  #watched = new Map()
  /** What the server has not acknowledged, by id, in order: `{name, text, sent, tried, resolve, reject}`. */
  #outbox = new Map()
  #ids = 0
  /** To whom nothing is sent (`''`: to anybody) until a timer has run out, since the server asked for patience. */
  #holds = new Map()
  /** When somebody told us why they hang up: the `leave` that follows is that one, not of the next call. */
  #byes = new Map()

  constructor(url, options = {}) {
    super()
    const { WebSocket, RTCPeerConnection, fetch } = globalThis
    this.#options = { transports: TRANSPORTS, fetch: fetch?.bind(globalThis), WebSocket, RTCPeerConnection, ...options }
    this.#address = addresses(url)
    try {
      this.#good = sessionStorage.getItem('switchboard')
    } catch {} // There is none, or it is forbidden.
  }

  get iceServers() {
    return [...this.#iceServers, ...(this.#options.rtc?.iceServers ?? [])]
  }

  connect({ signal } = {}) {
    const { name } = this.#options
    if (name !== undefined) return this.login(name, { signal })
    this.#start()
    return abortable(this.#online.promise, signal, () => this.close())
  }

  async login(name, { signal } = {}) {
    if (this.#identity) throw new SwitchboardError('already_logged_in', `Logged in as ${this.#identity.name}`)
    const identity = (this.#identity = { name, established: false, ...deferred() })
    this.#start()
    if (this.#link) this.#enter(this.#link)
    return abortable(identity.promise, signal, () => this.close())
  }

  call(name, options = {}) {
    if (!this.name) throw new SwitchboardError('not_logged_in', 'Log in before you call')
    const calling = this.calls.get(name)
    // Whoever calls somebody who is calling wants to take that call.
    if (calling?.direction === 'incoming' && calling.state === 'ringing') return calling._join(options).accept(options)
    if (calling) throw new SwitchboardError('already_in_call', `There is a call with ${name}`)
    return this.#newCall(name, 'outgoing', options)._join(options)
  }

  async send(name, message, { signal } = {}) {
    return abortable(this.#request({ type: 'message', name, message }), signal)
  }

  async presence(names, { signal } = {}) {
    return (await abortable(this.#request({ type: 'presence', names: [...names] }), signal)).users
  }

  async watch(names, { signal } = {}) {
    const { users } = await abortable(this.#request({ type: 'presence', names: [...names], watch: true }), signal)
    for (const [name, here] of Object.entries(users)) this.#watched.set(name, here)
    return users
  }

  unwatch(names) {
    for (const name of names) this.#watched.delete(name)
    this.#request({ type: 'presence', names: [...names], watch: false }).catch(ignore)
  }

  close() {
    for (const call of this.calls.values()) call.hangup('closed')
    this.#stop()
  }

  async [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    this.close()
  }

  // The connection.

  #start() {
    if (this.#life) return
    const life = (this.#life = new AbortController())
    const on = (target, type, listener) => target?.addEventListener?.(type, listener, { signal: life.signal })
    on(globalThis, 'online', () => this.#awake())
    on(globalThis.navigator?.connection, 'change', () => this.#awake())
    on(globalThis.document, 'visibilitychange', () => document.hidden || this.#awake())
    // A WebSocket closes with its page; over HTTP the server has to be told.
    on(globalThis, 'pagehide', () => this.#link?.farewell?.())
    this.#set('connecting')
    this.#run(life.signal)
  }

  #stop(error) {
    const identity = this.#identity
    if (!this.#life) return
    this.#life.abort()
    this.#link?.close(1000)
    this.#life = this.#link = this.#identity = this.#resume = this.#last = this.name = this.session = undefined
    this.#iceServers = []
    this.#watched.clear()
    const reason = error ?? new SwitchboardError('closed', 'The client was closed')
    identity?.reject(reason)
    this.#online.reject(reason)
    this.#online = deferred()
    for (const entry of this.#outbox.values()) entry.reject(reason)
    this.#outbox.clear()
    for (const call of this.calls.values()) call._end(reason.code, !error)
    this.#set('closed', error)
  }

  #set(state, error) {
    this.state = state
    this.transport = this.#link?.kind
    if (!this.#link) this.node = undefined
    if (state === 'online') this.#online.resolve(this)
    const said = take(this.#said, (this.#said = [state, this.transport, this.node].join()))
    if (said !== this.#said) fire(this, 'state', { state, error })
  }
  #said

  /** One connection after the other, until the client is closed. */
  async #run(life) {
    for (let failures = 0; ; failures++) {
      let why
      try {
        const link = (this.#link = await this.#climb(life))
        const began = performance.now()
        if (this.#identity) this.#enter(link)
        else this.#set('online')
        const upgrade = setTimeout(() => this.#upgrade(link, life), UPGRADE)
        why = await link.ended
        clearTimeout(upgrade)
        if (performance.now() - began > STABLE) failures = 0
      } catch (error) {
        why = error
      }
      if (life.aborted) return
      this.#link = undefined
      this.#answered?.()
      const stop = STOP[why.code]
      // Whoever is about to log in, and waits for a token or for the server's store, tries again.
      const goesOn = stop === 'too_large' ? this.#dropLongest(why.message) : stop === 'not_logged_in' && this.#identity
      if (stop && !goesOn) return this.#stop(new SwitchboardError(stop, why.message))
      if (why.code === 4001) this.#lose()
      for (const entry of this.#outbox.values()) entry.sent = false
      this.#holds.clear()
      this.#set(this.state === 'connecting' ? 'connecting' : 'reconnecting')
      const { min = 500, max = 20_000 } = this.#options.reconnect ?? {}
      const delay = !failures && AT_ONCE.includes(why.code) ? 0 : Math.random() * Math.min(max, min * 2 ** failures)
      await sleep(Math.max(delay, why.retryAfter ?? 0), life, (wake) => (this.#wake = wake))
      if (life.aborted) return
    }
  }
  #wake

  /** The first transport that answers, from the top. */
  async #climb(life) {
    if (this.#better) return take(this.#better, (this.#better = undefined))
    const { transports } = this.#options
    const good = transports.indexOf(this.#good)
    let error
    for (const [rung, kind] of transports.entries()) {
      try {
        const link = await this.#open(kind, rung < good ? FIRST_ANSWER_AGAIN : FIRST_ANSWER, life)
        this.#remember(kind)
        return link
      } catch (cause) {
        error = cause
        life.throwIfAborted()
      }
    }
    throw error
  }

  async #open(kind, patience, life) {
    const link = open(kind, this.#address, this.#options, (message) => {
      // Nothing is read from a connection that was given up: what is read there counts as seen.
      if (link === this.#link) this.#hear(message)
    })
    const why = await Promise.race([link.ready, link.ended, sleep(patience, life).then(() => ({ code: 'silent' }))])
    if (!why && !life.aborted) return link
    link.close(1000)
    throw Object.assign(new SwitchboardError('unreachable', `No answer by ${kind}`), { retryAfter: why?.retryAfter })
  }

  #remember(kind) {
    this.#good = kind
    try {
      sessionStorage.setItem('switchboard', kind)
    } catch {}
  }

  /** Back to the best transport, once it works again. */
  async #upgrade(link, life) {
    const [best] = this.#options.transports
    if (link.kind === best || link !== this.#link) return
    const better = this.calls.size ? undefined : await this.#open(best, FIRST_ANSWER, life).catch(ignore)
    if (link !== this.#link) return better?.close(1000)
    if (!better) return void setTimeout(() => this.#upgrade(link, life), UPGRADE)
    this.#better = better
    this.#remember(best)
    link.close(GIVEN_UP, 'upgrade')
  }
  #better

  /** The network has changed, or the page was asleep: ask at once whether anybody is there. */
  #awake() {
    this.#wake?.()
    this.#link?.probe()
    for (const call of this.calls.values()) call._awake()
  }

  /** Logs in or resumes over a link; again, while the server says that it may work later. */
  async #enter(link) {
    for (;;) {
      const identity = this.#identity
      if (!identity || link !== this.#link) return
      const reply = await this.#ask(link, identity).catch((error) => ({ code: identity.established ? 'no_token' : 'unauthorized', message: String(error) }))
      if (!reply || link !== this.#link || identity !== this.#identity) return
      if (reply.success) return this.#entered(identity, reply)
      const { code, message, retry_after_ms: retryAfter = code === 'unavailable' ? 1000 : undefined } = reply
      if (code === 'resume_failed') this.#lose()
      // Another connection, after the usual wait, asks for the token again.
      else if (code === 'draining' || code === 'no_token') return link.close(GIVEN_UP, code)
      else if (retryAfter !== undefined && (identity.established || code !== 'name_taken')) await sleep(retryAfter, this.#life.signal)
      else {
        const error = new SwitchboardError(code, message, retryAfter)
        if (identity.established) return this.#stop(error)
        this.#identity = undefined
        identity.reject(error)
        return this.state === 'online' || this.#set('online')
      }
    }
  }

  async #ask(link, { name }) {
    const { token } = this.#options
    const login = { type: 'login', name, resumable: true, token: typeof token === 'function' ? await token() : token }
    // By now another connection may be there, which waits for an answer of its own.
    if (link !== this.#link) return
    if (this.#resume) Object.assign(login, { resume: this.#resume, last: this.#last })
    const reply = new Promise((resolve) => (this.#answered = resolve))
    link.send(JSON.stringify(login))
    return reply
  }

  #entered(identity, { name, session, node, resume, resumed, iceServers }) {
    Object.assign(this, { name, session, node })
    this.#resume = resume
    this.#setIceServers(iceServers)
    const again = identity.established
    identity.established = true
    this.#set('online')
    identity.resolve(this)
    this.#pump()
    if (!again) return
    // Watches end with the connection.
    this.#watchAgain()
    for (const call of this.calls.values()) call._back(resumed)
  }

  /** Asks again for all watches. What has changed meanwhile is told as a change. */
  #watchAgain() {
    if (this.#watched.size) this.#request({ type: 'presence', names: [...this.#watched.keys()], watch: true }).then(({ users }) => this.#present(users), ignore)
  }

  /** Signals may be lost. What is not acknowledged is sent again in any case, since the server answers each request. */
  #missed() {
    for (const call of this.calls.values()) call._repeat()
    this.#watchAgain()
  }

  /** The session is gone for good, and another will have its name. */
  #lose() {
    this.#resume = this.#last = undefined
    for (const [id, entry] of this.#outbox) {
      // Under another session the server would not know it as a repetition.
      if (entry.tried && this.#outbox.delete(id)) entry.reject(new SwitchboardError('unavailable', 'Whether it was delivered is not known'))
    }
    for (const call of this.calls.values()) call._orphan('lost')
  }

  // What is sent.

  /** Sends a request until it is answered, over as many connections as it takes. */
  #request(message) {
    if (!this.name) return Promise.reject(new SwitchboardError('not_logged_in', 'Log in first'))
    if (this.#outbox.size >= OUTBOX) return Promise.reject(new SwitchboardError('overloaded', 'Too much waits to be sent'))
    const id = ++this.#ids
    const text = JSON.stringify({ ...message, id })
    if (bytes(text) > MESSAGE) return Promise.reject(new SwitchboardError('too_large', 'The server takes no message over 64 KiB'))
    const entry = { name: message.name, text, ...deferred() }
    this.#outbox.set(id, entry)
    this.#pump()
    return entry.promise
  }

  /**
   * A server or a proxy with a lower limit than ours does not say which message was too large. It is one of those that were sent and not
   * acknowledged, so the longest of them is too large as well. Returns whether there was one.
   */
  #dropLongest(message) {
    const sent = [...this.#outbox].filter(([, entry]) => entry.sent)
    const [id] = sent.sort(([, one], [, other]) => bytes(other.text) - bytes(one.text))[0] ?? []
    if (id !== undefined) this.#settle({ type: 'error', id, code: 'too_large', message })
    return id !== undefined
  }

  #pump() {
    if (this.state !== 'online') return
    for (const entry of this.#outbox.values()) {
      if (entry.sent || this.#holds.has('') || this.#holds.has(entry.name)) continue
      entry.sent = entry.tried = true
      this.#link.send(entry.text)
    }
  }

  #settle({ type, id, status, code, message, retry_after_ms: retryAfter, ...rest }) {
    const entry = this.#outbox.get(id)
    if (!entry) return
    if (type === 'error' && AGAIN.includes(code)) {
      // Only `rate_limited` is about this client. The rest is about one receiver, or (of a presence) about nobody to whom signals go.
      const to = code === 'rate_limited' ? '' : entry.name
      entry.sent = false
      const timer = setTimeout(() => {
        if (this.#holds.get(to) !== timer) return
        this.#holds.delete(to)
        this.#pump()
      }, retryAfter ?? 1000)
      return void this.#holds.set(to, timer)
    }
    this.#outbox.delete(id)
    if (type === 'error') entry.reject(new SwitchboardError(code, message, retryAfter))
    else entry.resolve(status ?? rest)
  }

  // What is heard.

  #hear(message) {
    const { type, id, name, seq } = message
    if (seq !== undefined) this.#last = seq
    if (type === 'login') this.#answered?.(message)
    else if (id !== undefined) this.#settle(message)
    else if (type === 'offer' || type === 'answer' || type === 'candidate') this.#signal(type, name, message[type])
    else if (type === 'message' && message.message?.switchboard) this.#bye(name, message.message.switchboard)
    else if (type === 'message') fire(this, 'message', { name, message: message.message })
    else if (type === 'leave') this.#leave(name, message.reason)
    else if (type === 'presence') this.#present(message.users)
    else if (type === 'ice_servers') this.#setIceServers(message.iceServers)
    else if (type === 'status' && message.missed) this.#missed()
    // goaway: the close follows, and says the same. Errors without an id are of nothing that we sent.
  }

  #signal(type, name, body) {
    let call = this.calls.get(name)
    const { leg, peer } = body ?? {}
    if (type === 'offer' && call?.peer && leg !== call.peer) {
      // The other has begun anew without our hearing the end.
      call._end('hangup')
      call = undefined
    }
    // Of a call that is over here: its end is on the way to the other.
    if (peer && peer !== call?.leg) return
    if (call) return call._hear(type, body)
    if (type !== 'offer') return
    call = this.#newCall(name, 'incoming', {})
    call._hear(type, body)
    fire(this, 'call', { call })
  }

  #bye(name, { bye, leg, peer }) {
    this.#byes.set(name, performance.now())
    const call = this.calls.get(name)
    if (call && (leg === call.peer || peer === call.leg)) call._end(bye)
  }

  #leave(name, reason) {
    const call = this.calls.get(name)
    const told = this.#byes.get(name)
    this.#byes.delete(name)
    if (!call || (reason === 'hangup' && performance.now() - told < 5000)) return
    if (reason === 'lost' || reason === 'node_lost') call._orphan(reason)
    else call._end(reason ?? 'hangup')
  }

  #present(users) {
    const changed = Object.entries(users).filter(([name, here]) => this.#watched.has(name) && this.#watched.get(name) !== here)
    for (const [name, here] of changed) this.#watched.set(name, here)
    if (changed.length) fire(this, 'presence', { users: Object.fromEntries(changed) })
  }

  #setIceServers(iceServers = []) {
    if (JSON.stringify(iceServers) === JSON.stringify(this.#iceServers)) return
    this.#iceServers = iceServers
    for (const call of this.calls.values()) call._configure()
    fire(this, 'iceservers', { iceServers: this.iceServers })
  }

  #newCall(name, direction, options) {
    const { RTCPeerConnection, rtc } = this.#options
    const wire = {
      me: this.name,
      rtc: () => ({ ...rtc, ...options.rtc, iceServers: [...this.iceServers, ...(options.rtc?.iceServers ?? [])] }),
      send: (message) => this.#request({ ...message, name }),
      ended: () => this.calls.get(name) === call && this.calls.delete(name),
    }
    const call = new Call(name, direction, new RTCPeerConnection(wire.rtc()), wire)
    this.calls.set(name, call)
    return call
  }
}

/**
 * Perfect negotiation as in the W3C's webrtc-pc, with one difference: everything that touches the descriptions goes through one queue, so
 * that an offer never meets a half-made one, and "a collision" is just "not stable". The polite side is the one whose name is smaller; to
 * a peer that does not know this library (its descriptions have no `leg`) we are always polite, since it never gives way.
 */
export class Call extends EventTarget {
  state
  stream
  reason
  setupTime
  /** Which call of ours, and which of the other's: a late signal of the call before is known by these. */
  leg = Math.random().toString(36).slice(2)
  peer

  #wire
  #queue = Promise.resolve()
  #connected = deferred()
  #ended = deferred()
  #gathered = deferred()
  #began = performance.now()
  /** The offer that waits to be accepted, and the stream to answer it with. */
  #offer
  #answering
  #stream
  /** Candidates that came before the description they belong to; undefined once there is one. */
  #early = []
  /** Our candidates, until there is a connection. */
  #candidates = []
  #timer
  #interruptedAt
  /** Why the other's session ended, while the peer connection goes on without it. */
  #alone
  #channels = new Map()
  #shown = new Set()

  constructor(name, direction, pc, wire) {
    super()
    this.name = name
    this.direction = direction
    this.pc = pc
    this.#wire = wire
    this.state = direction === 'incoming' ? 'ringing' : 'calling'
    pc.onnegotiationneeded = () => {
      // An answer takes with it what was added before; the browser asks again if that was not all.
      if (!this.#offer && !this.#answering) this.#do(() => this.#makeOffer())
    }
    pc.onicecandidate = ({ candidate }) => {
      this.#gathered.resolve()
      if (!candidate) return
      this.#candidates.push(candidate.toJSON?.() ?? candidate)
      this.#sendCandidate(this.#candidates.at(-1))
    }
    pc.onconnectionstatechange = () => this.#changed()
    pc.ontrack = ({ track, streams }) => {
      this.stream = streams[0] ?? new MediaStream([track])
      if (!this.#shown.has(track) && this.#shown.add(track)) fire(this, 'stream', { stream: this.stream, track })
    }
    pc.ondatachannel = ({ channel: raw }) => {
      const known = this.#channels.get(raw.label)
      const channel = known ?? this.#newChannel(raw.label)
      channel._add(raw)
      if (!known) fire(this, 'channel', { channel })
    }
  }

  get connected() {
    return this.#connected.promise
  }

  get ended() {
    return this.#ended.promise
  }

  accept({ stream } = {}) {
    if (!this.#offer) return this
    this.#stream = stream
    const offer = take(this.#offer, (this.#offer = undefined))
    this.#answering = true
    this.#set('connecting')
    this.#do(() => this.#takeOffer(offer).finally(() => (this.#answering = false)))
    this.#flush()
    return this
  }

  addStream(stream) {
    for (const track of stream.getTracks()) this.pc.addTrack(track, stream)
  }

  channel(label = 'chat', options) {
    const known = this.#channels.get(label)
    if (known) return known
    const channel = this.#newChannel(label)
    channel._add(this.pc.createDataChannel(label, options))
    return channel
  }

  restart() {
    if (this.state !== 'ended') this.pc.restartIce?.()
  }

  hangup(reason = this.direction === 'outgoing' && this.setupTime === undefined ? 'cancelled' : 'hangup') {
    this._end(reason, true)
  }

  // For Client.

  /** Opens what the call is to begin with. */
  _join({ stream, channels = [], signal }) {
    if (stream && this.direction === 'outgoing') this.addStream(stream)
    for (const label of channels) this.channel(label)
    // A call needs something to negotiate. An app that wants neither adds what it wants to `pc`.
    if (!stream && !channels.length) this.channel()
    if (signal) {
      const abort = () => this.setupTime === undefined && this.hangup(signal.reason?.name === 'TimeoutError' ? 'timeout' : 'cancelled')
      if (signal.aborted) abort()
      else signal.addEventListener('abort', abort)
      this.ended.then(() => signal.removeEventListener('abort', abort))
    }
    return this
  }

  _hear(type, body) {
    if (body?.leg) this.peer = body.leg
    this.#alone = undefined
    if (type === 'candidate') {
      if (this.#early) return void (this.#early.length < 256 && this.#early.push(body))
      return this.#do(() => this.#addCandidate(body))
    }
    if (type === 'answer') {
      // An answer that is repeated must not pass for that to a later offer. Other clients do not say which offer they answer.
      const fits = () => this.pc.signalingState === 'have-local-offer' && (!body.to || body.to === mark(this.pc.localDescription))
      this.#do(() => fits() && this.pc.setRemoteDescription(body))
      this.#flush()
      if (this.state === 'calling' || this.state === 'ringing') this.#set('connecting')
    } else if (this.direction === 'incoming' && this.state === 'ringing') {
      this.#offer = body
    } else {
      this.#do(() => this.#takeOffer(body))
      this.#flush()
    }
  }

  /** The session of this side or of the other is gone; if the browsers have each other, that is no reason to hang up. */
  _orphan(reason) {
    if (this.state === 'connected') this.#alone = reason
    else this._end(reason)
  }

  /** The session is connected again: the same one, or another (of which the other's node must hear: an offer begins a call there). */
  _back(resumed) {
    if (!resumed && this.peer) this.restart()
    else this._awake()
  }

  _awake() {
    if (this.state === 'interrupted') this.restart()
  }

  /**
   * Signals were lost: says again what the other may need and not have. Nothing new is made, so the other can tell that it knows it, and it does
   * not matter that both sides do this at the same time. ICE need not be restarted, as it waits for candidates; if it fails, it is.
   */
  _repeat() {
    this.#do(() => {
      if (this.state === 'connected' && this.pc.signalingState === 'stable') return
      this.#repeatDescriptions()
      for (const candidate of this.#candidates) this.#sendCandidate(candidate)
    })
  }

  _configure() {
    try {
      this.pc.setConfiguration?.({ ...this.pc.getConfiguration(), iceServers: this.#wire.rtc().iceServers })
    } catch {} // Not all that is allowed at first may be changed later.
  }

  _end(reason, local = false) {
    if (this.state === 'ended') return
    this.reason = reason
    clearTimeout(this.#timer)
    this.pc.onconnectionstatechange = this.pc.onicecandidate = this.pc.onnegotiationneeded = null
    const known = this.peer || !this.pc.remoteDescription
    this.pc.close()
    for (const channel of this.#channels.values()) channel._ended()
    if (local) {
      // A leave says no reason, and not which call it ends. To somebody who has answered without a `leg` it would mean nothing.
      const bye = { bye: reason, leg: this.leg, peer: this.peer }
      if (known) this.#wire.send({ type: 'message', message: { switchboard: bye } }).catch(ignore)
      this.#wire.send({ type: 'leave' }).catch(ignore)
    }
    this.#wire.ended()
    this.#connected.reject(new SwitchboardError(reason, `The call has ended: ${reason}`))
    this.#ended.resolve(reason)
    this.#set('ended')
    fire(this, 'end', { reason, local })
  }

  // Negotiation.

  /** One step after the other. A step that fails ends a call that has not been connected. */
  #do(step) {
    this.#queue = this.#queue.then(() => (this.state === 'ended' ? undefined : step())).catch((error) => {
      if (this.state === 'ended') return
      console.warn(`switchboard: negotiation with ${this.name}:`, error)
      if (this.setupTime === undefined) this._end('failed', true)
    })
  }

  async #makeOffer() {
    // If this is not the moment, the browser asks again.
    if (this.pc.signalingState !== 'stable') return
    await this.pc.setLocalDescription()
    this.#sendOffer()
  }

  #sendOffer() {
    this.#send('offer', plain(this.pc.localDescription)).then(
      () => this.state === 'calling' && this.#set('ringing'),
      (error) => this.#refused(error),
    )
  }

  #sendAnswer(answer, offer) {
    this.#send('answer', { ...plain(answer), to: mark(offer) }).catch((error) => this.#refused(error))
  }

  /** Our answer to the other's last offer, and our offer that is not answered. */
  #repeatDescriptions() {
    const { currentLocalDescription: answer, currentRemoteDescription: offer, signalingState } = this.pc
    if (answer?.type === 'answer') this.#sendAnswer(answer, offer)
    if (signalingState === 'have-local-offer') this.#sendOffer()
  }

  async #takeOffer(offer) {
    const known = this.pc.currentRemoteDescription
    // We have answered it, and the other did not hear that.
    if (known?.type === 'offer' && mark(known) === mark(offer)) return this.#repeatDescriptions()
    const polite = !this.peer || this.#wire.me < this.name
    if (this.pc.signalingState !== 'stable') {
      if (!polite) return
      // Chromium gathers no candidates ever again if an offer is taken back before its first one was found.
      await Promise.race([this.#gathered.promise, sleep(GATHER)])
      if (this.state === 'ended') return
    }
    await this.pc.setRemoteDescription(offer)
    if (this.#stream) this.addStream(take(this.#stream, (this.#stream = undefined)))
    await this.pc.setLocalDescription()
    this.#sendAnswer(this.pc.localDescription, offer)
    if (this.state === 'calling' || this.state === 'ringing') this.#set('connecting')
  }

  #addCandidate(candidate) {
    // Those of an offer that we ignored, or of one that was taken back, fit nothing.
    return this.pc.addIceCandidate(candidate).catch(ignore)
  }

  #flush() {
    for (const candidate of this.#early ?? []) this.#do(() => this.#addCandidate(candidate))
    this.#early = undefined
  }

  #sendCandidate(candidate) {
    this.#send('candidate', candidate).catch((error) => this.#refused(error))
  }

  #send(type, body) {
    return this.#wire.send({ type, [type]: { ...body, leg: this.leg, peer: this.peer } })
  }

  #refused({ code }) {
    // Who is connected to somebody needs no server for that.
    if (this.setupTime === undefined) this._end(code === 'user_unavailable' ? 'unavailable' : code === 'closed' ? 'closed' : 'failed')
  }

  // The connection between the browsers.

  #set(state) {
    if (state === this.state) return
    this.state = state
    fire(this, 'state', { state })
  }

  #changed() {
    const { connectionState } = this.pc
    if (connectionState === 'connected') {
      clearTimeout(this.#timer)
      this.#candidates = []
      this.#interruptedAt = undefined
      if (this.setupTime === undefined) {
        this.setupTime = Math.round(performance.now() - this.#began)
        this.#report('connected')
      }
      this.#set('connected')
      this.#connected.resolve(this)
    } else if (connectionState === 'disconnected' || connectionState === 'failed') {
      if (connectionState === 'failed') this.#report('failed')
      this.#interruptedAt ??= performance.now()
      if (this.setupTime !== undefined) this.#set('interrupted')
      this.#recover(connectionState === 'failed' ? 0 : RESTART)
    }
  }

  /** Restarts ICE, again and again, until there is a connection or it is time to give up. */
  #recover(delay) {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      const since = performance.now() - this.#interruptedAt
      if (since >= GIVE_UP || (this.#alone && since >= RESTART)) return this._end(this.#alone ?? 'failed', true)
      // A peer that does not know this library may know nothing of restarts: it is asked when all is lost.
      if (this.peer || this.pc.connectionState === 'failed') this.restart()
      this.#recover(RESTART * 3)
    }, delay)
  }

  async #report(state) {
    const pair = state === 'connected' ? await chosenPair(this.pc).catch(ignore) : undefined
    this.#wire.send({ type: 'report', state, ms: state === 'connected' ? this.setupTime : undefined, pair }).catch(ignore)
  }

  #newChannel(label) {
    const channel = new Channel(label)
    this.#channels.set(label, channel)
    channel.addEventListener('close', () => this.#channels.get(label) === channel && this.#channels.delete(label))
    return channel
  }
}

const plain = ({ type, sdp }) => ({ type, sdp })

/** What distinguishes a description from others; candidates that were found meanwhile do not change it. */
const mark = ({ sdp }) => sdp.match(/^(o=|a=ice-ufrag:).*/gm)?.join()

/** How the chosen pair of candidates runs: the farthest of the two kinds. */
async function chosenPair(pc) {
  const stats = [...(await pc.getStats()).values()]
  const transport = stats.find(({ type }) => type === 'transport')
  const pair = stats.find(({ type, id, nominated, state }) =>
    type === 'candidate-pair' && (transport?.selectedCandidatePairId ? id === transport.selectedCandidatePairId : nominated && state === 'succeeded'))
  const kinds = stats.filter(({ id }) => id === pair?.localCandidateId || id === pair?.remoteCandidateId).map(({ candidateType }) => candidateType)
  return ['relay', 'srflx', 'prflx', 'host'].find((kind) => kinds.includes(kind))
}

/** If both sides open a channel of one label at the same time there are two: what comes by either is heard, and one is used to send. */
export class Channel extends EventTarget {
  label
  raw

  #raws = new Set()
  #waiting = []
  #closed = false

  constructor(label) {
    super()
    this.label = label
  }

  get readyState() {
    return this.#closed ? 'closed' : this.raw?.readyState ?? 'connecting'
  }

  send(data) {
    if (this.#closed) throw new SwitchboardError('closed', 'The channel is closed')
    if (this.raw) return this.raw.send(data)
    if (this.#waiting.length >= 256) throw new SwitchboardError('overloaded', 'The channel is not open yet, and too much waits for it')
    this.#waiting.push(data)
  }

  close() {
    for (const raw of this.#raws) raw.close()
    this._ended()
  }

  _add(raw) {
    this.#raws.add(raw)
    raw.binaryType = 'arraybuffer'
    const opened = () => {
      if (this.raw || this.#closed) return
      this.raw = raw
      for (const data of this.#waiting.splice(0)) raw.send(data)
      fire(this, 'open')
    }
    raw.onopen = opened
    raw.onmessage = ({ data }) => fire(this, 'message', { data })
    raw.onclose = () => {
      this.#raws.delete(raw)
      if (raw === this.raw) this.raw = [...this.#raws].find(({ readyState }) => readyState === 'open')
      if (!this.#raws.size) this._ended()
    }
    if (raw.readyState === 'open') opened()
  }

  _ended() {
    if (this.#closed) return
    this.#closed = true
    fire(this, 'close')
  }
}

// Links. Each is `{kind, ready, ended, send(text), close(code, why), probe(), farewell?()}`: `ready` when something was heard, so that the way is
// known to be open in both directions; `ended` with `{code, retryAfter?}`.

function open(kind, address, env, heard) {
  const ready = deferred()
  const ended = deferred()
  let over = false
  const hear = (message) => {
    if (over) return
    ready.resolve()
    if (message && message.type !== 'pong') heard(message)
  }
  const end = (why) => {
    over = true
    ended.resolve(why)
  }
  const make = kind === 'websocket' ? webSocket : http
  return { kind, ready: ready.promise, ended: ended.promise, ...make(kind, address, env, hear, end) }
}

const PING = '{"type":"ping"}'

function webSocket(kind, address, env, hear, end) {
  const socket = new env.WebSocket(address.socket)
  let timer
  const send = (text) => socket.readyState === 1 && socket.send(text)
  const close = (code, why = code) => {
    clearTimeout(timer)
    socket.onmessage = socket.onclose = null
    socket.close(code)
    end({ code: why })
  }
  // The server's own pings do not show here.
  const probe = () => {
    send(PING)
    clearTimeout(timer)
    timer = setTimeout(() => close(GIVEN_UP, 4010), ANSWER)
  }
  socket.onopen = probe
  socket.onmessage = ({ data }) => {
    clearTimeout(timer)
    timer = setTimeout(probe, SILENCE)
    hear(parse(data))
  }
  socket.onclose = ({ code, reason }) => {
    clearTimeout(timer)
    end({ code, message: reason })
  }
  socket.onerror = ignore
  return { send, close, probe }
}

function http(kind, address, env, hear, end) {
  const leave = new AbortController()
  /** Given to us by the server: `{session, token, keepalive}`. */
  let door
  let after = ''
  let waiting = []
  let posting = false

  const close = (code, why = code) => {
    leave.abort()
    // 1000: the session is over, and the server need not wait for us.
    if (door && code === 1000) ask(`v1/sessions/${door.session}`, { method: 'DELETE', keepalive: true }, null).catch(ignore)
    end({ code: why })
  }
  const ask = async (path, { headers, ...init } = {}, signal = leave.signal) => {
    const authorization = door && { Authorization: `Bearer ${door.token}` }
    const response = await env.fetch(new URL(path, address.base), { ...init, headers: { ...authorization, ...headers }, cache: 'no-store', signal })
    if (response.ok) return response
    const seconds = Number(response.headers.get('Retry-After'))
    const { code, message } = await response.json().catch(() => ({}))
    throw Object.assign(new SwitchboardError(code ?? `http_${response.status}`, message, seconds ? seconds * 1000 : undefined), { status: response.status })
  }
  /** Does something again until it works; what cannot work ends the link. */
  const persist = async (action) => {
    for (let failures = 0, since = performance.now(); ; failures++) {
      try {
        return await action()
      } catch (error) {
        if (leave.signal.aborted) return
        const final = error.status >= 400 && error.status < 500 && error.status !== 429 && error.status !== 409
        if (final || performance.now() - since > 8000) return close(GIVEN_UP, error.code ?? 'lost')
        await sleep(error.retryAfter ?? Math.random() * Math.min(2000, 200 * 2 ** failures), leave.signal)
      }
    }
  }
  const listen = async () => {
    try {
      door = await (await ask('v1/sessions', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{}' })).json()
    } catch (error) {
      return end({ code: error.code ?? 'unreachable', retryAfter: error.retryAfter })
    }
    send(PING)
    while (!leave.signal.aborted) await persist(kind === 'sse' ? stream : poll)
  }
  const poll = async () => {
    const mute = setTimeout(() => close(GIVEN_UP, 'mute'), 35_000)
    const { events, next, reset } = await ask(`v1/events?mode=poll&wait=25&after=${after}`)
      .then((response) => response.json())
      .finally(() => clearTimeout(mute))
    if (reset) return close(GIVEN_UP, 'reset')
    for (const { id, data } of events) heard(id, data)
    after = next
  }
  const stream = async () => {
    const headers = { Accept: 'text/event-stream', ...(after && { 'Last-Event-ID': after }) }
    let timer, reader
    let rest = ''
    let id, event, data
    // A proxy that holds the stream back leaves it open and mute.
    const alive = () => {
      clearTimeout(timer)
      timer = setTimeout(() => close(GIVEN_UP, 'mute'), Math.max(door.keepalive, 1) * 2500)
    }
    try {
      alive()
      reader = (await ask('v1/events', { headers })).body.pipeThrough(new TextDecoderStream()).getReader()
      for (;;) {
        alive()
        const { value, done } = await reader.read()
        if (done) return
        const lines = (rest + value).split('\n')
        rest = lines.pop()
        for (const line of lines) {
          const [, field, text] = /^(\w*):? ?(.*)$/.exec(line) ?? []
          if (field === 'id') id = text
          else if (field === 'event') event = text
          else if (field === 'data') data = data === undefined ? text : `${data}\n${text}`
          else if (line === '') {
            if (event === 'bye') return
            if (event === 'reset' || event === 'replaced') return close(GIVEN_UP, event)
            if (data !== undefined) heard(id, parse(data))
            event = data = undefined
          }
        }
      }
    } finally {
      clearTimeout(timer)
      reader?.cancel().catch(ignore)
    }
  }
  const heard = (id, message) => {
    if (id) after = id
    hear(message)
  }
  const send = (text) => {
    waiting.push(text)
    if (!posting) post()
  }
  /** What waits goes in one request; if that fails it goes again, under the same key, before anything else. */
  const post = async () => {
    posting = true
    let most = 32
    await null
    while (waiting.length && !leave.signal.aborted) {
      const lines = [waiting.shift()]
      for (let size = bytes(lines[0]); waiting.length && lines.length < most && (size += bytes(waiting[0]) + 1) < POST; ) lines.push(waiting.shift())
      const body = lines.join('\n')
      const headers = { 'Content-Type': 'application/x-ndjson', 'Idempotency-Key': Math.random().toString(36).slice(2) + performance.now() }
      const say = () =>
        ask('v1/messages', { method: 'POST', headers, body }).catch((error) => {
          if (error.status !== 413 || lines.length === 1) throw error
          // Nothing of it was taken. One at a time, only a message that is too large by itself is refused.
          most = 1
          waiting.unshift(...lines)
        })
      await persist(say)
    }
    posting = false
  }
  const farewell = () => door && navigator.sendBeacon?.(new URL(`v1/sessions/${door.session}/close?session=${encodeURIComponent(door.token)}`, address.base))
  listen()
  return { send, close, probe: () => send(PING), farewell }
}

// Small things.

/** Where the doors are: `ws` beside an http(s) URL, exactly where a ws(s) URL says, and `v1/…` beside either. */
function addresses(url) {
  const given = new URL(url, globalThis.location?.href)
  const isSocket = given.protocol.startsWith('ws')
  const base = new URL('.', given)
  const socket = isSocket ? given : new URL('ws', base)
  socket.protocol = socket.protocol.replace('http', 'ws')
  base.protocol = base.protocol.replace('ws', 'http')
  return { socket: socket.href, base: base.href }
}

function fire(target, type, fields) {
  target.dispatchEvent(Object.assign(new Event(type), fields))
}

function deferred() {
  let resolve, reject
  const promise = new Promise((yes, no) => ([resolve, reject] = [yes, no]))
  promise.catch(ignore)
  return { promise, resolve, reject }
}

/** Resolves after a time, when the signal is aborted, or when it is woken. */
function sleep(ms, signal, waker) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms)
    function done() {
      clearTimeout(timer)
      signal?.removeEventListener('abort', done)
      resolve()
    }
    signal?.addEventListener('abort', done)
    waker?.(done)
  })
}

function abortable(promise, signal, aborted = ignore) {
  if (!signal) return promise
  return new Promise((resolve, reject) => {
    const abort = () => {
      aborted()
      reject(signal.reason)
    }
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort)
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

/** The length of a text on the wire. */
const bytes = (text) => encoder.encode(text).length
const encoder = new TextEncoder()

function parse(text) {
  try {
    return JSON.parse(text)
  } catch {
    return undefined // A greeting, say.
  }
}

/** Its first argument: `take(this.x, (this.x = undefined))` empties a place. */
const take = (value) => value

function ignore() {}
