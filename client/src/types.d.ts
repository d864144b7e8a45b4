/** The types that apps name. What the library's classes do is written where they are. */

import type { Call } from './call.js'
import type { Channel } from './channel.js'
import type { SwitchboardError } from './errors.js'

/** What a type of the browser is, or `any` where a program is compiled without the DOM's types. */
type Global<Name extends string> = typeof globalThis extends { [Key in Name]: { prototype: infer Type } } ? Type : any
export type PeerConnection = Global<'RTCPeerConnection'>
export type Stream = Global<'MediaStream'>
export type Track = Global<'MediaStreamTrack'>
export type DataChannel = Global<'RTCDataChannel'>
export type Sendable = string | ArrayBuffer | ArrayBufferView | Global<'Blob'>
export interface IceServer {
  urls: string | string[]
  username?: string
  credential?: string
}

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

/** Whether the server answers: `probing` while a question of ours is unanswered for more than a second. */
export type Reachability = 'online' | 'probing' | 'offline'

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
 * Why a call ended. By a person: `hangup`, `declined`, `busy`, `cancelled`, `timeout`, or what an app says to
 * `hangup()`. By what happened: `unavailable` (nobody of that name is here), `failed` (no way between the browsers),
 * `closed`, `lost`, `node_lost`, `replaced`, `kicked` (what became of the other's session, see the server's docs, "Messages").
 */
export type EndReason =
  | 'hangup' | 'declined' | 'busy' | 'cancelled' | 'timeout'
  | 'unavailable' | 'failed' | 'closed' | 'lost' | 'node_lost' | 'replaced' | 'kicked'
  | (string & {})

/** Whether a message was handed to a user who is connected, or is kept for one who is between connections. */
export type Delivery = 'delivered' | 'queued'

export interface ListenerOptions {
  capture?: boolean
  once?: boolean
  passive?: boolean
  signal?: AbortSignal
}

export interface Abortable {
  signal?: AbortSignal
}

export interface ConnectOptions extends Abortable {
  /**
   * Milliseconds after which `connect()` and `login()` give up, with a `timeout` that says what went wrong last. None
   * by default.
   */
  timeout?: number
}

/** What happens inside, for a log: never a token, a secret, a description or a candidate. */
export interface DebugRecord {
  /** Milliseconds, of a clock that only goes forward. */
  at: number
  what: string
  [detail: string]: unknown
}

export interface SessionOptions extends ConnectOptions {
  /** Log in with this name at once. */
  name?: string
  /**
   * Given to the server at each login. A function is asked each time, so it may fetch a new one, and also a minute before
   * the server's time for it is over. If it fails, the first login fails with `unauthorized`; later it is asked again.
   */
  token?: string | (() => string | undefined | Promise<string | undefined>)
  /** Which transports to try, in this order. All by default. */
  transports?: readonly TransportKind[]
  /**
   * Milliseconds between tries to connect: a random time up to `min`, then up to twice as long each time, up to `max`.
   * 500 and 20,000.
   */
  reconnect?: { min?: number; max?: number }
  /**
   * Keep the session over a reload of the page, in `sessionStorage`. Calls end, what waits to be sent or heard does
   * not.
   */
  persist?: boolean
  /** Hears what happens inside; `true` writes it to the console. */
  debug?: boolean | ((record: DebugRecord) => void)
  /** Where there is none, such as `ws` in Node.js. */
  WebSocket?: unknown
  fetch?: typeof fetch
}

export interface CallSettings {
  /** Milliseconds that a call may ring; then it ends with `timeout`. 60,000. */
  ringTimeout?: number
  /** Milliseconds from the answer until it is connected; then it ends with `failed`. 30,000. */
  connectTimeout?: number
  /** Milliseconds that a connected call may be interrupted before it ends. 60,000. */
  giveUp?: number
}

export interface ClientOptions extends SessionOptions {
  /**
   * For every peer connection, such as `{ iceTransportPolicy: 'relay' }`. Its `iceServers` are used besides the
   * server's.
   */
  rtc?: Partial<PeerConfiguration>
  /** For every call. */
  calls?: CallSettings
  /** Where there is none. Only calls need it. */
  RTCPeerConnection?: unknown
}
export type PeerConfiguration = { iceServers?: IceServer[]; [setting: string]: any }

export interface CallOptions extends Abortable, CallSettings {
  /** What to send: a stream of `getUserMedia` or `getDisplayMedia`, for one. */
  stream?: Stream
  /** Data channels to open with the call, by label. */
  channels?: readonly string[]
  /** Anything that is JSON, up to some kilobytes: the other finds it in `call.data` when it rings. */
  data?: unknown
  /** For this call only: over `ClientOptions.rtc`. */
  rtc?: Partial<PeerConfiguration>
}

export interface AcceptOptions {
  /** What to send. */
  stream?: Stream
}

/** How a call is doing. What the browser does not tell is left out. */
export interface CallStats {
  /** Milliseconds there and back between the browsers. */
  rtt?: number
  /** Of the packets of the last second or so, how many did not arrive here: 0 to 1. */
  loss?: number
  /** Bits a second, in and out, since the last time `stats()` was asked. */
  received?: number
  sent?: number
  /** Whether the chosen path leads through a TURN server. */
  relayed?: boolean
}

export interface StateEvent extends Event {
  readonly state: ClientState
  /** Why it is `closed`, unless `close()` was called. */
  readonly error?: SwitchboardError
}
export interface ReachableEvent extends Event {
  readonly reachable: Reachability
}
/** A try to connect or to log in that failed. */
export interface AttemptEvent extends Event {
  readonly transport?: TransportKind
  /** See `SwitchboardError.code`. */
  readonly code: string
  readonly message: string
  readonly error: SwitchboardError
  /** Whether nothing more is tried. */
  readonly final: boolean
  /** Otherwise, milliseconds until the next try. */
  readonly retryIn?: number
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
  readonly iceServers: IceServer[]
}

export interface SessionEventMap {
  /** `state`, `transport` or `node` has changed. */
  state: StateEvent
  /** `reachable` has changed. */
  reachable: ReachableEvent
  /** A try to connect has failed. */
  attempt: AttemptEvent
  /** What `send()` of another's client brought. */
  message: MessageEvent
  /**
   * Messages that their senders know as `delivered` or `queued` may not have come: the server has lost data, or this
   * client was away for longer than its session was kept, and has another one. Load anew what you show.
   */
  missed: Event
  /** Of the watched users, somebody came or went. */
  presence: PresenceEvent
  /** There are new ICE servers; calls already have them. */
  iceservers: IceServersEvent
}
export interface ClientEventMap extends SessionEventMap {
  /** Somebody calls: `accept()` it, or `hangup('declined')`. */
  call: CallEvent
}

export interface CallStateEvent extends Event {
  readonly state: CallState
}
export interface StreamEvent extends Event {
  readonly stream: Stream
  readonly track: Track
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
  /** The other sends a track, or sends it again after a hold; `stream` is what to show. */
  stream: StreamEvent
  /** A track of the other's brings nothing for now, brings something again, or has ended. */
  mute: StreamEvent
  unmute: StreamEvent
  ended: StreamEvent
  /** The other opened a data channel that we have not. */
  channel: ChannelEvent
  end: EndEvent
}

export interface ChannelMessageEvent extends Event {
  readonly data: any
}
export interface ChannelErrorEvent extends Event {
  readonly error: SwitchboardError
}
export interface ChannelEventMap {
  open: Event
  message: ChannelMessageEvent
  /** What waited to be sent has gone out, or nearly. */
  drain: Event
  /** A message that waited for the channel cannot be sent. */
  error: ChannelErrorEvent
  close: Event
}
