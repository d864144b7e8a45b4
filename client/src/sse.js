import { ignore, parse } from './util.js'

/**
 * One stream of server-sent events, until it ends.
 * @param {import('./http.js').Reading} reading
 */
export async function stream({ world: { clock }, ask, giveUp, alive, heard, after, keepalive }) {
  const headers = { Accept: 'text/event-stream', ...(after() && { 'Last-Event-ID': after() }) }
  /** @type {any} */
  let timer
  /** @type {ReadableStreamDefaultReader<string> | undefined} */
  let reader
  let rest = ''
  /** @type {string | undefined} */
  let id, event, data
  // A proxy that holds the stream back leaves it open and mute.
  const watch = () => {
    clock.clearTimeout(timer)
    timer = clock.setTimeout(() => giveUp('mute'), Math.max(keepalive, 1) * 2500)
  }
  try {
    watch()
    const { body } = await ask('v1/events', { headers })
    reader = /** @type {ReadableStream<any>} */ (body).pipeThrough(new TextDecoderStream()).getReader()
    for (;;) {
      watch()
      const { value, done } = await reader.read()
      if (done) return
      alive()
      const lines = (rest + value).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        const [, field, text] = /^(\w*):? ?(.*)$/.exec(line) ?? []
        if (field === 'id') id = text
        else if (field === 'event') event = text
        else if (field === 'data') data = data === undefined ? text : `${data}\n${text}`
        else if (line === '') {
          if (event === 'bye') return
          if (event === 'reset' || event === 'replaced') return giveUp(event)
          if (data !== undefined) heard(id, parse(data), data)
          event = data = undefined
        }
      }
    }
  } finally {
    clock.clearTimeout(timer)
    reader?.cancel().catch(ignore)
  }
}
