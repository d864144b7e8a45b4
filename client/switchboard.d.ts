// Only what says `export` is to be had.
export {}

/** The version of this library. */
export declare const version: string

/** How the client reaches the server; the first that works is used. */
export type TransportKind = 'websocket' | 'sse' | 'poll'

/**
 * - `offline`: not connected yet
 * - `connecting`: for the first time
 * - `online`: connected, and logged in if a login was asked for
 * - `reconnecting`: the connection was lost, and is being replaced; calls go on, and what is sent waits
 * - `closed`: for good; `login()` and `connect()` begin anew
 */
export type ClientState = 'offline' | 'connecting' | 'online' | 'reconnecting' | 'closed'

/**
 * - `calling`: our offer is under way (outgoing)
 * - `ringing`: the other's client has the offer (outgoing); waits for `accept()` (incoming)
 * - `connecting`: accepted, the browsers look for a way to each other
 * - `connected`
 * - `interrupted`: was connected; another way is being looked for
 * - `ended`: see `reason`
 */
export type CallState = 'calling' | 'ringing' | 'connecting' | 'connected' | 'interrupted' | 'ended'

/**
 * Why a call ended. By a person: `hangup`, `declined`, `busy`, `cancelled`, `timeout`, or what an app says to `hangup()`.
 * By what happened: `unavailable` (nobody of that name is here), `failed` (no way between the browsers), `closed`, `lost`, `node_lost`,
 * `replaced`, `kicked` (what became of the other's session, see the server's README).
 */
export type EndReason =
  | 'hangup' | 'declined' | 'busy' | 'cancelled' | 'timeout'
  | 'unavailable' | 'failed' | 'closed' | 'lost' | 'node_lost' | 'replaced' | 'kicked'
  | (string & {})

/** Whether a message was handed to a user who is connected, or is kept for one who is between connections. */
export type Delivery = 'delivered' | 'queued'

export interface Abortable {
  signal?: AbortSignal
}

export interface ClientOptions extends Abortable {
  /** Log in with this name at once. */
  name?: string
  /**
   * Given to the server at each login. A function is asked each time, so it may fetch a new one. If it fails, the first login fails with
   * `unauthorized`; at a reconnect it is asked again.
   */
  token?: string | (() => string | Promise<string>)
  /** Which transports to try, in this order. All by default. */
  transports?: readonly TransportKind[]
  /** Milliseconds between tries to connect: a random time up to `min`, then up to twice as long each time, up to `max`. 500 and 20,000. */
  reconnect?: { min?: number; max?: number }
  /** For every peer connection, such as `{ iceTransportPolicy: 'relay' }`. Its `iceServers` are used besides the server's. */
  rtc?: RTCConfiguration
  /** Where there is none, such as `ws` in Node.js. */
  WebSocket?: unknown
  /** Where there is none. Only calls need it. */
  RTCPeerConnection?: unknown
  fetch?: typeof fetch
}

export interface CallOptions extends Abortable {
  /** What to send: a stream of `getUserMedia` or `getDisplayMedia`, for one. */
  stream?: MediaStream
  /** Data channels to open with the call, by label. */
  channels?: readonly string[]
  /** For this call only: over `ClientOptions.rtc`. */
  rtc?: RTCConfiguration
  /** Ends the call, unless it is connected by then: `AbortSignal.timeout(30_000)` is how long it may ring. */
  signal?: AbortSignal
}

export interface AcceptOptions {
  /** What to send. */
  stream?: MediaStream
}

/** What was asked for was refused, or is not possible. */
export declare class SwitchboardError extends Error {
  constructor(code: string, message?: string, retryAfter?: number)
  /** The server's code (`name_taken`, `user_unavailable`, `forbidden`, …), or `closed`, `not_logged_in`, `already_in_call`, `unreachable`. */
  readonly code: string
  /** Milliseconds after which another try may succeed, if it may. */
  readonly retryAfter?: number
}

export interface StateEvent extends Event {
  readonly state: ClientState
  /** Why it is `closed`, unless `close()` was called. */
  readonly error?: SwitchboardError
}
export interface CallEvent extends Event {
  readonly call: Call
}
export interface MessageEvent extends Event {
  /** Who sent it. */
  readonly name: string
  readonly message: any
}
export interface PresenceEvent extends Event {
  /** Those who came (`true`) or went (`false`). */
  readonly users: Record<string, boolean>
}
export interface IceServersEvent extends Event {
  readonly iceServers: RTCIceServer[]
}

export interface ClientEventMap {
  /** `state`, `transport` or `node` has changed. */
  state: StateEvent
  /** Somebody calls: `accept()` it, or `hangup('declined')`. */
  call: CallEvent
  /** What `send()` of another's client brought. */
  message: MessageEvent
  /** Of the watched users, somebody came or went. */
  presence: PresenceEvent
  /** There are new ICE servers; calls already have them. */
  iceservers: IceServersEvent
}

declare class TypedTarget<Events> extends EventTarget {
  addEventListener<Type extends keyof Events>(
    type: Type,
    listener: ((event: Events[Type]) => unknown) | { handleEvent(event: Events[Type]): unknown } | null,
    options?: boolean | AddEventListenerOptions,
  ): void
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void
  removeEventListener<Type extends keyof Events>(
    type: Type,
    listener: ((event: Events[Type]) => unknown) | { handleEvent(event: Events[Type]): unknown } | null,
    options?: boolean | EventListenerOptions,
  ): void
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void
}

/** A session at a Switchboard server, which outlives its connections. */
export declare class Client extends TypedTarget<ClientEventMap> {
  /**
   * @param url Where the server is: `wss://…`, `https://…`, or relative to the page, such as `'/'`. A `ws` URL is used as it is;
   * for others the WebSocket is at `ws`, and the HTTP door at `v1/`, beside it.
   */
  constructor(url: string | URL | Location, options?: ClientOptions)
  readonly state: ClientState
  /** The name, once logged in. */
  readonly name: string | undefined
  /** The session's public id. */
  readonly session: string | undefined
  /** Which node the client is connected to, and how. */
  readonly node: string | undefined
  readonly transport: TransportKind | undefined
  /** Those of the server and of `options.rtc`, as they are now. */
  readonly iceServers: RTCIceServer[]
  /** The calls that have not ended, by the other's name. */
  readonly calls: ReadonlyMap<string, Call>

  /** Connects, and logs in if `options.name` was given. Tries until it succeeds, is refused, or `signal` ends it. */
  connect(options?: Abortable): Promise<this>
  /** Takes a name. Fails with `name_taken`, `invalid_name`, `unauthorized`, …; another try may follow. */
  login(name: string, options?: Abortable): Promise<this>
  /** Calls somebody. Returns at once; the call's events say what becomes of it. */
  call(name: string, options?: CallOptions): Call
  /**
   * Sends anything that is JSON to somebody, call or not. Once, in order, whatever becomes of connections, while Redis keeps its data. Fails with `too_large` if the whole
   * frame has more than 64 KiB of UTF-8, or more than the server's own limit.
   */
  send(name: string, message: unknown, options?: Abortable): Promise<Delivery>
  /** Who of these is here. */
  presence(names: readonly string[], options?: Abortable): Promise<Record<string, boolean>>
  /** Who of these is here, and from now on `presence` events when that changes. At most 256 names in all. */
  watch(names: readonly string[], options?: Abortable): Promise<Record<string, boolean>>
  unwatch(names: readonly string[]): void
  /** Ends all calls and the session. */
  close(): void
  [Symbol.asyncDispose](): Promise<void>
}

export interface CallStateEvent extends Event {
  readonly state: CallState
}
export interface StreamEvent extends Event {
  readonly stream: MediaStream
  readonly track: MediaStreamTrack
}
export interface ChannelEvent extends Event {
  readonly channel: Channel
}
export interface EndEvent extends Event {
  readonly reason: EndReason
  /** Whether it was this side that ended it. */
  readonly local: boolean
}

export interface CallEventMap {
  state: CallStateEvent
  /** The other sends a track; `stream` is what to show. Once for each track. */
  stream: StreamEvent
  /** The other opened a data channel that we have not. */
  channel: ChannelEvent
  end: EndEvent
}

/** A call with somebody: a peer connection that negotiates, trickles, recovers and reports by itself. */
export declare class Call extends TypedTarget<CallEventMap> {
  private constructor()
  /** The other's name. */
  readonly name: string
  readonly direction: 'outgoing' | 'incoming'
  readonly state: CallState
  /** Why it has ended. */
  readonly reason: EndReason | undefined
  /**
   * The peer connection. Tracks, transceivers and channels may be added and removed at any time: the other side is told by itself.
   * Do not call `setLocalDescription`, `setRemoteDescription`, `addIceCandidate` or `close` on it.
   */
  readonly pc: RTCPeerConnection
  /** The other's stream that came last. */
  readonly stream: MediaStream | undefined
  /** Resolves once connected; fails if the call ends before. */
  readonly connected: Promise<this>
  /** Resolves with the reason when the call has ended. */
  readonly ended: Promise<EndReason>
  /** Milliseconds from the offer until it was connected. */
  readonly setupTime: number | undefined

  /** Takes an incoming call. */
  accept(options?: AcceptOptions): this
  /** Sends every track of a stream, from now on. */
  addStream(stream: MediaStream): void
  /** The data channel of that label, opened if it is not there. Both sides may ask for the same one at the same time. */
  channel(label?: string, options?: RTCDataChannelInit): Channel
  /** Looks for a new way between the browsers. Done by itself if the connection fails or the network changes. */
  restart(): void
  /** Ends the call. The other is told the reason: `hangup`, `declined`, `busy`, or any word of your own. */
  hangup(reason?: EndReason): void
}

export interface ChannelMessageEvent extends Event {
  readonly data: any
}
export interface ChannelEventMap {
  open: Event
  message: ChannelMessageEvent
  close: Event
}

/** A data channel of a call. What is sent before it is open waits for that. */
export declare class Channel extends TypedTarget<ChannelEventMap> {
  private constructor()
  readonly label: string
  readonly readyState: RTCDataChannelState
  /** The channel that `send` uses, once there is one. */
  readonly raw: RTCDataChannel | undefined
  send(data: string | Blob | ArrayBuffer | ArrayBufferView): void
  close(): void
}

/** `new Client(url, options).connect()` */
export declare function connect(url: string | URL | Location, options?: ClientOptions): Promise<Client>
