// Two users in a call that outlives nodes, as examples/demo_call.rs has them, for a pod with Node.js 22: both log in
// with resumable sessions, one calls the other, and then each sends the other a number each second, in a candidate.
// Whoever loses the connection resumes at whichever node the Service leads to. The last lines say whether each heard
// everything, once and in order.

const url = process.env.URL ?? 'ws://localhost:9090/ws'
const seconds = Number(process.env.SECONDS ?? 300)
/** So long nobody answers before the connection counts as lost; so long it may take to come in, or back. */
const PATIENCE = 5000
const GIVE_UP = 60_000
const begun = Date.now()
const hasStopped = () => Date.now() - begun > seconds * 1000

class User {
  node = 'nowhere'
  said = 0
  heard = []
  resumes = 0
  longest = 0
  lostAt = begun

  constructor(name, peer, calls) {
    Object.assign(this, { name, peer, calls })
  }

  connect() {
    const socket = new WebSocket(url)
    this.socket = socket
    this.patience()
    socket.onopen = () => {
      const session = this.secret ? { resume: this.secret, last: this.last } : { resumable: true }
      this.say({ type: 'login', name: this.name, ...session })
    }
    socket.onmessage = ({ data }) => this.hear(JSON.parse(data))
    socket.onclose = socket.onerror = () => this.lose()
  }

  /** It is lost if nothing is answered from now on. */
  patience() {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.lose(), PATIENCE)
  }

  lose() {
    const { socket } = this
    clearTimeout(this.timer)
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null
    socket.close()
    if (this.isOnline) {
      this.tell('has lost its connection')
      this.lostAt = Date.now()
    }
    this.isOnline = false
    if (Date.now() - this.lostAt > GIVE_UP) throw new Error(`${this.name} cannot come in at ${url}`)
    // At random, so that the users of a node which dies do not come back all at once.
    setTimeout(() => this.connect(), Math.random() * 300)
  }

  say(message) {
    if (this.socket.readyState === 1) this.socket.send(JSON.stringify(message))
  }

  /** Each second something new, or again what was refused. What is open keeps its id, and is delivered once. */
  speak() {
    if (!this.isOnline) return
    if (this.open) return this.isRefused && this.repeat()
    // The one who is called answers first.
    if (hasStopped() || (!this.calls && !this.heard.length)) return
    this.said += 1
    const type = this.said > 1 ? 'candidate' : this.calls ? 'offer' : 'answer'
    this.open = { type, name: this.peer, [type]: { number: this.said }, id: this.said }
    this.repeat()
  }

  repeat() {
    this.isRefused = false
    this.say(this.open)
    this.patience()
  }

  hear(message) {
    const { type, seq, id, code, name } = message
    if (seq) this.last = seq
    if (type === 'login' && message.success) return this.enter(message)
    if (type === 'login') return this.tell(`is refused: ${code}`), this.lose()
    if (message[type]?.number) {
      this.heard.push(message[type].number)
      this.tell(`hears ${type} ${message[type].number} of ${name}`)
    } else if (id !== undefined && id === this.open?.id) {
      clearTimeout(this.timer)
      if (type === 'ack') this.open = undefined
      else this.isRefused = true
      if (type === 'error') this.tell(`is told ${code}: ${message.message}`)
    } else if (type === 'goaway') this.tell(`is asked to go elsewhere within ${message.reconnect_in_ms} ms`)
    else if (type === 'leave') this.tell(`hears that ${name} has left: ${message.reason}`)
    else if (type === 'status') this.tell(`hears that Redis is ${message.fabric}${message.missed ? ', and that something may have been lost' : ''}`)
  }

  enter({ node, resume, resumed }) {
    clearTimeout(this.timer)
    Object.assign(this, { node, secret: resume, isOnline: true })
    if (!resumed) return this.tell('has logged in')
    const cut = Date.now() - this.lostAt
    this.longest = Math.max(this.longest, cut)
    this.resumes += 1
    this.tell(`is back after ${cut} ms: its session is resumed`)
    if (this.open) this.repeat()
  }

  hasHeard(other) {
    const isAll = this.heard.length === other.said && this.heard.every((number, before) => number === before + 1)
    const verdict = isAll ? 'all of it, once and in order' : 'NOT ALL OF IT, ONCE AND IN ORDER'
    const resumed = `who resumed ${this.resumes} times and was away for ${this.longest} ms at most`
    console.log(`${other.name} said ${other.said} signals; ${this.name}, ${resumed}, heard ${this.heard.length}: ${verdict}`)
    return isAll
  }

  tell(what) {
    console.log(`${((Date.now() - begun) / 1000).toFixed(1).padStart(6)} s  ${this.name} at ${this.node}  ${what}`)
  }
}

const users = [new User('UserA', 'UserB', true), new User('UserB', 'UserA', false)]
for (const user of users) user.connect()
const talk = setInterval(() => {
  for (const user of users) user.speak()
  const [one, other] = users
  const isOver = !one.open && !other.open && one.heard.length >= other.said && other.heard.length >= one.said
  if (!hasStopped() || (!isOver && Date.now() - begun < seconds * 1000 + GIVE_UP)) return
  clearInterval(talk)
  process.exit([one.hasHeard(other), other.hasHeard(one)].includes(false) ? 1 : 0)
}, 1000)
