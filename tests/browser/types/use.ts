// Not run: the compiler checks that the client library's types say what they should. `make lint` runs it.

import { Call, Client, SwitchboardError, connect, type CallState, type Delivery, type EndReason } from '../../../client/switchboard.js'

async function use(stream: MediaStream, signal: AbortSignal) {
  await using client = await connect('/', { name: 'alice', token: async () => 'jwt', transports: ['websocket', 'poll'], signal })
  client.addEventListener('call', ({ call }) => {
    const incoming: Call = call.accept({ stream })
    incoming.addEventListener('stream', (event) => (document.querySelector('video')!.srcObject = event.stream))
    incoming.addEventListener('end', ({ reason, local }) => console.log(reason satisfies EndReason, local satisfies boolean))
  })
  client.addEventListener('presence', ({ users }) => users.bob satisfies boolean)
  client.addEventListener('state', ({ state, error }) => [state === 'reconnecting', error?.code satisfies string | undefined])
  const delivery: Delivery = await client.send('bob', { any: 'thing' }, { signal: AbortSignal.timeout(1000) })
  const here: Record<string, boolean> = await client.watch(['bob'])
  const call = client.call('bob', { stream, channels: ['chat'], signal: AbortSignal.timeout(30_000) })
  const state: CallState = (await call.connected).state
  call.channel('chat').addEventListener('message', ({ data }) => data)
  call.hangup('a word of my own')
  const reason: EndReason = await call.ended
  const same: Client = await new Client(new URL('wss://example.org/ws')).login('bob')
  try {
    await same.login('carol')
  } catch (error) {
    if (error instanceof SwitchboardError) error.retryAfter satisfies number | undefined
  }

  // @ts-expect-error There is no such transport.
  new Client('/', { transports: ['carrier pigeon'] })
  // @ts-expect-error Calls are made by a client.
  new Call()
  // @ts-expect-error A state is one of a few.
  if (call.state === 'happy') return
  // @ts-expect-error The name is the login's.
  client.name = 'mallory'
  return [delivery, here, state, reason]
}

export { use }
