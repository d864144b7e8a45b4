import { Channel } from './channel.js'

/** The data channels of a call, by label. */
export class Channels {
  /** @type {Map<string, Channel>} */
  #channels = new Map()
  #pc
  #canChunk

  /**
   * @param {any} pc an RTCPeerConnection
   * @param {() => boolean} canChunk whether the other puts pieces together
   * @param {(channel: Channel) => void} came the other has opened one that we have not
   */
  constructor(pc, canChunk, came) {
    this.#pc = pc
    this.#canChunk = canChunk
    pc.ondatachannel = (/** @type {any} */ { channel: raw }) => {
      const known = this.#channels.get(raw.label)
      const channel = known ?? this.#add(raw.label)
      channel._add(raw)
      if (!known) came(channel)
    }
  }

  /** @param {string} label @param {any} options */
  get(label, options) {
    const known = this.#channels.get(label)
    if (known) return known
    const channel = this.#add(label)
    channel._add(this.#pc.createDataChannel(label, options))
    return channel
  }

  end() {
    for (const channel of this.#channels.values()) channel._ended()
  }

  /** @param {string} label */
  #add(label) {
    const limit = () => this.#pc.sctp?.maxMessageSize
    const channel = new Channel(label, { limit, canChunk: this.#canChunk })
    this.#channels.set(label, channel)
    channel.addEventListener('close', () => this.#channels.get(label) === channel && this.#channels.delete(label))
    return channel
  }
}
