/** @import { Stream, Track } from './types.js' */

/** @param {any} pc @param {Stream} stream */
export function addStream(pc, stream) {
  const sent = pc.getSenders().map((/** @type {any} */ { track }) => track)
  for (const track of stream.getTracks()) if (!sent.includes(track)) pc.addTrack(track, stream)
}

/**
 * @param {any} pc
 * @param {Track | null} track
 * @param {'audio' | 'video'} [kind]
 */
export async function replaceTrack(pc, track, kind = /** @type {any} */ (track?.kind)) {
  const sends = (/** @type {any} */ { receiver, direction }) => receiver.track.kind === kind && /send/.test(direction)
  const transceiver = pc.getTransceivers().find(sends)
  if (transceiver) await transceiver.sender.replaceTrack(track)
  else if (track) pc.addTrack(track)
}

/** Which way transceivers that are on hold went. @type {WeakMap<object, string>} */
const held = new WeakMap()

/** @param {any} pc @param {boolean} on */
export function hold(pc, on) {
  for (const transceiver of pc.getTransceivers()) {
    const { direction } = transceiver
    if (on && /send/.test(direction)) {
      held.set(transceiver, direction)
      transceiver.direction = direction === 'sendrecv' ? 'recvonly' : 'inactive'
    } else if (!on && held.has(transceiver)) {
      transceiver.direction = held.get(transceiver)
      held.delete(transceiver)
    }
  }
}
