import { useEffect, useRef, useState } from 'react'
import { useCall, useSwitchboard } from 'switchboard-client/react'

const SERVER = import.meta.env.VITE_SWITCHBOARD ?? 'http://localhost:9090/'

export function App() {
  const [name, setName] = useState()
  const logIn = (event) => {
    event.preventDefault()
    setName(new FormData(event.target).get('name'))
  }
  if (name) return <Phone name={name} />
  return (
    <form onSubmit={logIn}>
      <input name="name" placeholder="Your name" required /> <button>Log in</button>
    </form>
  )
}

function Phone({ name }) {
  const { client, state, error, calls } = useSwitchboard(SERVER, { name })
  const [placed, setPlaced] = useState()
  const [mine, setMine] = useState()
  const call = calls[0] ?? placed

  const camera = async () => {
    const stream = mine ?? (await navigator.mediaDevices.getUserMedia({ video: true, audio: true }))
    setMine(stream)
    return stream
  }
  const dial = async (event) => {
    event.preventDefault()
    const other = new FormData(event.target).get('other')
    const stream = await camera()
    setPlaced(client.call(other, { stream }))
  }
  return (
    <>
      <p>
        You are {name}: <output id="state">{error?.message ?? state}</output>
      </p>
      <form onSubmit={dial}>
        <input name="other" placeholder="Whom to call" required /> <button disabled={state !== 'online'}>Call</button>
      </form>
      <Video stream={mine} muted width="160" />
      {call && <CallView key={call.leg} call={call} accept={async () => call.accept({ stream: await camera() })} />}
    </>
  )
}

function CallView({ call, accept }) {
  const { state, stream, reason } = useCall(call)
  return (
    <section>
      <p>
        {call.name}: <output id="call">{reason ?? state}</output>
      </p>
      {state === 'ringing' && call.direction === 'incoming' && <button onClick={accept}>Accept</button>}
      {state !== 'ended' && <button onClick={() => call.hangup()}>Hang up</button>}
      <Video id="theirs" stream={stream} width="480" />
    </section>
  )
}

/** React has no attribute for a stream. */
function Video({ stream, ...attributes }) {
  const video = useRef(null)
  useEffect(() => {
    video.current.srcObject = stream ?? null
  }, [stream])
  return <video ref={video} autoPlay playsInline {...attributes} />
}
