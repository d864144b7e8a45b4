// A browser that changes networks: it lives in a network namespace with two ways out, of which one, both or none work.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import {
  draws,
  eventually,
  launchBrowser,
  makeNamespace,
  openCaller,
  startCluster,
  startFiles,
  startNetwork,
  stateOf,
} from './support/index.mjs'

const space = makeNamespace()
const skip = !space && 'it takes root and network namespaces'
const { host, use } = space ?? {}

let cluster, files, networks, browser, roaming
before(async () => {
  if (!space) return
  use(0)
  ;[cluster, files] = await Promise.all([startCluster(2), startFiles({}, { host })])
  networks = await Promise.all(cluster.nodes.map((node) => startNetwork(node, {}, { host })))
  ;[browser, roaming] = await Promise.all([launchBrowser(), space.launch()])
})
after(async () => {
  await Promise.all([browser, roaming].map((each) => each?.close()))
  await Promise.all([...(networks ?? []), cluster, files].map((each) => each?.stop()))
  space?.remove()
})

/** A call of two who each send a picture that is drawn; the one who roams is the first. */
async function pair(names) {
  use(0)
  // Chromium breaks off what it loads while networks come and go, for a moment.
  await sleep(2500)
  const pages = await Promise.all(
    [roaming, browser].map((each, i) => openCaller(each, files, networks[i].url, names[i], { answer: 'hold' })),
  )
  await Promise.all(pages.map(draws))
  await pages[0].evaluate((b) => page.dial(b), names[1])
  await eventually(
    async () =>
      (await Promise.all(pages.map((page, i) => stateOf(page, names[1 - i])))).every((state) => state === 'connected'),
    20_000,
  )
  await eventually(async () =>
    (
      await Promise.all(
        pages.map((page, i) => page.evaluate((name) => Boolean(globalThis.page.calls[name].video), names[1 - i])),
      )
    ).every(Boolean),
  )
  await Promise.all(pages.map((page, i) => page.evaluate((name) => globalThis.page.watch(name), names[1 - i])))
  await eventually(async () =>
    (await Promise.all(pages.map((page) => page.evaluate(() => page.seen.shown > 0)))).every(Boolean),
  )
  // A moment of steady pictures, as in any call.
  await sleep(4000)
  await Promise.all(pages.map((page) => page.evaluate(() => (page.seen.gap = page.seen.picture = 0))))
  await pages[0].evaluate(
    ([name, address]) =>
      page.calls[name].pc.addEventListener('icecandidate', ({ candidate }) => {
        if (candidate?.address === address) page.seen.known ??= Math.round(performance.now() - page.seen.last)
      }),
    [names[1], space.address(1)],
  )
  return pages
}

async function gaps(pages, names, what, within) {
  const fresh = (page) => page.evaluate(() => performance.now() - page.seen.shown < 500)
  await eventually(async () => (await Promise.all(pages.map(fresh))).every(Boolean), within, 'pictures again').catch(
    async (error) => {
      const states = await Promise.all(
        pages.map((page, i) =>
          page.evaluate(
            (name) => [client.state, globalThis.page.calls[name].state, globalThis.page.calls[name].reason],
            names[1 - i],
          ),
        ),
      )
      throw new Error(`${what}: ${JSON.stringify(states)}`, { cause: error })
    },
  )
  // It stays.
  await sleep(1500)
  await eventually(async () => (await Promise.all(pages.map(fresh))).every(Boolean), within)
  const seen = await Promise.all(pages.map((page) => page.evaluate(() => Math.round(page.seen.gap))))
  const pictures = await Promise.all(pages.map((page) => page.evaluate(() => Math.round(page.seen.picture))))
  const ends = await Promise.all(pages.map((page) => page.evaluate(() => page.ends)))
  const known = await pages[0].evaluate(() => page.seen.known)
  console.log(
    `# ${what}: no media for ${seen.join(' and ')} ms, no new picture for ${pictures.join(' and ')} ms; ` +
      `the browser knew its new network after ${known ?? 'unknown'} ms`,
  )
  assert.deepEqual(ends, [[], []])
  await eventually(
    async () => (await Promise.all(pages.map((page) => page.evaluate(() => client.state === 'online')))).every(Boolean),
    20_000,
  )
  await Promise.all(pages.map((page) => page.context().close()))
  return { gap: Math.max(...seen), known }
}

/**
 * A machine's browser knows its new network after 0.5 to 3.5 s without media, on which a page has no influence. Then 0.7 s
 * are enough.
 */
const most = ({ known = 0 }) => Math.max(3000, known + 700)

test('a switch to another network at once: the gap is at most 3 s, or 0.7 s more than the browser needs', { skip }, async () => {
  const names = ['walker', 'sitter']
  const pages = await pair(names)
  use(1)
  const seen = await gaps(pages, names, 'switch of network', 20_000)
  assert.ok(seen.gap <= most(seen), `${seen.gap} ms`)
})

test('both networks at once, then the one in use goes', { skip }, async () => {
  const names = ['strider', 'stayer']
  const pages = await pair(names)
  space.addSecond()
  await sleep(2000)
  use(1)
  const seen = await gaps(pages, names, 'the other network was there before', 20_000)
  assert.ok(seen.gap <= most(seen), `${seen.gap} ms`)
})

for (const seconds of [3, 20, 40]) {
  test(`no network for ${seconds} s, then another one: the call goes on within 3 s`, { skip }, async () => {
    const names = [`diver ${seconds}`, `waiter ${seconds}`]
    const pages = await pair(names)
    use()
    await sleep(seconds * 1000)
    use(1)
    const seen = await gaps(pages, names, `nothing for ${seconds} s, then another network`, 20_000)
    assert.ok(seen.gap <= Math.max(seconds * 1000 + 3000, most(seen)), `${seen.gap} ms`)
  })
}
