// What may be wrong with the page, with the ways in, and with connections that must stay.

import { NETWORK, OPERATOR, PROXY, YOU, seconds } from './words.js'

export function ofThePage({ page }) {
  const causes = []
  if (page && !page.webrtc) {
    causes.push({
      code: 'no_webrtc',
      weight: 'broken',
      title: 'This browser has no WebRTC.',
      why: 'RTCPeerConnection is missing: an old browser, an in-app browser, or an extension or policy that turns it off.',
      todo: 'Try a current Chrome, Edge, Firefox or Safari, without extensions that block WebRTC.',
      whose: YOU,
    })
  }
  if (page && !page.secure) {
    causes.push({
      code: 'insecure_page',
      weight: 'limited',
      title: 'This page was not loaded securely, so browsers give it no camera and no microphone.',
      why: `The address begins with ${page.protocol}//, and is not localhost.`,
      todo: 'Open it by https://. Set tls.certificate and tls.key, or let a load balancer end TLS.',
      whose: OPERATOR,
    })
  }
  return causes
}

/** WebSocket, SSE and poll. */
export function ofTheDoors({ whoami, websocket, session, sse, poll, logins = [], gone }) {
  if (whoami && !whoami.ok && !websocket?.opened) {
    return [
      {
        code: 'unreachable',
        weight: 'broken',
        title: 'The server does not answer.',
        why: whoami.status ? `GET /v1/whoami was answered ${whoami.status}.` : 'GET /v1/whoami got no answer at all.',
        todo: 'Look whether a node runs and whether the load balancer has a healthy one behind it: each node says so at /readyz of its admin.listen.',
        whose: OPERATOR,
      },
    ]
  }
  const refusal = [session, sse, poll].find((door) => door?.code)
  if (refusal?.code === 'forbidden') return [originRefused(refusal)]
  if (refusal?.code === 'too_many') return [crowded(refusal)]
  if (websocket && !websocket.opened && refusal?.code === 'draining') {
    return [
      {
        code: 'draining',
        weight: 'broken',
        title: 'The node is being shut down, and there is no other.',
        why: 'It answers: draining.',
        todo: 'Wait until it is back, then run this again. If it stays so, let the load balancer ask /readyz, which says no while a node drains.',
        whose: OPERATOR,
      },
    ]
  }
  const causes = []
  const fallback = [sse, poll].some((door) => door?.ok)
  const storeAway = session?.code === 'unavailable' || logins.some((login) => login.code === 'unavailable')
  if (websocket && !websocket.opened) {
    causes.push({
      code: 'websocket_blocked',
      weight: fallback ? 'limited' : 'broken',
      title: 'WebSockets do not get through.',
      why:
        `Plain HTTP reaches the server, but ${websocket.tries} of ${websocket.tries} WebSocket handshakes failed. Something in between does not pass the upgrade on.` +
        (fallback ? ' Clients that use the library fall back to HTTP, with more delay and more load.' : ''),
      todo:
        'Let the proxy pass the headers Upgrade and Connection on, over HTTP/1.1 (nginx: proxy_http_version 1.1, proxy_set_header Upgrade $http_upgrade, proxy_set_header Connection "upgrade"). ' +
        'If the same address works from another network, then it is a proxy or an antivirus where you are.',
      whose: `${PROXY}, or ${NETWORK}`,
    })
  } else if (websocket && !websocket.pong) {
    causes.push({
      code: 'websocket_mute',
      weight: fallback ? 'limited' : 'broken',
      title: 'A WebSocket opens, but nothing comes through it.',
      why: 'The handshake was answered, and a ping was not within 5 s.',
      todo: 'Look for a proxy or an antivirus that answers the handshake itself and holds the frames back; wss:// usually gets past it.',
      whose: `${PROXY}, or ${NETWORK}`,
    })
  }
  if (session && !session.ok && !storeAway) causes.push(httpDoorShut(session))
  // What is said of nodes that do not know the session, or have no Redis, is said elsewhere.
  const elsewhere = (door) => gone || ['unavailable', 'draining'].includes(door.code)
  if (sse && !sse.ok && session?.ok && !elsewhere(sse)) {
    const buffered = sse.late
    causes.push({
      code: buffered ? 'sse_buffered' : 'sse_refused',
      weight: 'limited',
      title: buffered
        ? 'An event stream (SSE) opens, but what is sent is held back: something in between buffers it.'
        : `An event stream (SSE) is refused with ${sse.status}.`,
      why: `The server sends 2 KiB at once; nothing of it arrived within ${seconds(sse.ms)}${poll?.ok ? ', while a poll was answered' : ''}. Clients that cannot use WebSockets must poll then.`,
      todo:
        'Turn buffering and compression off for text/event-stream in the proxy (nginx: proxy_buffering off, or let X-Accel-Buffering: no pass; and no gzip). ' +
        'If other networks do not have it, it is an antivirus or a proxy where you are.',
      whose: `${PROXY}, or ${NETWORK}`,
    })
  }
  if (poll && !poll.ok && session?.ok && !elsewhere(poll)) {
    causes.push({
      code: 'poll_failed',
      weight: websocket?.opened ? 'limited' : 'broken',
      title: 'Polling, the last way through closed networks, does not work.',
      why: poll.status ? `It was answered ${poll.status}${poll.code ? ` (${poll.code})` : ''}.` : 'It was not answered.',
      todo: 'Look what the proxy does with GET /v1/events?mode=poll: it must be passed on, may take 25 s, and must not be cached.',
      whose: PROXY,
    })
  }
  return causes
}

function originRefused({ message }) {
  return {
    code: 'origin_refused',
    weight: 'broken',
    title: 'Pages of this address may not connect: their Origin is not allowed.',
    why: `The server answered 403${message ? `: “${message}”` : ''}.`,
    todo: 'Add the Origin of the page, scheme and port included, to limits.origins (SWITCHBOARD_LIMITS__ORIGINS), or empty it to allow all.',
    whose: OPERATOR,
  }
}

function crowded() {
  return {
    code: 'too_many_connections',
    weight: 'broken',
    title: 'The server takes no more connections from your address.',
    why: 'It answered 429 (too_many).',
    todo: 'Set limits.connections_per_ip to 0 if the node is behind a load balancer, for then everybody comes from its address; otherwise raise it, or close other tabs.',
    whose: OPERATOR,
  }
}

function httpDoorShut({ status, code }) {
  return {
    code: 'http_door_shut',
    weight: 'limited',
    title: 'The way through closed networks (HTTP) is shut.',
    why: status ? `POST /v1/sessions was answered ${status}${code ? ` (${code})` : ''}.` : 'POST /v1/sessions was not answered.',
    todo:
      status === 404 || status === 405
        ? 'Let the proxy pass /v1/ on to the nodes, and see that no node of an older version is left.'
        : 'Look what the proxy does with POST /v1/sessions: /v1/ is to be passed on as it is.',
    whose: PROXY,
  }
}

/** Connections on which nobody speaks for a while. */
export function ofTheIdle({ idle, websocket }) {
  if (!idle) return []
  const causes = []
  const quiet = idle.websocket
  if (quiet?.cut) {
    const busyToo = idle.busy?.cut
    causes.push({
      code: busyToo ? 'connections_cut' : 'idle_cut',
      weight: 'limited',
      title: busyToo
        ? `Connections are cut after ${seconds(Math.max(quiet.ms, idle.busy.ms))}, quiet or not.`
        : `Something cuts connections that are quiet for ${seconds(quiet.ms)}.`,
      why: busyToo
        ? 'A WebSocket that said something each second was cut as well as one that said nothing.'
        : `A WebSocket that said nothing was cut after ${seconds(quiet.ms)}${quiet.again ? ` (and again after ${seconds(quiet.again)})` : ''}, while one that spoke each second stayed. Calls survive it, but each cut costs a reconnect.`,
      todo: busyToo
        ? 'Look for a limit on how long a connection or a request may take, in the proxy, and raise it.'
        : 'Raise the idle timeout of the proxy to a minute or more (nginx: proxy_read_timeout and proxy_send_timeout; HAProxy: timeout tunnel; AWS: idle timeout), or set session.ping_every to less than half of it.',
      whose: PROXY,
    })
  }
  const others = [
    ['sse', 'An event stream (SSE)'],
    ['poll', 'A poll that waits'],
  ].filter(([door]) => idle[door]?.cut)
  if (others.length > 0 && !quiet?.cut) {
    const [door, what] = others[0]
    causes.push({
      code: `idle_cut_${door}`,
      weight: websocket?.opened ? 'note' : 'limited',
      title: `${what} is cut after ${seconds(idle[door].ms)} without a word.`,
      why: 'It was ended by something other than the server.',
      todo: "Raise the proxy's timeout for an answer to 40 s or more (nginx: proxy_read_timeout; HAProxy: timeout server).",
      whose: PROXY,
    })
  }
  return causes
}
