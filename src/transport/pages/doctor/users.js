// What may be wrong with logging in, between the nodes, and with a call.

import { OPERATOR, PROXY, YOU, list } from './words.js'

/** Slower than this, and people notice while a call is set up. */
const SLOW_SIGNAL_MS = 500

export function ofTheLogins({ session, sse, poll, logins = [], whoami, websocket }) {
  // Who is not let in at all has been told so.
  if ([session, sse, poll].some((door) => ['forbidden', 'too_many'].includes(door?.code))) return []
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
  const named = refused.find((login) => !['no_answer', 'no_connection'].includes(login.code))
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
  const closed = refused.filter((login) => login.code === 'no_connection')
  if (closed.length > 0) {
    return [
      {
        code: 'connections_refused',
        weight: welcome.length === 0 ? 'broken' : 'limited',
        title: 'Not every connection is let through.',
        why: `${closed.length} of ${logins.length} more connections did not open, after the first one had.`,
        todo: 'Look for a limit on connections, for each address or in all, in the proxy; and whether each node behind it is healthy.',
        whose: PROXY,
      },
    ]
  }
  if (logins.length > 0 && welcome.length === 0) {
    return [
      {
        code: 'login_unanswered',
        weight: 'broken',
        title: 'A login is not answered.',
        why: `${refused.length} of ${logins.length} logins got no answer within 5 s.`,
        todo: "Look at the node's log, and for a proxy that holds messages back.",
        whose: OPERATOR,
      },
    ]
  }
  return []
}

export function ofTheNodes({ signals = [], logins = [], nodes = [], gone }) {
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
  if (nodes.length === 1 && causes.length === 0 && logins.every((login) => login.ok)) {
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

export function ofTheCall({ call, signals = [] }) {
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
