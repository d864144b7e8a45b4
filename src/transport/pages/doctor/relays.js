// What may be wrong with STUN and TURN.

import { NETWORK, OPERATOR, list, seconds } from './words.js'

/** What ICE reports for a server that does not answer. */
const UNREACHABLE = 701
/** Sooner than this, the browser itself has given up. */
const GIVEN_UP = 5000

export function ofTheIce({ ice, relay = [], whoami }) {
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
  if (refused.length > 0) causes.push(credentialsRefused(refused, whoami?.ahead ?? 0))
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

function credentialsRefused(refused, ahead) {
  const first = refused[0]
  const expired = first.expiresIn !== undefined && first.expiresIn <= 0
  return expired
    ? {
        code: 'turn_expired',
        weight: 'limited',
        title: 'TURN refuses the credentials: they had expired when they were given out.',
        why: `${first.url} answered 401, and the user name says that it was good until ${seconds(-first.expiresIn * 1000)} ago.${Math.abs(ahead) > 60 ? ` The clock of this device is ${seconds(Math.abs(ahead) * 1000)} ${ahead > 0 ? 'ahead of' : 'behind'} the node's.` : ''}`,
        todo: 'Set the clocks of the nodes by NTP (and of this device). If ice.servers has time-limited credentials written into it, give ice.turn_secret instead, so that new ones are made.',
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
  if (spare && silent.every((server) => server.transport === 'tls')) {
    return [
      {
        code: 'turn_tls',
        weight: 'limited',
        title: 'TURN cannot be reached by TLS, only by UDP or TCP.',
        why: said(silent[0]),
        todo: 'Look whether the TURN server listens for TLS there (coturn: tls-listening-port, cert, pkey), and whether its certificate is one that browsers trust, for that name, and has not expired. Closed networks often let nothing else through.',
        whose: OPERATOR,
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

export function said(server) {
  const error = server.errors[0]
  if (!error) return server.ms < GIVEN_UP ? `${server.url} gave no address.` : `${server.url} did not answer within ${seconds(server.ms)}.`
  return `${server.url}: ${error.code}${error.text ? ` (${error.text})` : ''}.`
}
