// Takes the pictures of docs/src/images: two people in a call between two nodes, the call's trace, and the doctor.
// `make screenshots`

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'

import { startJaeger, tracesOf } from '../jaeger/jaeger.mjs'
import { pictureOf } from '../jaeger/picture.mjs'
import { eventually, launchBrowser, openPage, ROOT, startCluster } from './support/index.mjs'

const IMAGES = join(ROOT, 'docs/src/images')
const VIEW = { viewport: { width: 720, height: 640 } }

const jaeger = await startJaeger()
const exports = { OTEL_EXPORTER_OTLP_ENDPOINT: jaeger.grpc, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc', OTEL_BSP_SCHEDULE_DELAY: '200' }
const cluster = await startCluster(2, {}, undefined, exports)
const browser = await launchBrowser()
try {
  mkdirSync(IMAGES, { recursive: true })
  const logIn = async (node, name) => {
    const page = await openPage(browser, `${node.http}/`, VIEW)
    await page.fill('#name', name)
    await page.press('#name', 'Enter')
    await page.waitForSelector('#home:not([hidden])')
    return page
  }
  const [one, two] = cluster.nodes
  const [ann, bob] = [await logIn(one, 'Ann'), await logIn(two, 'Bob')]
  await ann.fill('#who', 'Bob')
  await ann.press('#who', 'Enter')
  await ann.waitForSelector('.person.here[data-name="Bob"]')
  await ann.click('.person[data-name="Bob"] [data-kind="video"]')
  await bob.click('#accept')
  for (const page of [ann, bob]) {
    await eventually(async () => /^Connected$/.test(await page.textContent('#call-state')), 15_000, 'they are connected')
    await eventually(() => page.$eval('#remote', (video) => video.getVideoPlaybackQuality().totalVideoFrames > 30), 15_000, 'a picture')
    await eventually(async () => /by/.test(await page.textContent('#path-peer')), 15_000, 'where the other is')
  }
  await ann.fill('#words', 'Can you see me?')
  await ann.press('#words', 'Enter')
  await bob.fill('#words', 'Yes, from another node!')
  await bob.press('#words', 'Enter')
  await eventually(async () => /another node/.test(await ann.textContent('#messages')), 15_000, 'they chat')
  // Chromium's picture of a camera is the same everywhere; side by side both are seen.
  const shots = await Promise.all([ann, bob].map((page) => page.screenshot({ type: 'png' })))
  const both = await openPage(browser, undefined, { viewport: { width: 1456, height: 640 } })
  const pictures = shots.map((shot) => `<img src="data:image/png;base64,${shot.toString('base64')}" width="720">`)
  await both.setContent(`<body style="margin:0;display:flex;gap:16px;background:#888">${pictures.join('')}`)
  await both.screenshot({ path: join(IMAGES, 'call.png') })

  const isSetUp = ({ spans }) => spans.filter(({ name }) => name === 'connected').length === 2
  const trace = await eventually(async () => (await tracesOf(jaeger.url)).find(isSetUp), 30_000, 'the trace of the call')
  const timeline = await openPage(browser, undefined, { viewport: { width: 1100, height: 300 } })
  await timeline.setContent(pictureOf(trace))
  await timeline.screenshot({ path: join(IMAGES, 'trace.png'), fullPage: true })

  const doctor = await openPage(browser, `${one.http}/doctor`, VIEW)
  await doctor.click('#again')
  await doctor.waitForSelector('#copy:not([disabled])', { timeout: 120_000 })
  await doctor.screenshot({ path: join(IMAGES, 'doctor.png') })
} finally {
  await browser.close()
  await cluster.stop()
  await jaeger.stop()
}
