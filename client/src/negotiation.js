import { systemClock } from './clock.js'
import { deferred, ignore, sleep } from './util.js'

/**
 * Perfect negotiation as in the W3C's webrtc-pc, with one difference: everything that touches the descriptions goes
 * through one queue, so that an offer never meets a half-made one, and "a collision" is just "not stable".
 */

/** The longest that an offer waits for its first candidate before it is taken back. */
const GATHER = 1000
/** Candidates that wait for their description. */
const MOST_EARLY = 256
/** The lowest priority of an address of a browser's own, and by how much that is above the one of an unknown address. */
const OWN = 126 * 2 ** 24
const ABOVE_UNKNOWN = 17 * 2 ** 24

/**
 * @typedef {object} NegotiationPort
 * @property {() => boolean} isPolite
 * @property {() => boolean} isOver
 * @property {(type: 'offer' | 'answer' | 'candidate', body: object) => void} send
 * @property {(error: unknown) => void} failed
 * @property {() => void} foundNetwork the browser had found all ways, and has found another
 * @property {() => void} beforeAnswer adds what is to be answered with
 */

export class Negotiation {
  #pc
  #port
  #queue = Promise.resolve()
  #gathered = deferred()
  /**
   * Candidates that came before the description they belong to; undefined once there is one.
   * @type {any[] | undefined}
   */
  #early = []
  /** Our candidates, until there is a connection. @type {object[]} */
  #candidates = []
  /** Whether an offer waits for its acceptance, or is being answered. */
  isHeld = false

  /** @param {any} pc an RTCPeerConnection @param {NegotiationPort} port */
  constructor(pc, port) {
    this.#pc = pc
    this.#port = port
    pc.onnegotiationneeded = () => {
      // An answer takes with it what was added before; the browser asks again if that was not all.
      if (!this.isHeld) this.#do(() => this.#makeOffer())
    }
    pc.onicecandidate = (/** @type {any} */ { candidate }) => {
      this.#gathered.resolve(undefined)
      if (!candidate) return
      const plain = { ...(candidate.toJSON?.() ?? candidate), candidate: belowUnknown(candidate.candidate) }
      if (pc.iceGatheringState === 'complete') port.foundNetwork()
      this.#candidates.push(plain)
      port.send('candidate', plain)
    }
  }

  end() {
    this.#pc.onnegotiationneeded = this.#pc.onicecandidate = null
  }

  /** There is a connection: the candidates have done their work. */
  connected() {
    this.#candidates = []
  }

  /** @param {any} offer */
  answer(offer) {
    this.isHeld = true
    this.#do(() => this.#takeOffer(offer).finally(() => (this.isHeld = false)))
    this.#flush()
  }

  /** @param {'offer' | 'answer' | 'candidate'} type @param {any} body */
  hear(type, body) {
    if (type === 'candidate') {
      if (this.#early) return void (this.#early.length < MOST_EARLY && this.#early.push(body))
      return this.#do(() => this.#addCandidate(body))
    }
    if (type === 'offer') this.#do(() => this.#takeOffer(body))
    else this.#do(() => this.#takeAnswer(body))
    this.#flush()
  }

  /**
   * Signals were lost: says again what the other may need and not have. Nothing new is made, so the other can tell that
   * it knows it, and it does not matter that both sides do this at the same time. ICE need not be restarted, as it
   * waits for candidates; if it fails, it is.
   */
  repeat() {
    this.#do(() => {
      if (this.#pc.connectionState === 'connected' && this.#pc.signalingState === 'stable') return
      this.#repeatDescriptions()
      for (const candidate of this.#candidates) this.#port.send('candidate', candidate)
    })
  }

  /** One step after the other. @param {() => any} step */
  #do(step) {
    this.#queue = this.#queue
      .then(() => (this.#port.isOver() ? undefined : step()))
      .catch((error) => this.#port.isOver() || this.#port.failed(error))
  }

  async #makeOffer() {
    // If this is not the moment, the browser asks again.
    if (this.#pc.signalingState !== 'stable') return
    await this.#pc.setLocalDescription()
    this.#send('offer')
  }

  /** @param {any} answer */
  #takeAnswer(answer) {
    const { signalingState, localDescription } = this.#pc
    // An answer that is repeated must not pass for that to a later offer. Other clients do not say which offer they
    // answer.
    if (signalingState === 'have-local-offer' && (!answer.to || answer.to === mark(localDescription))) {
      return this.#pc.setRemoteDescription(plain(answer))
    }
  }

  /** @param {any} offer */
  async #takeOffer(offer) {
    const pc = this.#pc
    const known = pc.currentRemoteDescription
    // We have answered it, and the other did not hear that.
    if (known?.type === 'offer' && mark(known) === mark(offer)) return this.#repeatDescriptions()
    if (pc.signalingState !== 'stable') {
      if (!this.#port.isPolite()) return
      // Chromium gathers no candidates ever again if an offer is taken back before its first one was found.
      await Promise.race([this.#gathered.promise, sleep(systemClock, GATHER)])
      if (this.#port.isOver()) return
    }
    await pc.setRemoteDescription(plain(offer))
    this.#port.beforeAnswer()
    await pc.setLocalDescription()
    this.#send('answer', offer)
  }

  /** @param {'offer' | 'answer'} type @param {any} [offer] that is answered */
  #send(type, offer, description = this.#pc.localDescription) {
    // An end that came meanwhile has been said already.
    if (this.#port.isOver()) return
    const { sdp } = description
    this.#port.send(type, { type, sdp: belowUnknown(sdp), ...(offer && { to: mark(offer) }) })
  }

  /** Our answer to the other's last offer, and our offer that is not answered. */
  #repeatDescriptions() {
    const { currentLocalDescription: answer, currentRemoteDescription: offer, signalingState } = this.#pc
    if (answer?.type === 'answer') this.#send('answer', offer, answer)
    if (signalingState === 'have-local-offer') this.#send('offer')
  }

  /** Those of an offer that we ignored, or of one that was taken back, fit nothing. @param {any} candidate */
  #addCandidate({ leg, peer, ...candidate }) {
    return this.#pc.addIceCandidate(candidate).catch(ignore)
  }

  #flush() {
    for (const candidate of this.#early ?? []) this.#do(() => this.#addCandidate(candidate))
    this.#early = undefined
  }
}

/**
 * What a browser tries from a new address, before the other has heard of that address, has the priority of an unknown
 * one there: lower than that of addresses of the other's own (RFC 8445, section 5.1.2). Chromium does not try what is
 * worse than the way it has, until that was silent for 2.5 s. So our own addresses are told as just below unknown ones.
 * @param {string} text of a candidate, or of a description with some
 */
const belowUnknown = (text) =>
  text.replace(/(candidate:\S+ \d+ \S+ )(\d+)/g, (all, before, priority) =>
    priority < OWN ? all : before + (priority - ABOVE_UNKNOWN),
  )

/** @param {any} description */
const plain = ({ type, sdp }) => ({ type, sdp })

/**
 * What distinguishes a description from others; candidates that were found meanwhile do not change it.
 * @param {{ sdp: string }} description
 */
const mark = ({ sdp }) => sdp.match(/^(o=|a=ice-ufrag:).*/gm)?.join()
