// Which way a call goes: the node and transport of each side, and what lies between the browsers.

import { byId } from './dom.js'
import { doorWords } from './words.js'

const EVERY = 2000

/** Shows it for as long as the call lasts. Returns how to tell what the other side has said of itself. */
export function showPaths(client, call) {
  byId('path-peer-name').textContent = call.name
  byId('path-peer').textContent = 'not known yet'
  byId('path-media').textContent = 'nothing yet'
  const mine = () => (byId('path-me').textContent = place(client.node, client.transport))
  mine()
  client.addEventListener('state', mine)
  const look = async () => {
    const words = call.state === 'connected' ? await between(call.pc).catch(() => undefined) : undefined
    if (words) byId('path-media').textContent = words
  }
  const timer = setInterval(look, EVERY)
  call.addEventListener('state', look)
  call.ended.then(() => {
    clearInterval(timer)
    client.removeEventListener('state', mine)
  })
  return ({ node, transport }) => (byId('path-peer').textContent = place(node, transport))
}

const place = (node, transport) => (node ? `${node} by ${doorWords(transport)}` : 'no connection')

async function between(connection) {
  const stats = await connection.getStats()
  const transport = [...stats.values()].find((entry) => entry.type === 'transport' && entry.selectedCandidatePairId)
  const pair = transport
    ? stats.get(transport.selectedCandidatePairId)
    : [...stats.values()].find((entry) => entry.type === 'candidate-pair' && entry.nominated && entry.state === 'succeeded')
  if (!pair) return undefined
  const ends = [stats.get(pair.localCandidateId), stats.get(pair.remoteCandidateId)]
  const way = ends.some((end) => end?.candidateType === 'relay')
    ? 'through a relay'
    : ends.every((end) => end?.candidateType === 'host')
      ? 'directly'
      : 'directly, through NAT'
  const trip = pair.currentRoundTripTime
  return `${way}${ends[0]?.protocol === 'tcp' ? ', by TCP' : ''}${trip === undefined ? '' : `, ${Math.max(1, Math.round(trip * 1000))} ms`}`
}
