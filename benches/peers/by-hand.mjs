// What one writes in an afternoon: the tutorial's server, and a channel of Redis for each user. Everything goes through
// Redis, since a node does not know where a user is. It differs from the tutorial's server in that it tells the sender's
// name with each signal.
import { Redis } from 'ioredis'
import { WebSocketServer } from 'ws'

const wss = new WebSocketServer({ host: process.env.HOST, port: Number(process.env.PORT) })
// Several commands share a write.
const publisher = new Redis(process.env.REDIS, { enableAutoPipelining: true })
const subscriber = new Redis(process.env.REDIS)
const users = {}

subscriber.on('message', (channel, text) => users[channel]?.send(text))

wss.on('connection', (connection) => {
  connection.on('message', async (message) => {
    const data = JSON.parse(message)
    const tell = (what) => publisher.publish(data.name, JSON.stringify(what))
    switch (data.type) {
      case 'login': {
        const success = await publisher.set(`name:${data.name}`, 1, 'NX')
        if (success) {
          users[data.name] = connection
          connection.name = data.name
          await subscriber.subscribe(data.name)
        }
        connection.send(JSON.stringify({ type: 'login', success: Boolean(success) }))
        break
      }
      case 'offer':
      case 'answer':
        connection.otherName = data.name
        tell({ type: data.type, [data.type]: data[data.type], name: connection.name })
        break
      case 'candidate':
        tell({ type: 'candidate', candidate: data.candidate, name: connection.name })
        break
      case 'leave':
        tell({ type: 'leave', name: connection.name })
    }
  })

  connection.on('close', () => {
    if (!connection.name) return
    delete users[connection.name]
    publisher.del(`name:${connection.name}`)
    subscriber.unsubscribe(connection.name)
    if (!connection.otherName) return
    publisher.publish(connection.otherName, JSON.stringify({ type: 'leave', name: connection.name }))
  })
})
