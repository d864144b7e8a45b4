// A call of two plain clients, each at an address of its own: node call.mjs URL_A URL_B

const person = (url) => {
  const socket = new WebSocket(url)
  const heard = []
  let news = () => {}
  socket.onmessage = ({ data }) => (heard.push(JSON.parse(data)), news())
  const opened = new Promise((resolve, reject) => Object.assign(socket, { onopen: resolve, onerror: () => reject(new Error(`no ${url}`)) }))
  return {
    opened,
    say: (message) => socket.send(JSON.stringify(message)),
    hear: (type) =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`${url}: no ${type}, but ${JSON.stringify(heard)}`)), 5000)
        news = () => {
          const message = heard.find((message) => message.type === type)
          if (message) clearTimeout(timer), resolve(message)
        }
        news()
      }),
    close: () => socket.close(),
  }
}

const began = performance.now()
const [a, b] = process.argv.slice(2).map(person)
await Promise.all([a.opened, b.opened])
const [alice, bob] = ['alice', 'bob'].map((name) => `${name}-${process.pid}`)
const tell = (from, to, message) => (from.say(message), to.hear(message.type))
await tell(a, a, { type: 'login', name: alice })
await tell(b, b, { type: 'login', name: bob })
await tell(a, b, { type: 'offer', name: bob, offer: { type: 'offer', sdp: 'v=0' } })
await tell(b, a, { type: 'answer', name: alice, answer: { type: 'answer', sdp: 'v=0' } })
await tell(a, b, { type: 'candidate', name: bob, candidate: { candidate: '' } })
await tell(b, a, { type: 'leave', name: alice })
console.log(`offer, answer, candidate and leave in ${Math.round(performance.now() - began)} ms`)
a.close()
b.close()
