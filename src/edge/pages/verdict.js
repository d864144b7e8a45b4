// What the doctor makes of what it has seen: facts in, verdict out. No DOM, no network, no clock, so that each judgement can be tested.

/** Slower than this, and people notice while a call is set up. */
const SLOW_SIGNAL_MS = 500
/** What ICE reports for a server that does not answer. */
const UNREACHABLE = 701

/**
 * @typedef {object} Cause
 * @property {string} code    for programs and tests
 * @property {"broken"|"limited"|"note"} weight  calls fail, calls work worse than they could, or good to know
 * @property {string} title   what is wrong
 * @property {string} why     how that shows
 * @property {string} todo    what to do, and which setting
 * @property {string} whose   who can mend it
 *
 * @typedef {object} Check
 * @property {string} id
 * @property {string} title
 * @property {"ok"|"fail"|"warn"|"skip"} state
 * @property {string} said    what was seen
 *
 * @typedef {object} Verdict
 * @property {"well"|"limited"|"broken"} overall
 * @property {string} summary
 * @property {Cause[]} causes
 * @property {Check[]} checks
 */

const OPERATOR = 'whoever runs this server'
const PROXY = 'whoever runs the proxy or load balancer in front of the server'
const NETWORK = 'whoever runs the network that you are in'
const YOU = 'you'

/**
 * Names the causes behind the facts, the gravest first, and what was seen of each part.
 *
 * @param {object} facts as `probes.js` gathers them; a part that was not tried is missing
 * @returns {Verdict}
 */
export function diagnose(facts) {
  const causes = [
    ...ofThePage(facts),
    ...ofTheDoors(facts),
    ...ofTheLogins(facts),
    ...ofTheNodes(facts),
    ...ofTheIdle(facts),
    ...ofTheIce(facts),
    ...ofTheCall(facts),
  ]
  const order = { broken: 0, limited: 1, note: 2 }
  causes.sort((one, other) => order[one.weight] - order[other.weight])
  const overall = causes.some((cause) => cause.weight === 'broken')
    ? 'broken'
    : causes.some((cause) => cause.weight === 'limited')
      ? 'limited'
      : 'well'
  return { overall, summary: summary(overall, causes), causes, checks: checks(facts) }
}

function summary(overall, causes) {
  if (overall === 'well') return 'All well. Calls should work from here.'
  const first = causes[0].title
  return overall === 'broken' ? `Calls will not work from here: ${lower(first)}` : `Calls work, but not as well as they could: ${lower(first)}`
}

// ---------------------------------------------------------------------------------------------------------------------------------
// The page and the browser

function ofThePage({ page }) {
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

// ---------------------------------------------------------------------------------------------------------------------------------
// The doors: WebSocket, SSE, poll

function ofTheDoors({ whoami, websocket, session, sse, poll, logins = [] }) {
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
  if (sse && !sse.ok && session?.ok) {
    const buffered = sse.status === 200 || sse.status === undefined
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
  if (poll && !poll.ok && session?.ok) {
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

// ---------------------------------------------------------------------------------------------------------------------------------
// Logging in, and the nodes

function ofTheLogins({ session, logins = [], whoami, websocket }) {
  const refused = logins.filter((login) => !login.ok)
  const welcome = logins.filter((login) => login.ok)
  const away = refused.filter((login) => login.code === 'unavailable')
  if (away.length > 0 && welcome.length === 0) {
    return [
      {
        code: 'redis_away',
        weight: 'broken',
        title: 'Nobody can log in: the node does not reach its Redis.',
        why: `${away.length} of ${logins.length} logins were answered “unavailable”.`,
        todo: "Look whether the Redis of redis.url runs and can be reached from the nodes (redis-cli -u URL ping), and at the node's log. Connections stay, and all is well again by itself a few seconds after Redis is back.",
        whose: OPERATOR,
      },
    ]
  }
  if (away.length > 0) {
    const well = new Set(welcome.map((login) => login.node))
    const suspects = (whoami?.nodes ?? []).filter((node) => !well.has(node))
    return [
      {
        code: 'node_cut_off',
        weight: 'broken',
        title: `${suspects.length === 1 ? `The node ${suspects[0]} is` : 'One of the nodes is'} cut off from Redis, and the load balancer still sends people there.`,
        why: `${away.length} of ${logins.length} logins were answered “unavailable”, the others were welcome at ${list([...well])}.`,
        todo: "Look at that node's log, and whether it reaches the Redis of redis.url. Let the load balancer ask /readyz at admin.listen, which says no while a node has no Redis.",
        whose: OPERATOR,
      },
    ]
  }
  const named = refused.find((login) => login.code && login.code !== 'no_answer')
  if (named && welcome.length === 0) {
    return [
      {
        code: 'login_refused',
        weight: 'broken',
        title: 'The server does not let the doctor log in.',
        why: `It answered “${named.code}”${named.message ? `: ${named.message}` : ''}.`,
        todo:
          named.code === 'unauthorized'
            ? 'This server asks for a token, which the doctor has not got. Test with the app that has one.'
            : "Run this again; if it stays so, look at the node's log.",
        whose: OPERATOR,
      },
    ]
  }
  if (session?.code === 'unavailable' && logins.length === 0 && websocket?.opened !== true) {
    return [
      {
        code: 'redis_away',
        weight: 'broken',
        title: 'Nobody can log in: the node does not reach its Redis.',
        why: 'POST /v1/sessions was answered “unavailable”.',
        todo: "Look whether the Redis of redis.url runs and can be reached from the nodes (redis-cli -u URL ping), and at the node's log.",
        whose: OPERATOR,
      },
    ]
  }
  if (logins.length > 0 && welcome.length === 0) {
    return [
      {
        code: 'login_unanswered',
        weight: 'broken',
        title: 'A login is not answered.',
        why: `${logins.length} logins were sent, and nothing came back within 5 s.`,
        todo: "Look at the node's log, and for a proxy that holds messages back.",
        whose: OPERATOR,
      },
    ]
  }
  return []
}

function ofTheNodes({ signal, signals = signal ? [signal] : [], nodes = [], gone }) {
  const causes = []
  const between = signals.find((one) => one.from !== one.to && one.received < one.sent)
  if (gone || between?.code === 'user_unavailable') {
    causes.push({
      code: 'nodes_apart',
      weight: 'broken',
      title: 'The nodes behind this address do not know of each other: who is at one cannot call who is at another.',
      why: between
        ? `Two users logged in, at ${between.from} and at ${between.to}, and the first was told that nobody of the second's name is here.`
        : 'A session made at one node is unknown at the next.',
      todo: 'Give all nodes the same redis.url and the same redis.prefix. Without redis.url a node is alone, and may be the only one behind an address.',
      whose: OPERATOR,
    })
  } else if (between) {
    causes.push({
      code: 'signals_lost',
      weight: 'broken',
      title: 'Signals between two nodes do not arrive.',
      why: `Of ${between.sent} sent from ${between.from} to ${between.to}, ${between.received} arrived${between.code ? ` (${between.code})` : ''}.`,
      todo: 'Look at the logs of both nodes, and whether both reach the same Redis.',
      whose: OPERATOR,
    })
  }
  const alone = signals.find((one) => one.from === one.to && one.received < one.sent)
  if (alone && causes.length === 0) {
    causes.push({
      code: 'signals_lost',
      weight: 'broken',
      title: 'Signals do not arrive.',
      why: `Of ${alone.sent} sent at ${alone.from}, ${alone.received} arrived${alone.code ? ` (${alone.code})` : ''}.`,
      todo: "Look at the node's log.",
      whose: OPERATOR,
    })
  }
  const slow = signals.find((one) => one.received === one.sent && one.p50 > SLOW_SIGNAL_MS)
  if (slow && causes.length === 0) {
    causes.push({
      code: 'signals_slow',
      weight: 'limited',
      title: 'Signals are slow.',
      why: `Half of them took more than ${Math.round(slow.p50)} ms.`,
      todo: 'If this page is slow as well, it is the network; if not, look at the delay of Redis (/metrics at admin.listen).',
      whose: OPERATOR,
    })
  }
  if (nodes.length === 1 && causes.length === 0 && signals.length > 0) {
    causes.push({
      code: 'one_node',
      weight: 'note',
      title: `Only one node was met, ${nodes[0]}, so nothing could be tried between nodes.`,
      why: 'Every connection ended there.',
      todo: 'All right if it is the only one. If there are more, the load balancer keeps you at one, or the others are not healthy.',
      whose: OPERATOR,
    })
  }
  return causes
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Connections that must stay

function ofTheIdle({ idle, websocket }) {
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

// ---------------------------------------------------------------------------------------------------------------------------------
// STUN and TURN

function ofTheIce({ ice, relay = [] }) {
  if (!ice) return []
  const causes = []
  const stun = ice.filter((server) => server.kind === 'stun')
  const turn = ice.filter((server) => server.kind === 'turn')
  const spare = turn.some((server) => server.ok)
  if (ice.length === 0) {
    causes.push({
      code: 'no_ice_servers',
      weight: 'note',
      title: 'No STUN and no TURN server is configured.',
      why: 'The login reply has an empty iceServers.',
      todo: 'Fine inside one network. For calls across the internet set ice.servers, and ice.turn_secret for TURN: without a relay one call in ten or so cannot connect.',
      whose: OPERATOR,
    })
  } else if (turn.length === 0) {
    causes.push({
      code: 'no_turn',
      weight: 'note',
      title: 'No TURN server is configured.',
      why: 'The login reply names only STUN.',
      todo: 'Add one to ice.servers with ice.turn_secret: without a relay one call in ten or so cannot connect.',
      whose: OPERATOR,
    })
  }
  if (stun.length > 0 && stun.every((server) => !server.ok)) {
    causes.push({
      code: 'stun_unreachable',
      weight: 'limited',
      title: `STUN does not answer: ${list(stun.map((server) => server.url))}.`,
      why: said(stun[0]),
      todo: 'Look whether the server runs, whether its name is right in ice.servers, and whether a firewall lets UDP through to it. If others reach it, your network blocks UDP.',
      whose: `${OPERATOR}, or ${NETWORK}`,
    })
  }
  const refused = turn.filter((server) => !server.ok && code(server) === 401)
  if (refused.length > 0) causes.push(credentialsRefused(refused))
  const others = turn.filter((server) => !server.ok && code(server) !== 401 && code(server) !== UNREACHABLE && code(server))
  for (const server of others.slice(0, 1)) causes.push(allocationRefused(server))
  const silent = turn.filter((server) => !server.ok && (code(server) === UNREACHABLE || !code(server)))
  if (silent.length > 0) causes.push(...unreachable(silent, spare))
  const mute = relay.filter((one) => !one.connected)
  if (mute.length > 0) {
    causes.push({
      code: 'relay_mute',
      weight: 'limited',
      title: `The TURN server gives out relay addresses, but nothing gets through them: ${list(mute.map((one) => one.url))}.`,
      why: 'A call of this browser with itself, by way of the relay alone, did not connect.',
      todo: 'Open its relay ports (coturn: min-port to max-port, 49152 to 65535) for UDP in the firewall, set external-ip if it is behind NAT, and see that denied-peer-ip does not forbid its own address.',
      whose: OPERATOR,
    })
  }
  return causes
}

function credentialsRefused(refused) {
  const first = refused[0]
  const expired = first.expiresIn !== undefined && first.expiresIn <= 0
  return expired
    ? {
        code: 'turn_expired',
        weight: 'limited',
        title: 'TURN refuses the credentials: they had expired when they were given out.',
        why: `${first.url} answered 401, and the user name says that it was good until ${seconds(-first.expiresIn * 1000)} ago.`,
        todo: 'Set the clocks of the nodes (and of this device) by NTP, and see that the lifetime of the credentials is not too short.',
        whose: OPERATOR,
      }
    : {
        code: 'turn_credentials',
        weight: 'limited',
        title: 'TURN refuses the credentials.',
        why: `${first.url} answered 401${first.expiresIn !== undefined ? `, though they are good for ${seconds(first.expiresIn * 1000)} more` : ''}.`,
        todo: "Make ice.turn_secret the same as coturn's static-auth-secret (with use-auth-secret), or mend username and credential in ice.servers. If they are the same, compare the clocks of both machines.",
        whose: OPERATOR,
      }
}

function allocationRefused(server) {
  const full = [486, 508].includes(code(server))
  return {
    code: full ? 'turn_full' : 'turn_refused',
    weight: 'limited',
    title: full ? 'TURN has no room for more.' : `TURN refuses to relay, with ${code(server)}.`,
    why: said(server),
    todo: full ? "Raise coturn's user-quota or total-quota, or its range of relay ports." : 'Look at the log of the TURN server for this code.',
    whose: OPERATOR,
  }
}

function unreachable(silent, spare) {
  const udp = silent.filter((server) => server.transport === 'udp')
  const onlyUdp = spare && udp.length === silent.length
  if (onlyUdp) {
    return [
      {
        code: 'turn_udp_blocked',
        weight: 'note',
        title: 'TURN cannot be reached by UDP, only by TCP or TLS.',
        why: said(silent[0]),
        todo: "Open the TURN server's UDP port in its firewall. If others reach it, your network blocks UDP: calls work by TCP, less smoothly.",
        whose: `${OPERATOR}, or ${NETWORK}`,
      },
    ]
  }
  return [
    {
      code: 'turn_unreachable',
      weight: spare ? 'note' : 'limited',
      title: `TURN cannot be reached: ${list(silent.map((server) => server.url))}.`,
      why: said(silent[0]),
      todo:
        'Look whether the TURN server runs and listens there, whether host, port and transport in ice.servers are right, and whether a firewall lets them through, TCP and UDP.' +
        (silent.some((server) => server.transport === 'tls') ? ' For turns: its certificate must be good for that name.' : ''),
      whose: OPERATOR,
    },
  ]
}

const code = (server) => server.errors.find((error) => error.code !== UNREACHABLE)?.code ?? server.errors[0]?.code

function said(server) {
  const error = server.errors[0]
  if (!error) return `${server.url} did not answer within ${seconds(server.ms)}.`
  return `${server.url}: ${error.code}${error.text ? ` (${error.text})` : ''}.`
}

// ---------------------------------------------------------------------------------------------------------------------------------
// The call

function ofTheCall({ call, signals = [] }) {
  if (!call || call.connected) {
    if (call?.connected && call.frames === 0) {
      return [
        {
          code: 'no_media',
          weight: 'limited',
          title: 'A call connects, but no picture arrives.',
          why: 'This browser called itself; data passed, and no frame was decoded.',
          todo: 'Look for a policy or an extension that forbids video, and try another browser.',
          whose: YOU,
        },
      ]
    }
    return []
  }
  if (signals.some((one) => one.received < one.sent)) return []
  return [
    {
      code: 'call_failed',
      weight: 'broken',
      title: 'This browser cannot even call itself.',
      why: `Offer, answer and candidates were passed on by the server, and ICE ended as “${call.state}”.`,
      todo: 'Look for a VPN, a firewall on this device, an extension or a policy that turns WebRTC or UDP off (chrome://webrtc-internals shows the candidates).',
      whose: YOU,
    },
  ]
}

// ---------------------------------------------------------------------------------------------------------------------------------
// What was seen

const NAMES = { ws: 'WebSocket', sse: 'SSE', poll: 'poll' }

/** One line for each thing that was tried, whatever the verdict. */
function checks(facts) {
  const { page, whoami, websocket, session, sse, poll, logins, signals, idle, ice, relay, call, media } = facts
  const lines = []
  const line = (id, title, state, words) => lines.push({ id, title, state, said: words })
  if (page) {
    line(
      'page',
      'This page',
      page.webrtc && page.secure ? 'ok' : page.webrtc ? 'warn' : 'fail',
      `${page.webrtc ? 'WebRTC is there' : 'no WebRTC'}, ${page.secure ? 'loaded securely' : 'not loaded securely'}${media ? `; ${cameras(media)}` : ''}`,
    )
  }
  if (whoami) {
    line(
      'whoami',
      'Server',
      whoami.ok ? 'ok' : 'fail',
      whoami.ok
        ? `version ${whoami.view.version}, ${whoami.view.http_version ?? 'HTTP'}, answered in ${ms(whoami.ms)}; met ${list(whoami.nodes)}`
        : whoami.status
          ? `answered ${whoami.status}`
          : 'no answer',
    )
  }
  if (websocket) {
    line(
      'websocket',
      'WebSocket',
      websocket.opened && websocket.pong ? 'ok' : 'fail',
      websocket.opened ? (websocket.pong ? `open in ${ms(websocket.ms)}` : 'opens, but stays mute') : `does not open (${websocket.tries} tries)`,
    )
  }
  for (const [id, title, door] of [
    ['sse', 'Event stream (SSE)', sse],
    ['poll', 'Polling', poll],
  ]) {
    if (door)
      line(
        id,
        title,
        door.ok ? 'ok' : 'fail',
        door.ok
          ? `first word after ${ms(door.ms)}`
          : door.status && door.status !== 200
            ? `answered ${door.status}${door.code ? ` (${door.code})` : ''}`
            : `no word within ${seconds(door.ms)}`,
      )
    else if (session)
      line(
        id,
        title,
        'skip',
        session.status ? `no session: answered ${session.status}${session.code ? ` (${session.code})` : ''}` : 'no session: no answer',
      )
  }
  if (logins?.length) {
    const welcome = logins.filter((login) => login.ok)
    line(
      'login',
      'Login',
      welcome.length === logins.length ? 'ok' : welcome.length ? 'warn' : 'fail',
      `${welcome.length} of ${logins.length} welcome` +
        (welcome.length
          ? `, by ${list([...new Set(welcome.map((login) => NAMES[login.door]))])}, at ${list([...new Set(welcome.map((login) => login.node))])}`
          : '') +
        (welcome.length < logins.length
          ? `; refused: ${list([...new Set(logins.filter((login) => !login.ok).map((login) => login.code ?? 'no answer'))])}`
          : ''),
    )
  }
  for (const one of signals ?? []) {
    const well = one.received === one.sent
    line(
      'signal',
      one.from === one.to ? 'Signal to itself, at one node' : 'Signal to itself, across nodes',
      well ? 'ok' : 'fail',
      `${one.from} to ${one.to}: ${well ? `half of ${one.sent} took less than ${ms(one.p50)}, the slowest ${ms(one.max)}` : `${one.received} of ${one.sent} arrived${one.code ? ` (${one.code})` : ''}`}`,
    )
  }
  if (ice) {
    if (ice.length === 0) line('ice', 'STUN and TURN', 'skip', 'none configured')
    for (const server of ice) {
      line(
        `ice:${server.url}`,
        server.kind === 'stun' ? 'STUN' : `TURN by ${server.transport === 'tls' ? 'TLS' : server.transport.toUpperCase()}`,
        server.ok ? 'ok' : 'fail',
        server.ok ? `${server.url}: ${server.kind === 'stun' ? 'answered' : 'relay address given'} in ${ms(server.ms)}` : said(server),
      )
    }
  }
  for (const one of relay ?? []) {
    line(
      `relay:${one.url}`,
      'Call through the relay',
      one.connected ? 'ok' : 'fail',
      one.connected ? `${one.url}: connected in ${ms(one.took)}` : `${one.url}: did not connect`,
    )
  }
  if (call) {
    line(
      'call',
      'Call with itself',
      call.connected ? 'ok' : 'fail',
      call.connected
        ? `connected in ${ms(call.ms)} (${call.pair ?? '?'})${call.frames === undefined ? '' : `, ${call.frames} frames seen`}`
        : `not connected (${call.state})`,
    )
  }
  if (idle) {
    const cut = ['websocket', 'sse', 'poll'].filter((door) => idle[door]?.cut)
    const tried = ['websocket', 'sse', 'poll'].filter((door) => idle[door])
    if (tried.length) {
      line(
        'idle',
        'Quiet connections',
        cut.length === 0 ? 'ok' : 'warn',
        cut.length === 0
          ? `stay for ${seconds(idle.watched)}`
          : list(cut.map((door) => `${door === 'websocket' ? 'WebSocket' : door === 'sse' ? 'SSE' : 'poll'} cut after ${seconds(idle[door].ms)}`)),
      )
    }
  }
  return lines
}

/** The verdict as plain text, to be pasted into a mail or an issue. No names, no addresses of users, no credentials. */
export function asText({ overall, summary, causes, checks }, { when, where, browser } = {}) {
  const mark = { ok: 'ok  ', fail: 'FAIL', warn: 'WARN', skip: '-   ' }
  const lines = [`Switchboard doctor: ${overall === 'well' ? 'all well' : overall}`]
  if (where) lines.push(`at ${where}${when ? `, ${when}` : ''}`)
  if (browser) lines.push(browser)
  lines.push('', summary, '')
  for (const cause of causes) {
    lines.push(`* ${cause.title} [${cause.code}]`, `  Seen: ${cause.why}`, `  To do: ${cause.todo}`, `  By: ${cause.whose}`, '')
  }
  for (const check of checks) lines.push(`${mark[check.state]}  ${check.title}: ${check.said}`)
  return `${lines.join('\n')}\n`
}

function cameras({ cameras, microphones }) {
  return `${count(cameras, 'camera')}, ${count(microphones, 'microphone')}`
}

const count = (number, what) => (number === 0 ? `no ${what}` : number === 1 ? `a ${what}` : `${number} ${what}s`)
const ms = (number) => `${number < 10 ? Number(number).toFixed(1) : Math.round(number)} ms`
const lower = (text) => (/^[A-Z][a-z]/.test(text) && !/^(STUN|TURN|SSE|WebSocket)/.test(text) ? text[0].toLowerCase() + text.slice(1) : text)

function seconds(number) {
  const value = number / 1000
  if (value >= 5400) return `${Math.round(value / 3600)} h`
  if (value >= 120) return `${Math.round(value / 60)} min`
  return `${value < 10 ? Math.round(value * 10) / 10 : Math.round(value)} s`
}

function list(things) {
  const known = things.filter(Boolean)
  if (known.length === 0) return 'none'
  if (known.length === 1) return known[0]
  return `${known.slice(0, -1).join(', ')} and ${known.at(-1)}`
}
