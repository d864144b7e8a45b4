/**
 * Which call a signal belongs to.
 *
 * Each side of a call has an id, its leg; a call is a pair of legs. Signals carry the sender's `leg`, and the
 * receiver's as `peer`, once known. The offer that begins a call (a fresh one) cannot name a peer; it says which fresh
 * offer of the other's was `heard` last. So both sides pair fresh offers that cross in the same way: in order, each
 * with the first of the other's that its sender had not heard. What belongs to another leg than the current one is
 * dropped, and the other is told that that leg is over.
 *
 * Clients of other makes have no legs: what they send belongs to whatever call there is. An older edition of this
 * library has legs, and does not say `heard`: an offer of its belongs to the call that has no peer yet.
 *
 * @typedef {{ leg: string, peer?: string, offered: boolean }} Pair `offered`: a fresh offer was sent
 * @typedef {{ leg?: string, peer?: string, heard?: string | null }} Stamp
 * @typedef {{ bye: string, leg?: string, peer?: string }} Bye
 *
 * @typedef {object} Verdict
 * @property {'current' | 'new' | 'none'} to the call that there is, a new one (what was before is over), or none
 * @property {Bye} [reply] what the other should know
 */

import { unique } from './util.js'

/** How many legs are remembered: those of the other's that are over, and ours that may not have been heard of. */
const MOST_LEGS = 64

/** This page. @type {string | undefined} */
let instance
let legs = 0

/** Whether it is a leg of this edition. @param {string | undefined} leg */
export const isOurs = (leg) => leg?.includes('.') ?? false

export class Pairing {
  /** The call that there is. @type {Pair | undefined} */
  current
  #instance
  /**
   * Our fresh offers that no offer of the other's was paired with, and which it may not have heard.
   * @type {string[]}
   */
  #offered = []
  /** The other's fresh offer that we heard last. @type {string | null} */
  #heard = null
  /** Legs of the other's that are over. @type {Set<string>} */
  #over = new Set()
  /** Pairs, of a leg of the other's and one of ours, that the other was told to be over. @type {Set<string>} */
  #told = new Set()

  /** @param {string} [of] a page: tests have several */
  constructor(of = (instance ??= unique())) {
    this.#instance = of
  }

  /** A call begins. @returns {Pair} */
  begin() {
    this.current = { leg: `${this.#instance}.${++legs}`, offered: false }
    return this.current
  }

  /** @param {Pair} pair */
  end(pair) {
    if (pair.peer) remember(this.#over, pair.peer)
    if (this.current === pair) this.current = undefined
  }

  /** What a signal carries. @param {string} type @param {Pair} pair @returns {Stamp} */
  stamp(type, pair) {
    const { leg, peer } = pair
    if (type !== 'offer' || peer) return { leg, peer }
    if (!this.#offered.includes(leg)) this.#offered.push(leg)
    if (this.#offered.length > MOST_LEGS) this.#offered.shift()
    pair.offered = true
    return { leg, heard: this.#heard }
  }

  /** A fresh offer has not arrived. @param {Pair} pair */
  refused({ leg }) {
    this.#offered = this.#offered.filter((one) => one !== leg)
  }

  /** @param {string} type @param {Stamp} stamp @returns {Verdict} */
  hear(type, { leg, peer, heard }) {
    const { current } = this
    if (leg === undefined) return { to: current ? 'current' : type === 'offer' ? 'new' : 'none' }
    if (this.#over.has(leg) && peer === undefined) return { to: 'none' }
    if (peer !== undefined) return this.#addressed(leg, peer)
    if (current?.peer === leg) return { to: 'current' }
    if (type !== 'offer') return { to: 'none' }
    return heard === undefined ? this.#older(leg) : this.#fresh(leg, heard)
  }

  /** @param {Bye} bye @returns {'ends' | 'repeat' | undefined} what it means for the current call */
  hearBye({ bye, leg, peer }) {
    const { current } = this
    if (leg === undefined) return undefined
    if (bye === 'crossed' && current?.leg === peer && !current?.peer) {
      this.#heard = leg
      return 'repeat'
    }
    const fits =
      peer === undefined ? current?.peer === leg : current?.leg === peer && (!current?.peer || current.peer === leg)
    remember(this.#over, leg)
    return fits ? 'ends' : undefined
  }

  /** The other knows of our leg. @param {string} leg @param {string} peer @returns {Verdict} */
  #addressed(leg, peer) {
    const { current } = this
    if (current?.leg === peer && (current.peer ?? leg) === leg && !this.#over.has(leg)) {
      this.#bind(current, leg)
      return { to: 'current' }
    }
    return this.#isOver(leg, { bye: 'hangup', leg: peer, peer: leg })
  }

  /** @param {string} leg @param {string | null} heard @returns {Verdict} */
  #fresh(leg, heard) {
    const { current } = this
    this.#heard = leg
    if (heard !== null) this.#offered.splice(0, this.#offered.indexOf(heard) + 1)
    const ours = this.#offered.shift()
    if (ours === undefined) {
      // Ours is not sent yet, and will be one to that leg.
      if (current && !current.peer && !current.offered) return this.#bind(current, leg)
      // The other has begun anew, having heard all that we said.
      return { to: 'new' }
    }
    if (ours === current?.leg && !current.peer) return this.#bind(current, leg)
    // It crossed one that is over: if the other has not heard of that, as it was loaded anew, say, it repeats its
    // offer.
    return { to: 'none', reply: { bye: 'crossed', leg: ours, peer: leg } }
  }

  /** @param {string} leg @returns {Verdict} */
  #older(leg) {
    const { current } = this
    return current && !current.peer ? this.#bind(current, leg) : { to: 'new' }
  }

  /** @param {Pair} current @param {string} leg @returns {Verdict} */
  #bind(current, leg) {
    current.peer = leg
    // Whoever knows of a leg has heard of those before.
    this.#offered.splice(0, this.#offered.indexOf(current.leg) + 1)
    return { to: 'current' }
  }

  /** @param {string} leg @param {Bye} reply @returns {Verdict} */
  #isOver(leg, reply) {
    const pair = `${leg} ${reply.leg}`
    if (this.#told.has(pair)) return { to: 'none' }
    remember(this.#told, pair)
    return { to: 'none', reply }
  }
}

/** @param {Set<string>} set @param {string} leg */
function remember(set, leg) {
  set.add(leg)
  if (set.size > MOST_LEGS) for (const first of set) return set.delete(first)
}
