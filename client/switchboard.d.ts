// Made of what is in src/, by types.mjs.

export {}

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

/** What was asked for was refused, or is not possible. */
export declare class SwitchboardError extends Error {
    /**
     * @param {string} code the server's (`name_taken`, `user_unavailable`, `forbidden`, …), or one of the library's
     * (`closed`, `timeout`, `not_logged_in`, `already_in_call`, `unreachable`, `not_found`, `blocked_by_csp`, `insecure`,
     * `bad_url`, `no_transport`, …)
     * @param {string} [message]
     * @param {number} [retryAfter] milliseconds after which another try may succeed, if it may
     * @param {ErrorOptions} [options]
     */
    constructor(code: string, message?: string, retryAfter?: number, options?: ErrorOptions);
    readonly code: string;
    readonly retryAfter: number | undefined;
}

/**
 * An `EventTarget` whose types know its events, so that a misspelt name is an error.
 * @template {{ [Type in keyof Events]: Event }} Events
 */
export declare class Emitter<Events extends { [Type in keyof Events]: Event; }> extends EventTarget {
    constructor();
    /**
     * @template {keyof Events & string} Type
     * @param {Type} type
     * @param {((event: Events[Type]) => unknown) | { handleEvent(event: Events[Type]): unknown } | null} listener
     * @param {boolean | import('./types.js').ListenerOptions} [options]
     */
    addEventListener<Type extends keyof Events & string>(type: Type, listener: ((event: Events[Type]) => unknown) | {
        handleEvent(event: Events[Type]): unknown;
    } | null, options?: boolean | ListenerOptions): void;
    /**
     * @template {keyof Events & string} Type
     * @param {Type} type
     * @param {((event: Events[Type]) => unknown) | { handleEvent(event: Events[Type]): unknown } | null} listener
     * @param {boolean | import('./types.js').ListenerOptions} [options]
     */
    removeEventListener<Type extends keyof Events & string>(type: Type, listener: ((event: Events[Type]) => unknown) | {
        handleEvent(event: Events[Type]): unknown;
    } | null, options?: boolean | ListenerOptions): void;
}

/**
 * A data channel of a call. What is sent before it is open, or faster than it goes, waits. If both sides open a channel
 * of one label at the same time there are two: what comes by either is heard, and one is used to send.
 *
 * @extends {Emitter<ChannelEventMap>}
 */
export declare class Channel extends Emitter<ChannelEventMap> {
    protected constructor();
    /** @readonly */
    readonly label: string;
    /** The channel that `send` uses, once there is one. @type {DataChannel | undefined} */
    readonly raw: DataChannel | undefined;
    /** @returns {'connecting' | 'open' | 'closing' | 'closed'} */
    get readyState(): "connecting" | "open" | "closing" | "closed";
    /** Resolves when it is open; fails if it is closed before. @returns {Promise<this>} */
    get ready(): Promise<this>;
    /** How many bytes have not left the browser. */
    get bufferedAmount(): number;
    /**
     * Sends a message of any size up to 16 MiB, in pieces if the other side's browser takes no larger ones. Fails with
     * `overloaded` if too much waits: then `drain` says when to go on.
     * @param {Sendable} data
     */
    send(data: Sendable): void;
    close(): void;
    #private;
}

/**
 * What a call carries: streams and channels.
 * @extends {Emitter<CallEventMap>}
 */
export declare class CallMedia extends Emitter<CallEventMap> {
    protected constructor();
    /**
     * The peer connection. Tracks, transceivers and channels may be added and removed at any time: the other side is told
     * by itself. Do not call `setLocalDescription`, `setRemoteDescription`, `addIceCandidate` or `close` on it.
     * @type {PeerConnection}
     * @readonly
     */
    readonly pc: PeerConnection;
    /** The other's stream that came last. @type {Stream | undefined} */
    readonly stream: Stream | undefined;
    /** How it is doing. What is a rate is one since the last time. @type {() => Promise<CallStats>} */
    readonly stats: () => Promise<CallStats>;
    /**
     * Sends every track of a stream, from now on. Those that are sent already stay as they are.
     * @param {Stream} stream
     */
    addStream(stream: Stream): void;
    /**
     * Sends another track in the place of the one of its kind, without a word to the other side; `null` and a kind:
     * nothing.
     * @param {Track | null} track
     * @param {'audio' | 'video'} [kind]
     */
    replaceTrack(track: Track | null, kind?: "audio" | "video"): Promise<void>;
    /** Sends nothing, or again what was sent before. @param {boolean} [on] */
    hold(on?: boolean): void;
    /**
     * The data channel of that label, opened if it is not there. Both sides may ask for the same one at the same time.
     * @param {string} [label]
     * @param {any} [options] an RTCDataChannelInit
     * @returns {Channel}
     */
    channel(label?: string, options?: any): Channel;
    #private;
}

/**
 * A call with somebody: a peer connection that negotiates, trickles, recovers and reports by itself.
 */
export declare class Call extends CallMedia {
    protected constructor();
    /** The other's name. @readonly */
    readonly name: string;
    /** @type {'incoming' | 'outgoing'} @readonly */
    readonly direction: "incoming" | "outgoing";
    /** @type {CallState} */
    readonly state: CallState;
    /** Why it has ended. @type {EndReason | undefined} */
    readonly reason: EndReason | undefined;
    /** Milliseconds from the offer until it was connected. @type {number | undefined} */
    readonly setupTime: number | undefined;
    /** What the caller gave to `call()`. @type {any} */
    readonly data: any;
    /** Which call of ours it is, and which of the other's: signals of another one are recognised by these. */
    get leg(): string;
    get peer(): string | undefined;
    /** Resolves once connected; fails if the call ends before. @returns {Promise<this>} */
    get connected(): Promise<this>;
    /** Resolves with the reason when the call has ended. */
    get ended(): Promise<EndReason>;
    /** Takes an incoming call. @param {AcceptOptions} [options] @returns {this} */
    accept({ stream }?: AcceptOptions): this;
    /** Looks for a new way between the browsers. Done by itself if the connection fails or the network changes. */
    restart(): void;
    /**
     * Ends the call. The other is told the reason: `hangup`, `declined`, `busy`, or any word of your own.
     * @param {EndReason} [reason]
     */
    hangup(reason?: EndReason): void;
    #private;
}

/**
 * A session at a Switchboard server, which outlives its connections: it logs in and resumes, sends and hears messages,
 * and watches who is there. `Client` adds calls.
 *
 * @template {SessionEventMap & { [Type in keyof Events]: Event }} [Events=SessionEventMap]
 * @extends {Emitter<Events>}
 */
export declare class Session<Events extends SessionEventMap & { [Type in keyof Events]: Event; } = SessionEventMap> extends Emitter<Events> {
    /**
     * @param {string | URL | { href: string }} url where the server is: `wss://…`, `https://…`, or relative to the
     * page, such as `'/'`. A `ws` URL is used as it is; for others the WebSocket is at `ws`, and HTTP at `v1/`, beside it.
     * @param {SessionOptions} [options]
     */
    constructor(url: string | URL | {
        href: string;
    }, options?: SessionOptions);
    get state(): ClientState;
    /** Whether the server answers. */
    get reachable(): Reachability;
    /** The name, once logged in. */
    get name(): string | undefined;
    /** The session's public id. */
    get session(): string | undefined;
    /** Which node the client is connected to. */
    get node(): string | undefined;
    /** How it is connected. */
    get transport(): TransportKind | undefined;
    /** Those of the server, as they are now. */
    get iceServers(): IceServer[];
    /**
     * Connects, and logs in if `options.name` was given. Tries until it succeeds, is refused, or cannot succeed, or
     * `signal` or `timeout` ends it.
     * @param {ConnectOptions} [options]
     * @returns {Promise<this>}
     */
    connect(options?: ConnectOptions): Promise<this>;
    /**
     * Takes a name. Fails with `name_taken`, `invalid_name`, `unauthorized`, …; another try may follow.
     * @param {string} name
     * @param {ConnectOptions} [options]
     * @returns {Promise<this>}
     */
    login(name: string, options?: ConnectOptions): Promise<this>;
    /**
     * Sends anything that is JSON to somebody, call or not. Once, in order, whatever becomes of connections, while the
     * server keeps its data. Fails with `too_large` if the whole frame has more than 64 KiB of UTF-8, or more than the
     * server's own limit. A `signal` takes it back: it is not sent any more, or not again.
     * @param {string} name
     * @param {unknown} message
     * @param {Abortable} [options]
     * @returns {Promise<Delivery>}
     */
    send(name: string, message: unknown, { signal }?: Abortable): Promise<Delivery>;
    /**
     * Who of these is here.
     * @param {readonly string[]} names
     * @param {Abortable} [options]
     * @returns {Promise<Record<string, boolean>>}
     */
    presence(names: readonly string[], { signal }?: Abortable): Promise<Record<string, boolean>>;
    /**
     * Who of these is here, and from now on `presence` events when that changes. At most 256 names in all.
     * @param {readonly string[]} names
     * @param {Abortable} [options]
     * @returns {Promise<Record<string, boolean>>}
     */
    watch(names: readonly string[], { signal }?: Abortable): Promise<Record<string, boolean>>;
    /** @param {readonly string[]} names */
    unwatch(names: readonly string[]): void;
    /** Ends the session, and all calls. */
    close(): void;
    [Symbol.asyncDispose](): Promise<void>;
    #private;
}

/**
 * A session with calls.
 * @extends {Session<ClientEventMap>}
 */
export declare class Client extends Session<ClientEventMap> {
    /**
     * @param {string | URL | { href: string }} url where the server is: `wss://…`, `https://…`, or relative to the
     * page, such as `'/'`. A `ws` URL is used as it is; for others the WebSocket is at `ws`, and HTTP at `v1/`, beside it.
     * @param {ClientOptions} [options]
     */
    constructor(url: string | URL | {
        href: string;
    }, options?: ClientOptions);
    /** The calls that have not ended, by the other's name. @returns {ReadonlyMap<string, Call>} */
    get calls(): ReadonlyMap<string, Call>;
    /**
     * Calls somebody. Returns at once; the call's events say what becomes of it.
     * @param {string} name
     * @param {CallOptions} [options]
     * @returns {Call}
     */
    call(name: string, options?: CallOptions): Call;
    #private;
}
export declare function connect(url: string | URL | {
    href: string;
}, options?: ClientOptions): Promise<Client>;

export declare const version: "0.1.0";
