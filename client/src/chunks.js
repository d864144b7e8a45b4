/**
 * Messages larger than a data channel takes, in pieces: a text that begins with a mark says what follows. Only between
 * two of this library, on channels that are ordered and reliable.
 */

import { encoded } from './util.js'

const MARK = '\u0000switchboard:'
/** The size of a piece: what every browser takes, and no other message waits long for. */
const PIECE = 65_536
/** The largest message that is put together. */
const MOST_JOINED = 67_108_864


/** @param {import('./types.js').Sendable} data @returns {number} in bytes */
export const sizeOf = (data) =>
  typeof data === 'string' ? encoded(data).length : 'size' in data ? data.size : data.byteLength

/** @param {string | ArrayBuffer | ArrayBufferView} data @returns {(string | ArrayBufferView)[]} */
export function pieces(data) {
  const isText = typeof data === 'string'
  const all = isText
    ? encoded(data)
    : 'buffer' in data
      ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
      : new Uint8Array(data)
  /** @type {(string | ArrayBufferView)[]} */
  const result = [`${MARK}${JSON.stringify({ bytes: all.length, text: isText })}`]
  for (let at = 0; at < all.length; at += PIECE) result.push(all.subarray(at, at + PIECE))
  return result
}

/** Puts pieces together. */
export class Joiner {
  /** @type {{ all: Uint8Array, text: boolean, at: number } | undefined} */
  #current

  /** @param {any} data @returns {{ data: any } | undefined} a whole message, if there is one now */
  take(data) {
    const { size } = this
    if (typeof data === 'string' && data.startsWith(MARK)) {
      const { bytes, text } = JSON.parse(data.slice(MARK.length))
      this.#current = bytes > 0 && bytes <= MOST_JOINED ? { all: new Uint8Array(bytes), text, at: 0 } : undefined
      return undefined
    }
    if (!size || typeof data === 'string') return { data }
    const current = /** @type {{ all: Uint8Array, text: boolean, at: number }} */ (this.#current)
    const piece = new Uint8Array(data).subarray(0, current.all.length - current.at)
    current.all.set(piece, current.at)
    current.at += piece.length
    if (current.at < current.all.length) return undefined
    this.#current = undefined
    return { data: current.text ? new TextDecoder().decode(current.all) : current.all.buffer }
  }

  /** Of the message that is being put together. */
  get size() {
    return this.#current?.all.length ?? 0
  }
}
