// Media and data of a call: holds, other tracks, messages of any size, and how it is doing.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import {
  FIREFOX,
  eventually,
  frames,
  launchBrowser,
  launchFirefox,
  openCaller,
  startCluster,
  startFiles,
  stateOf,
} from './support/index.mjs'

const without = FIREFOX ? false : 'there is no Firefox: make setup-browser, or set FIREFOX to one'
let cluster, files, browser, firefox
before(async () => {
  ;[cluster, files, browser] = await Promise.all([startCluster(2), startFiles(), launchBrowser()])
  if (!without) firefox = await launchFirefox()
})
after(async () => {
  await Promise.all([browser, firefox].map((each) => each?.close()))
  await Promise.all([cluster, files].map((each) => each?.stop()))
})

const media = { video: { width: 160, height: 120 }, audio: true }

async function pair(names, options = {}, browsers = [browser, browser]) {
  const pages = await Promise.all(
    names.map((name, i) => openCaller(browsers[i], files, cluster.nodes[i].url, name, options)),
  )
  const [alice] = pages
  await alice.evaluate((b) => page.dial(b), names[1])
  await eventually(
    async () =>
      (await Promise.all(pages.map((page, i) => stateOf(page, names[1 - i])))).every((state) => state === 'connected'),
    20_000,
  )
  return pages
}
const tracks = (page, name) =>
  page.evaluate(
    (name) => globalThis.page.calls[name].video.srcObject.getTracks().filter(({ muted }) => !muted).length,
    name,
  )

for (const [name, { mine, theirs, skip }] of Object.entries({
  Chromium: { mine: () => browser, theirs: () => browser },
  Firefox: { mine: () => firefox, theirs: () => firefox, skip: without },
  'Chromium, shown in Firefox': { mine: () => browser, theirs: () => firefox, skip: without },
  'Firefox, shown in Chromium': { mine: () => firefox, theirs: () => browser, skip: without },
})) {
  test(`hold and resume, three times, in ${name}: what is shown has its tracks again, and moves`, { skip }, async () => {
    const [ann, ben] = [`ann of ${name}`, `ben of ${name}`]
    const [alice, bob] = await pair([ann, ben], { media }, [mine(), theirs()])
    await eventually(async () => (await tracks(bob, ann)) === 2 && (await frames(bob, ann)) > 2, 20_000)
    for (let i = 0; i < 3; i++) {
      // As other libraries do it, and as this one does.
      const turn = (on) =>
        alice.evaluate(
          ([on, i, ben]) => {
            const call = page.calls[ben]
            if (i === 2) return call.hold(on)
            for (const one of call.pc.getTransceivers()) one.direction = on ? 'recvonly' : 'sendrecv'
          },
          [on, i, ben],
        )
      await turn(true)
      await eventually(async () => (await tracks(bob, ann)) === 0, 10_000, 'nothing comes')
      await turn(false)
      await eventually(
        async () => (await tracks(bob, ann)) === 2,
        10_000,
        'both tracks are in the stream that is shown',
      )
      const seen = await frames(bob, ann)
      await eventually(async () => (await frames(bob, ann)) > seen)
    }
    assert.deepEqual([...alice.errors, ...bob.errors], [])
    await Promise.all([alice, bob].map((page) => page.context().close()))
  })
}

test('the same stream again is no error; another track takes the place of one; the call says how it is doing', async () => {
  const [alice, bob] = await pair(['cat', 'dan'], { media })
  const senders = await alice.evaluate(async () => {
    const call = page.calls.dan
    call.addStream(page.own)
    const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 48 })
    const draw = canvas.getContext('2d')
    setInterval(() => draw.fillRect(Math.random() * 64, 0, 5, 48), 50)
    await call.replaceTrack(canvas.captureStream(20).getVideoTracks()[0])
    return call.pc.getSenders().length
  })
  assert.equal(senders, 2)
  await eventually(() => bob.evaluate(() => page.calls.cat.video.videoWidth === 64), 15_000)
  await alice.evaluate(() => page.calls.dan.stats())
  const stats = await eventually(async () => {
    const found = await alice.evaluate(() => page.calls.dan.stats())
    return found.received > 0 && found.sent > 0 && found.rtt !== undefined && found
  })
  assert.equal(stats.relayed, false)
  assert.ok(stats.loss >= 0 && stats.loss < 0.5 && stats.rtt < 1000, JSON.stringify(stats))
})

test('messages of a channel, of any size and before it is open: in order, whole, and what cannot go holds up nothing', async () => {
  const [alice, bob] = await Promise.all(
    ['eve', 'fay'].map((name, i) => openCaller(browser, files, cluster.nodes[i].url, name)),
  )
  await bob.evaluate(() => {
    globalThis.got = []
    client.addEventListener('call', ({ call }) =>
      call
        .channel('big')
        .addEventListener('message', ({ data }) =>
          globalThis.got.push(typeof data === 'string' ? [data.length, data.slice(0, 3)] : data.byteLength),
        ),
    )
  })
  const result = await alice.evaluate(async () => {
    const call = page.client.call('fay', { channels: ['big', 'chat'] })
    const channel = call.channel('big')
    // More than any browser takes at once, before anything is open.
    for (const data of ['one', 'x'.repeat(300_000), '我'.repeat(100_000), new Uint8Array(2_000_000), 'two'])
      channel.send(data)
    const opened = new Promise((resolve) => channel.addEventListener('open', () => resolve('open')))
    await channel.ready
    return [await opened, channel.readyState]
  })
  assert.deepEqual(result, ['open', 'open'])
  await eventually(() => bob.evaluate(() => globalThis.got.length === 5), 20_000)
  assert.deepEqual(await bob.evaluate(() => globalThis.got), [
    [3, 'one'],
    [300_000, 'xxx'],
    [100_000, '我我我'],
    2_000_000,
    [3, 'two'],
  ])
  // Back-pressure: `drain` says when.
  const drained = await alice.evaluate(async () => {
    const channel = client.calls.get('fay').channel('big')
    const drains = new Promise((resolve) => channel.addEventListener('drain', resolve))
    for (let i = 0; i < 60; i++) channel.send(new Uint8Array(100_000))
    const before = channel.bufferedAmount
    await drains
    return [before > 1_000_000, channel.bufferedAmount < before]
  })
  assert.deepEqual(drained, [true, true])
  await eventually(() => bob.evaluate(() => globalThis.got.length === 65), 20_000)
  assert.deepEqual([...alice.errors, ...bob.errors], [])
})

test('a message over what the other’s browser takes, sent before the channel is open: it opens, and what follows arrives', async () => {
  const [gus, hal] = await Promise.all(
    ['gus', 'hal'].map((name, i) => openCaller(browser, files, cluster.nodes[i].url, name)),
  )
  await gus.evaluate(() => {
    const call = page.note(client.call('hal', { channels: ['chat'] }))
    const channel = call.channel('chat')
    channel.addEventListener('open', () => (globalThis.opened = true))
    channel.send('x'.repeat(300_000))
    channel.send('after')
  })
  await eventually(() => gus.evaluate(() => globalThis.opened), 10_000, 'it opens')
  await eventually(() => hal.evaluate(() => page.heard.some(([, data]) => data === 'after')), 10_000, 'what follows')
  assert.deepEqual([...gus.errors, ...hal.errors], [])
})
