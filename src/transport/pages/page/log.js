// The calls that there were, kept in this browser only.

import { byId, kept, made } from './dom.js'
import { clock, kindWords } from './words.js'

const MOST = 50
const OUTCOMES = { declined: 'declined', busy: 'busy', unavailable: 'not here', timeout: 'no answer', cancelled: 'given up', failed: 'no connection' }

export class Log {
  #key
  #calls

  constructor(me) {
    this.#key = `calls:${me}`
    this.#calls = kept.get(this.#key, [])
    byId('clear').onclick = () => {
      this.#calls = []
      this.#keep()
    }
    this.#show()
  }

  /** @param {{name: string, kind: string, direction: 'incoming'|'outgoing', at: number, seconds?: number, reason: string}} call */
  add(call) {
    this.#calls = [call, ...this.#calls].slice(0, MOST)
    this.#keep()
  }

  #keep() {
    kept.set(this.#key, this.#calls)
    this.#show()
  }

  #show() {
    byId('clear').hidden = this.#calls.length === 0
    byId('no-calls').hidden = this.#calls.length > 0
    byId('log').replaceChildren(...this.#calls.map(entry))
  }
}

function entry({ name, kind, direction, at, seconds, reason }) {
  const item = made('entry')
  const missed = direction === 'incoming' && seconds === undefined && reason !== 'declined'
  item.classList.toggle('in', direction === 'incoming')
  item.classList.toggle('missed', missed)
  item.querySelector('.name').textContent = name
  const outcome = seconds !== undefined ? clock(seconds) : missed ? 'missed' : (OUTCOMES[reason] ?? 'not connected')
  item.querySelector('.what').textContent = `${direction === 'incoming' ? 'From' : 'To'} · ${kindWords(kind)} · ${outcome}`
  const time = item.querySelector('time')
  const when = new Date(at)
  time.dateTime = when.toISOString()
  const today = when.toDateString() === new Date().toDateString()
  time.textContent = when.toLocaleString([], today ? { hour: '2-digit', minute: '2-digit' } : { month: 'short', day: 'numeric' })
  return item
}
