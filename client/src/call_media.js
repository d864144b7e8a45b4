import { Channels } from './channels.js'
import { Emitter } from './events.js'
import { addStream, hold, replaceTrack } from './media.js'
import { isOurs } from './pairing.js'
import { summary } from './stats.js'

/** @import { CallEventMap, CallStats, PeerConnection, Stream, Track } from './types.js' */
/** @import { Channel } from './channel.js' */

/**
 * What a call carries: streams and channels.
 * @extends {Emitter<CallEventMap>}
 */
export class CallMedia extends Emitter {
  /**
   * The peer connection. Tracks, transceivers and channels may be added and removed at any time: the other side is told
   * by itself. Do not call `setLocalDescription`, `setRemoteDescription`, `addIceCandidate` or `close` on it.
   * @type {PeerConnection}
   * @readonly
   */
  pc
  /** The other's stream that came last. @type {Stream | undefined} */
  stream
  /** How it is doing. What is a rate is one since the last time. @type {() => Promise<CallStats>} */
  stats
  /** @internal */
  _channels

  /** @type {Set<Track>} */
  #watched = new Set()

  /** @internal @param {any} pc @param {() => string | undefined} peer */
  constructor(pc, peer) {
    super()
    this.pc = pc
    this.stats = summary(pc)
    pc.ontrack = (/** @type {any} */ event) => this.#takeTrack(event)
    this._channels = new Channels(
      pc,
      () => isOurs(peer()),
      (channel) => this._fire('channel', { channel }),
    )
  }

  /**
   * Sends every track of a stream, from now on. Those that are sent already stay as they are.
   * @param {Stream} stream
   */
  addStream(stream) {
    addStream(this.pc, stream)
  }

  /**
   * Sends another track in the place of the one of its kind, without a word to the other side; `null` and a kind:
   * nothing.
   * @param {Track | null} track
   * @param {'audio' | 'video'} [kind]
   */
  replaceTrack(track, kind) {
    return replaceTrack(this.pc, track, kind)
  }

  /** Sends nothing, or again what was sent before. @param {boolean} [on] */
  hold(on = true) {
    hold(this.pc, on)
  }

  /**
   * The data channel of that label, opened if it is not there. Both sides may ask for the same one at the same time.
   * @param {string} [label]
   * @param {any} [options] an RTCDataChannelInit
   * @returns {Channel}
   */
  channel(label = 'chat', options = undefined) {
    return this._channels.get(label, options)
  }

  /** @param {any} event */
  #takeTrack({ track, streams }) {
    const stream = streams[0] ?? new MediaStream([track])
    this.stream = stream
    if (!this.#watched.has(track)) {
      this.#watched.add(track)
      for (const type of /** @type {const} */ (['mute', 'unmute', 'ended'])) {
        track.addEventListener(type, () => this._fire(type, { track, stream: this.stream }))
      }
    }
    // Again after a hold: the browser took the track out of the stream, and has put it back.
    this._fire('stream', { stream, track })
  }
}
