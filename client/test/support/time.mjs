// Time that a test turns: a clock, and randomness that can be repeated.

/** A generator of numbers from 0 to 1 (mulberry32). */
export function random(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/** Timers are kept in a heap, by their time and then by their order. */
export class FakeClock {
  #now = 0
  #heap = []
  #count = 0
  /** How many timers there are that are not cancelled. */
  pending = 0

  constructor(seed = 1) {
    this.random = random(seed)
  }

  now = () => this.#now

  setTimeout = (action, ms) => {
    const timer = { at: this.#now + Math.max(0, ms), n: this.#count++, action }
    this.pending += 1
    let i = this.#heap.push(timer) - 1
    for (let up = (i - 1) >> 1; i > 0 && isBefore(timer, this.#heap[up]); i = up, up = (i - 1) >> 1) this.#swap(i, up)
    return timer
  }

  clearTimeout = (timer) => {
    if (timer?.action) this.pending -= 1
    if (timer) timer.action = undefined
  }

  /** Lets time pass, and does what is due, in order. */
  pass(ms) {
    const until = this.#now + ms
    while (this.#heap.length && this.#heap[0].at <= until) {
      const timer = this.#shift()
      const { action, at } = timer
      if (!action) continue
      this.clearTimeout(timer)
      this.#now = Math.max(this.#now, at)
      action()
    }
    this.#now = until
  }

  /** The machine sleeps: time goes on, and timers fire late, in the end. */
  sleep(ms) {
    this.#now += ms
    this.pass(0)
  }

  #shift() {
    const heap = this.#heap
    this.#swap(0, heap.length - 1)
    const first = heap.pop()
    for (let i = 0; ;) {
      let least = i
      for (const down of [2 * i + 1, 2 * i + 2])
        if (down < heap.length && isBefore(heap[down], heap[least])) least = down
      if (least === i) return first
      this.#swap(i, least)
      i = least
    }
  }

  #swap(i, j) {
    const heap = this.#heap
    ;[heap[i], heap[j]] = [heap[j], heap[i]]
  }
}

const isBefore = (one, other) => one.at < other.at || (one.at === other.at && one.n < other.n)
