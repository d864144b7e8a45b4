// The list of people, and who of them is here.

import { byId, kept, made } from './dom.js'
import { canShareScreen } from './media.js'

/** The server watches no more for one session. */
const MOST = 256
const LABELS = { video: 'Video call to', audio: 'Audio call to', screen: 'Share your screen with', remove: 'Remove from the list:' }

export class People {
  #client
  #me
  #names
  #here = {}
  #onCall
  #busy = false

  /**
   * @param {import('/client/switchboard.js').Client} client
   * @param {(name: string, kind: string, button: HTMLElement) => void} onCall
   */
  constructor(client, me, onCall) {
    this.#client = client
    this.#me = me
    this.#onCall = onCall
    this.#names = kept.get(`people:${me}`, [])
    client.addEventListener('presence', ({ users }) => this.#learn(users))
    this.#show()
    this.#watch(this.#names)
  }

  isHere(name) {
    return this.#here[name]
  }

  add(name) {
    if (!name || name === this.#me || this.#names.includes(name) || this.#names.length >= MOST) return
    this.#names = [...this.#names, name].sort((one, other) => one.localeCompare(other))
    this.#keep()
    this.#watch([name])
  }

  /** While there is a call, no other can be begun. */
  set busy(busy) {
    this.#busy = busy
    this.#show()
  }

  #remove(name) {
    this.#names = this.#names.filter((one) => one !== name)
    delete this.#here[name]
    this.#client.unwatch([name])
    this.#keep()
    byId('who').focus()
  }

  async #watch(names) {
    if (names.length === 0) return
    try {
      this.#learn(await this.#client.watch(names))
    } catch {
      // Told as the state of the connection.
    }
  }

  #learn(users) {
    Object.assign(this.#here, users)
    this.#show()
  }

  #keep() {
    kept.set(`people:${this.#me}`, this.#names)
    this.#show()
  }

  /** Rows stay what they are, so that whoever is on one with the keyboard stays there. */
  #show() {
    const list = byId('people')
    const rows = new Map([...list.children].map((row) => [row.dataset.name, row]))
    const wanted = this.#names.map((name) => rows.get(name) ?? this.#row(name))
    for (const [name, row] of rows) if (!this.#names.includes(name)) row.remove()
    wanted.forEach((row, index) => {
      if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null)
      const here = this.#here[row.dataset.name]
      row.classList.toggle('here', here === true)
      const words = here === undefined ? '' : here ? 'here' : 'not here'
      const there = row.querySelector('.there')
      if (there.textContent !== words) there.textContent = words
      for (const button of row.querySelectorAll('[data-kind]')) {
        if (button.dataset.kind !== 'remove') button.disabled = this.#busy || here === false
      }
    })
  }

  #row(name) {
    const row = made('person')
    row.dataset.name = name
    row.querySelector('.name').textContent = name
    for (const button of row.querySelectorAll('[data-kind]')) {
      const { kind } = button.dataset
      button.setAttribute('aria-label', `${LABELS[kind]} ${name}`)
      button.title = `${LABELS[kind]} ${name}`
      button.hidden = kind === 'screen' && !canShareScreen()
      button.addEventListener('click', () => (kind === 'remove' ? this.#remove(name) : this.#onCall(name, kind, button)))
    }
    return row
  }
}
