/**
 * Tells the server what the app has been handed: after some messages or bytes, and with each ping. Whatever is not
 * confirmed the server keeps, and says again to the next connection.
 */

const MESSAGES = 32
const BYTES = 131_072

export class Confirmation {
  #send
  /** @type {string | undefined} The last signal that the app was handed. */
  last
  /** @type {string | undefined} */
  #confirmed
  #messages = 0
  #bytes = 0

  /** @param {(text: string) => void} send */
  constructor(send) {
    this.#send = send
  }

  /** @param {string} seq @param {number} size in bytes */
  handed(seq, size) {
    this.last = seq
    this.#messages += 1
    this.#bytes += size
    if (this.#messages < MESSAGES && this.#bytes < BYTES) return
    this.#confirm()
    this.#send(JSON.stringify({ type: 'ack', seq }))
  }

  /** A ping, which says the same if there is anything new. */
  ping() {
    if (this.last === this.#confirmed) return '{"type":"ping"}'
    this.#confirm()
    return JSON.stringify({ type: 'ping', seq: this.last })
  }

  #confirm() {
    this.#confirmed = this.last
    this.#messages = this.#bytes = 0
  }
}
