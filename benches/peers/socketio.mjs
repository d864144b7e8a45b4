// Socket.IO with its Redis adapter, as its documentation shows it: a room for each user. WebSockets only, as its clients
// would upgrade to them.
import { createAdapter } from '@socket.io/redis-adapter'
import { Redis } from 'ioredis'
import { Server } from 'socket.io'

const [publisher, subscriber] = [new Redis(process.env.REDIS), new Redis(process.env.REDIS)]
// What is published before a node has subscribed does not reach it.
await Promise.all([publisher.ping(), subscriber.ping()])
const io = new Server({ adapter: createAdapter(publisher, subscriber), transports: ['websocket'] })

io.on('connection', (socket) => {
  const { name } = socket.handshake.auth
  let other
  socket.join(name)
  socket.on('signal', (data) => {
    if (data.type === 'offer' || data.type === 'answer') other = data.name
    const body = data.type === 'leave' ? {} : { [data.type]: data[data.type] }
    io.to(data.name).emit('signal', { type: data.type, ...body, name })
  })
  socket.on('disconnect', () => other && io.to(other).emit('signal', { type: 'leave', name }))
  socket.emit('in')
})
io.listen(Number(process.env.PORT), { host: process.env.HOST })
