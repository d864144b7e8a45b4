/** @import { CallStats } from './types.js' */

/** @param {any} pc @returns {Promise<any[]>} */
const reports = async (pc) => [...(await pc.getStats()).values()]

/** @param {any[]} stats */
function chosen(stats) {
  const transport = stats.find(({ type }) => type === 'transport')
  const isChosen = (/** @type {any} */ { id, nominated, state }) =>
    transport?.selectedCandidatePairId ? id === transport.selectedCandidatePairId : nominated && state === 'succeeded'
  const pair = stats.find((one) => one.type === 'candidate-pair' && isChosen(one))
  const ends = stats.filter(({ id }) => id === pair?.localCandidateId || id === pair?.remoteCandidateId)
  const kinds = ends.map(({ candidateType }) => candidateType)
  return { pair, kind: ['relay', 'srflx', 'prflx', 'host'].find((kind) => kinds.includes(kind)) }
}

/** How the chosen pair of candidates runs: the farthest of the two kinds. @param {any} pc */
export const chosenKind = async (pc) => chosen(await reports(pc)).kind

/** How many bytes have come. @param {any} pc @returns {Promise<number>} */
export async function bytesReceived(pc) {
  const stats = await reports(pc)
  return stats.reduce(
    (sum, { type, bytesReceived = 0 }) => (type === 'transport' || type === 'inbound-rtp' ? sum + bytesReceived : sum),
    0,
  )
}

/** @param {any} pc @returns {() => Promise<CallStats>} which compares with the time before */
export function summary(pc) {
  let before = { at: performance.now(), received: 0, sent: 0, lost: 0, came: 0 }
  return async () => {
    const stats = await reports(pc)
    const { pair, kind } = chosen(stats)
    const inbound = stats.filter(({ type }) => type === 'inbound-rtp')
    const sum = (/** @type {string} */ field) => inbound.reduce((all, one) => all + (one[field] ?? 0), 0)
    const now = {
      at: performance.now(),
      received: pair?.bytesReceived ?? 0,
      sent: pair?.bytesSent ?? 0,
      lost: sum('packetsLost'),
      came: sum('packetsReceived'),
    }
    const seconds = Math.max(now.at - before.at, 1) / 1000
    const [lost, came] = [Math.max(0, now.lost - before.lost), now.came - before.came]
    const rate = (/** @type {'received' | 'sent'} */ way) =>
      Math.max(0, Math.round(((now[way] - before[way]) * 8) / seconds))
    /** @type {CallStats} */
    const summary = {
      rtt: pair?.currentRoundTripTime === undefined ? undefined : Math.round(pair.currentRoundTripTime * 1000),
      loss: lost + came > 0 ? lost / (lost + came) : undefined,
      received: rate('received'),
      sent: rate('sent'),
      relayed: kind === undefined ? undefined : kind === 'relay',
    }
    before = now
    return summary
  }
}
