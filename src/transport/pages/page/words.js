// What the page says, in plain words.

const KINDS = { video: 'Video call', audio: 'Audio call', screen: 'Shared screen' }
const DOORS = { websocket: 'WebSocket', sse: 'event stream (SSE)', poll: 'polling' }

export const kindWords = (kind) => KINDS[kind] ?? 'Call'
export const doorWords = (transport) => DOORS[transport] ?? 'no connection'

/** Why a login failed. */
export function loginWords(error, name) {
  switch (error?.code) {
    case 'name_taken':
      return `Somebody is here as “${name}” already. Take another name, or close the other tab${error.retryAfter ? ` and wait ${Math.ceil(error.retryAfter / 1000)} s` : ''}.`
    case 'invalid_name':
      return error.message ? `${error.message}.` : 'That cannot be a name.'
    case 'unauthorized':
      return 'This server asks for a token, which this page has not got.'
    case 'forbidden':
      return 'This server does not let this page in. The doctor says why.'
    case 'unavailable':
      return 'The server cannot log anybody in at the moment, for it has lost its Redis. It tries again by itself; so may you.'
    case 'draining':
      return 'The server is being shut down. Try again in a moment.'
    case 'too_many':
      return 'The server takes no more connections from here. Close other tabs, or ask the doctor.'
    case 'unreachable':
    case 'closed':
      return 'The server cannot be reached. Look whether you are online, or ask the doctor.'
    default:
      return `That did not work${error?.message ? `: ${error.message}` : ''}. The doctor may know why.`
  }
}

/** Why a call ended, to the one who is told. */
export function endWords(reason, name, { local = false } = {}) {
  switch (reason) {
    case 'hangup':
      return local ? 'You hung up.' : `${name} hung up.`
    case 'declined':
      return local ? 'You declined.' : `${name} declined.`
    case 'busy':
      return local ? `${name} called while you were in a call.` : `${name} is in another call.`
    case 'cancelled':
      return local ? 'You hung up.' : `${name} gave up.`
    case 'timeout':
      return local ? `${name} did not answer.` : `You did not answer ${name}.`
    case 'unavailable':
      return `${name} is not here.`
    case 'failed':
      return 'Your browsers found no way to each other. The doctor may know why.'
    case 'closed':
      return local ? 'You left.' : `${name} has left.`
    case 'lost':
      return `${name} has lost the connection.`
    case 'node_lost':
      return `${name} was at a node that died, and has not come back.`
    case 'kicked':
      return `The server put ${name} out.`
    case 'replaced':
      return 'You are logged in elsewhere.'
    default:
      return reason ? `The call has ended: ${reason}.` : 'The call has ended.'
  }
}

/** Why there is no camera, microphone or screen. */
export function mediaWords(error, what) {
  switch (error?.name) {
    case 'Insecure':
      return `This page was not opened by https, so the browser gives it no ${what}.`
    case 'NotAllowedError':
      return `This page may not use your ${what}. You can allow it in the address bar.`
    case 'NotFoundError':
    case 'OverconstrainedError':
      return `There is no ${what} on this device.`
    case 'NotReadableError':
    case 'AbortError':
      return `Your ${what} is in use by something else.`
    default:
      return `Your ${what} could not be used${error?.message ? `: ${error.message}` : ''}.`
  }
}

/** How far a call is. */
export function stateWords(state, direction) {
  switch (state) {
    case 'calling':
      return 'Calling…'
    case 'ringing':
      return direction === 'outgoing' ? 'Ringing…' : 'Calls you…'
    case 'connecting':
      return 'Connecting…'
    case 'connected':
      return 'Connected'
    case 'interrupted':
      return 'Interrupted. Looking for another way…'
    default:
      return ''
  }
}

/** Seconds as a clock shows them. */
export function clock(seconds) {
  const whole = Math.floor(seconds)
  const minutes = Math.floor(whole / 60) % 60
  const hours = Math.floor(whole / 3600)
  const two = (number) => String(number).padStart(2, '0')
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`
}
