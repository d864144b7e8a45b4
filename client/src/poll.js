import { sleep } from './util.js'

/** Seconds that the server may wait for an event, and milliseconds until a poll that is not answered is given up. */
const WAIT = 8
const MUTE = 16_000
/** Milliseconds between polls that do not wait. */
const PAUSE = 1000

/**
 * One poll.
 * @param {import('./http.js').Reading} reading
 */
export async function poll({ world: { clock }, ask, giveUp, alive, heard, after, mayWait }) {
  const mute = clock.setTimeout(() => giveUp('mute'), MUTE)
  const { events, next, reset } = await ask(`v1/events?mode=poll&wait=${mayWait ? WAIT : 0}&after=${after()}`)
    .then((response) => response.json())
    .finally(() => clock.clearTimeout(mute))
  if (reset) return giveUp('reset')
  alive()
  for (const { id, data } of events) heard(id, data, JSON.stringify(data))
  heard(next, undefined)
  if (!mayWait) await sleep(clock, PAUSE)
}
