// A page with the client library: what tests ask of it.

import { openPage } from './chromium.mjs'

/**
 * A page that has logged in. In it: `client`, `library`, `calls` (by name), `ends` (`[name, reason]`), `heard` (what came by any `chat` channel), and
 * `answer` (how an incoming call is taken: `'accept'`, `'hold'`, or a reason to decline). `media` is what `getUserMedia` is asked for, if anything; `token`
 * is asked for a token whenever the library needs one.
 */
export async function openCaller(browser, files, url, name, { media, token, options = {}, answer = 'accept' } = {}) {
  const page = await openPage(browser, `${files.http}/blank`)
  if (token) await page.exposeFunction('newToken', token)
  await page.evaluate(setUp, { url, name, media, options, answer })
  return page
}

async function setUp({ url, name, media, options, answer }) {
  const library = await import('/client/switchboard.js')
  const { newToken } = globalThis
  const client = new library.Client(url, newToken ? { token: newToken, ...options } : options)
  const page = { library, client, url, answer, media, name, ends: [], heard: [], states: [], calls: {} }
  Object.assign(globalThis, page, { page })
  page.stream = async () => media && (page.own ??= await navigator.mediaDevices.getUserMedia(media))
  page.note = (call) => {
    page.calls[call.name] = call
    const times = (call.times = { began: performance.now() })
    call.addEventListener('state', ({ state }) => {
      page.states.push([call.name, state, call.reason])
      times[state] ??= performance.now()
    })
    call.addEventListener('end', ({ reason, local }) => page.ends.push([call.name, reason, local]))
    call.addEventListener('stream', ({ stream }) => {
      const video = (call.video ??= document.body.appendChild(Object.assign(document.createElement('video'), { muted: true, autoplay: true })))
      video.srcObject = stream
    })
    const chat = call.channel('chat')
    chat.addEventListener('message', ({ data }) => page.heard.push([call.name, data]))
    return call
  }
  page.dial = async (other, options = {}) => {
    const stream = await page.stream()
    return page.note(client.call(other, { stream, ...options })).leg
  }
  client.addEventListener('call', async ({ call }) => {
    page.note(call)
    if (page.answer === 'accept') call.accept({ stream: await page.stream() })
    else if (page.answer !== 'hold') call.hangup(page.answer)
  })
  await client.connect()
  await client.login(name)
}

/** How many frames of the other's video have been decoded. */
export const frames = (page, name) =>
  page.evaluate(async (name) => {
    const stats = [...(await globalThis.page.calls[name].pc.getStats()).values()]
    return stats.filter(({ type, kind }) => type === 'inbound-rtp' && kind === 'video').reduce((sum, { framesDecoded = 0 }) => sum + framesDecoded, 0)
  }, name)

export const stateOf = (page, name) => page.evaluate((name) => globalThis.page.calls[name]?.state, name)
