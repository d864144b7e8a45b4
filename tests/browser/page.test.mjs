// The page at /, as people use it: on two nodes, with the keyboard, on a phone, without a camera, and when a node dies.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { after, afterEach, before, describe, test } from 'node:test'

import { eventually, launchBrowser, openPage, startCluster, startNetwork, startNode, startProxy } from './support/index.mjs'

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const phone = (width, height) => ({ viewport: { width, height }, hasTouch: true, isMobile: true })
const PHONE = phone(390, 844)
const SIZES = [
  ['desk', { viewport: { width: 1280, height: 800 } }],
  ['phone', PHONE],
  ['small phone', phone(320, 568)],
]
const LONG = 'Somebody with a very long name indeed, longer than fits'

let cluster, one, two, browser
const pages = []
before(async () => {
  ;[cluster, browser] = await Promise.all([startCluster(2), launchBrowser()])
  ;[one, two] = cluster.nodes
})
after(async () => {
  await browser?.close()
  await cluster?.stop()
})
afterEach(async (test) => {
  const open = pages.splice(0)
  try {
    for (const page of open) await isClean(page, test.name)
  } finally {
    for (const page of open) await page.context().close()
  }
})

/** A page that keeps count of everything that it must not do. */
async function open(address, { browser: other = browser, ...options } = {}) {
  const page = await openPage(other, undefined, options)
  return watched(page, address)
}

async function watched(page, address) {
  page.asked = []
  page.on('request', (request) => page.asked.push(request.url()))
  page.on('websocket', (socket) => page.asked.push(socket.url()))
  await page.addInitScript(() => {
    window.violations = []
    document.addEventListener('securitypolicyviolation', (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`))
  })
  page.home = new URL(address ?? one.http).host
  pages.push(page)
  if (address) await page.goto(address)
  return page
}

/** Nothing is thrown, nothing is complained of, nothing breaks the policy, and nothing is asked of anybody else. */
async function isClean(page, what) {
  assert.deepEqual(page.errors, [], what)
  const complaints = page.said?.filter((said) => said.startsWith('error:') && !page.expects?.test(said)) ?? []
  assert.deepEqual(complaints, [], what)
  assert.deepEqual(await page.evaluate(() => window.violations), [], what)
  const elsewhere = page.asked.filter((url) => !/^(data|blob):/.test(url) && new URL(url).host !== page.home)
  assert.deepEqual(elsewhere, [], what)
}

const logIn = async (node, name, options) => {
  const page = await open(`${node.http}/`, options)
  await page.fill('#name', name)
  await page.press('#name', 'Enter')
  await page.waitForSelector('#home:not([hidden])')
  return page
}
const add = async (page, name) => {
  await page.fill('#who', name)
  await page.press('#who', 'Enter')
  await page.waitForSelector(`.person.here[data-name="${name}"]`)
}
const text = (page, selector) => page.textContent(selector)
const says = (page, selector, words) => eventually(async () => words.test(await text(page, selector)), 15_000, `${selector} says ${words}`)
const frames = (page) => page.$eval('#remote', (video) => video.getVideoPlaybackQuality().totalVideoFrames)
const button = (page, name, kind) => page.locator(`.person[data-name="${name}"] [data-kind="${kind}"]`)

/** Ann at one node calls Bob at the other, and he takes it. */
async function inCall(kind = 'video', { annOptions, bobOptions } = {}) {
  const [ann, bob] = [await logIn(one, 'Ann', annOptions), await logIn(two, 'Bob', bobOptions)]
  await add(ann, 'Bob')
  await button(ann, 'Bob', kind).click()
  await bob.click('#accept')
  for (const page of [ann, bob]) await says(page, '#call-state', /^Connected$/)
  return [ann, bob]
}

/** What axe-core finds against it, in this state. */
async function isAccessible(page, what, look) {
  // To be looked at: SHOTS=folder
  if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/${look} ${what}.png` })
  await page.evaluate(AXE)
  const { violations } = await page.evaluate(() =>
    // eslint-disable-next-line no-undef
    axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'], resultTypes: ['violations'] }),
  )
  const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target} ${node.any[0]?.message ?? ''}`).join(' | ')}`)
  assert.deepEqual(told, [], what)
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
  assert.ok(wide <= 0, `${what}: ${wide} px too wide`)
}

describe('a call between two nodes', () => {
  test('pictures move, chat goes both ways, each sees where the other is, and the log keeps it', async () => {
    const [ann, bob] = await inCall()
    for (const page of [ann, bob]) {
      const before = await frames(page)
      await eventually(async () => (await frames(page)) > before + 10, 15_000, 'frames advance')
      assert.ok(await page.isHidden('#blank'))
    }
    await says(ann, '#path-me', /^one\..* by WebSocket$/)
    await says(ann, '#path-peer', /^two\..* by WebSocket$/)
    await says(bob, '#path-peer', /^one\./)
    await says(bob, '#path-media', /^directly/)
    await ann.fill('#words', 'Hello <b>Bob</b>')
    await ann.press('#words', 'Enter')
    await says(bob, '#messages', /Ann: Hello <b>Bob<\/b>/)
    await bob.fill('#words', 'Hello Ann')
    await bob.click('#send')
    await says(ann, '#messages', /Bob: Hello Ann/)
    await says(ann, '#timer', /^0:0[1-9]$/)
    await ann.click('#hangup')
    await says(bob, '#notices', /Ann hung up\./)
    await says(ann, '#notices', /You hung up\./)
    for (const page of [ann, bob]) assert.ok(await page.isVisible('#idle'))
    assert.match(await text(ann, '#log'), /Bob.*To · Video call · 0:\d\d/s)
    assert.match(await text(bob, '#log'), /Ann.*From · Video call · 0:\d\d/s)
    const lights = await ann.evaluate(() => document.getElementById('local').srcObject)
    assert.equal(lights, null, 'the camera is off')
    await ann.click('#clear')
    assert.ok(await ann.isVisible('#no-calls'))
  })

  test('mute, camera off and on, and the screen instead of it', async () => {
    const [ann, bob] = await inCall()
    const loud = () =>
      bob.$eval('#remote', (video) => video.srcObject.getTracks().map((track) => track.kind).sort())
    await eventually(async () => (await loud()).join() === 'audio,video')
    await ann.click('#mic')
    assert.equal(await text(ann, '#mic span'), 'Unmute')
    await ann.click('#mic')
    assert.equal(await text(ann, '#mic span'), 'Mute')
    await ann.click('#camera')
    await bob.waitForSelector('#blank:not([hidden])')
    await ann.click('#camera')
    await bob.waitForSelector('#blank', { state: 'hidden' })
    await ann.click('#share')
    await says(ann, '#share span', /Stop sharing/)
    await bob.waitForSelector('#remote.whole')
    const before = await frames(bob)
    await eventually(async () => (await frames(bob)) > before + 3, 15_000, 'the screen arrives')
    await ann.click('#share')
    await bob.waitForSelector('#remote:not(.whole)')
    await says(ann, '#camera span', /Camera off/)
  })

  test('audio only has no picture until somebody turns the camera on', async () => {
    const [ann, bob] = await inCall('audio')
    assert.ok(await ann.isHidden('#local'))
    assert.ok(await bob.isVisible('#blank'))
    await bob.click('#camera')
    await ann.waitForSelector('#blank', { state: 'hidden' })
    const before = await frames(ann)
    await eventually(async () => (await frames(ann)) > before + 5, 15_000, 'frames advance')
  })

  test('a shared screen is a call of its own', async () => {
    const [ann, bob] = await inCall('screen')
    await bob.waitForSelector('#remote.whole')
    await eventually(async () => (await frames(bob)) > 3, 15_000, 'the screen arrives')
    await bob.click('#hangup')
    await says(ann, '#log', /Shared screen/)
  })

  test('closed networks: one side by an event stream, the other by polling, and both say so', async () => {
    const closed = { websocket: 'refuse' }
    const [sse, poll] = await Promise.all([startProxy([one], closed), startProxy([two], { ...closed, sse: 'buffer' })])
    try {
      const [fay, gus] = await Promise.all([logIn(sse, 'Fay'), logIn(poll, 'Gus')])
      fay.expects = gus.expects = /WebSocket connection|Failed to load/
      await says(fay, '#connection', /^Fay at one\..* by event stream \(SSE\)$/)
      await says(gus, '#connection', /^Gus at two\..* by polling$/)
      await add(fay, 'Gus')
      await button(fay, 'Gus', 'video').click()
      await gus.click('#accept')
      for (const page of [fay, gus]) {
        await says(page, '#call-state', /^Connected$/)
        await eventually(async () => (await frames(page)) > 10, 15_000, 'frames advance')
      }
      await says(fay, '#path-peer', /^two\..* by polling$/)
      await says(gus, '#path-peer', /^one\..* by event stream/)
      await gus.click('#hangup')
      await says(fay, '#notices', /Gus hung up\./)
    } finally {
      await Promise.all([sse.stop(), poll.stop()])
    }
  })

  test('the node of one side is killed: it says so, comes back at the other, and the call goes on', async () => {
    const victim = await startNode({ redis: cluster.redis, id: 'victim' })
    const proxy = await startProxy([victim, two], { pick: (targets) => targets.find((node) => node.running) })
    try {
      const [dora, emil] = [await logIn(proxy, 'Dora'), await logIn(one, 'Emil')]
      dora.expects = emil.expects = /WebSocket connection|Failed to load/
      await add(dora, 'Emil')
      await button(dora, 'Emil', 'video').click()
      await emil.click('#accept')
      for (const page of [dora, emil]) await says(page, '#call-state', /^Connected$/)
      await says(dora, '#connection', /^Dora at victim\./)
      await victim.kill()
      await says(dora, '#connection', /^Dora at two\./)
      await says(emil, '#path-peer', /^two\./)
      const before = await frames(dora)
      await eventually(async () => (await frames(dora)) > before + 10, 15_000, 'frames advance')
      assert.equal(await text(dora, '#call-state'), 'Connected')
      assert.equal(await text(emil, '#notices'), '')
    } finally {
      await proxy.stop()
      if (victim.running) await victim.kill()
    }
  })
})

describe('calls that come to nothing', () => {
  test('declined, given up, busy: each is told in words, and is in the log', async () => {
    const [ann, bob] = [await logIn(one, 'Ann'), await logIn(two, 'Bob')]
    await add(ann, 'Bob')
    await button(ann, 'Bob', 'audio').click()
    await bob.waitForSelector('#ring[open]')
    assert.equal(await text(bob, '#ring-title'), 'Ann calls you')
    assert.equal(await text(bob, '#ring-kind'), 'Audio call')
    assert.match(await bob.title(), /^Ann calls/)
    await bob.keyboard.press('Escape')
    assert.ok(await bob.isVisible('#ring'), 'Escape does not decline')
    await bob.click('#decline')
    await says(ann, '#notices', /Bob declined\./)
    await says(ann, '#log', /declined/)

    await button(ann, 'Bob', 'video').click()
    await bob.waitForSelector('#ring[open]')
    await ann.click('#hangup')
    await bob.waitForSelector('#ring:not([open])', { state: 'attached' })
    await says(bob, '#notices', /Ann called\. Ann gave up\./)
    await says(bob, '#log .missed', /missed/)

    const carl = await logIn(one, 'Carl')
    await add(carl, 'Bob')
    await button(ann, 'Bob', 'video').click()
    await bob.click('#accept')
    await says(ann, '#call-state', /^Connected$/)
    await button(carl, 'Bob', 'video').click()
    await says(carl, '#notices', /Bob is in another call\./)
    assert.equal(await text(ann, '#call-state'), 'Connected')
  })

  test('both call each other in the same moment: one call', async () => {
    const [ann, bob] = [await logIn(one, 'Ann'), await logIn(two, 'Bob')]
    await add(ann, 'Bob')
    await add(bob, 'Ann')
    await Promise.all([button(ann, 'Bob', 'video').click(), button(bob, 'Ann', 'video').click()])
    for (const page of [ann, bob]) {
      await says(page, '#call-state', /^Connected$/)
      await eventually(async () => (await frames(page)) > 5, 15_000, 'frames advance')
    }
  })

  test('whoever is not here cannot be called, and is seen to come and go', async () => {
    const ann = await logIn(one, 'Ann')
    await ann.fill('#who', 'Bob')
    await ann.press('#who', 'Enter')
    await says(ann, '.person .there', /^not here$/)
    assert.ok(await button(ann, 'Bob', 'video').isDisabled())
    const bob = await logIn(two, 'Bob')
    await says(ann, '.person .there', /^here$/)
    assert.ok(await button(ann, 'Bob', 'video').isEnabled())
    await bob.click('#logout')
    await says(ann, '.person .there', /^not here$/)
    await button(ann, 'Bob', 'remove').click()
    assert.ok(await ann.isVisible('#nobody'))
  })
})

describe('names', () => {
  test('a name that is taken is refused in words; a link logs in after a click; a reload keeps name and list', async () => {
    const ann = await open(`${one.http}/#name=Ann`)
    assert.equal(await text(ann, '#ask-title'), 'Log in as Ann?')
    await ann.click('#ask-call')
    await says(ann, '#connection', /^Ann at one\./)
    const other = await open(`${two.http}/`)
    await other.fill('#name', 'Ann')
    await other.press('#name', 'Enter')
    await says(other, '#login-error', /Somebody is here as “Ann” already/)
    assert.equal(await other.evaluate(() => document.activeElement.id), 'name')
    await ann.fill('#who', 'Bob')
    await ann.press('#who', 'Enter')
    await ann.reload()
    await says(ann, '#connection', /^Ann at/)
    await says(ann, '#people', /Bob/)
    await ann.click('#logout')
    assert.equal(await ann.inputValue('#name'), 'Ann', 'remembered')
    assert.ok(!ann.url().includes('Ann'))
  })
})

/** A page that may use camera and microphone, counts what is asked of its devices, and is opened by an address that asks for a call. */
async function opensLink(hash) {
  const page = await openPage(browser)
  page.sent = []
  page.on('websocket', (socket) => socket.on('framesent', ({ payload }) => page.sent.push(JSON.parse(payload))))
  await page.addInitScript(() => {
    window.devices = []
    for (const name of ['getUserMedia', 'getDisplayMedia']) {
      const real = navigator.mediaDevices[name].bind(navigator.mediaDevices)
      navigator.mediaDevices[name] = (...args) => (window.devices.push(name), real(...args))
    }
  })
  await watched(page, hash && `${one.http}/#${new URLSearchParams(hash)}`)
  page.touched = async () => [...(await page.evaluate(() => window.devices)), ...page.sent]
  return page
}

/** It has done nothing, and will not: what it does without a click it does well within this time. */
async function stayedIdle(page) {
  const began = await eventually(async () => (await page.touched())[0], 3000).catch(() => 'nothing')
  assert.equal(began, 'nothing')
}

/** Another site, whose pages lead here: by a link, a redirect, a refresh, or in a frame. */
async function startSite() {
  const wish = `${one.http}/#${new URLSearchParams({ name: 'Ann', call: 'Mallory' })}`
  const bodies = {
    '/link': `<a href="${one.http}/">Here</a>`,
    '/frame': `<iframe src="${wish}" allow="camera; microphone"></iframe>`,
    '/refresh': `<meta http-equiv="refresh" content="0; url=${wish}">`,
  }
  const server = createServer((request, response) => {
    if (request.url === '/redirect') response.writeHead(302, { location: `${one.http}/` }).end()
    else response.setHeader('content-type', 'text/html').end(bodies[request.url] ?? '')
  })
  await new Promise((resolve) => server.listen(0, 'localhost', resolve))
  return { http: `http://localhost:${server.address().port}`, close: () => new Promise((resolve) => server.close(resolve)) }
}

describe('an address that asks for a call', () => {
  test('touches no device and calls nobody before the click; after it, it calls', async () => {
    const bob = await logIn(two, 'Bob')
    const ann = await opensLink({ name: 'Ann', call: 'Bob' })
    await stayedIdle(ann)
    assert.ok(await bob.isHidden('#ring'), 'it does not ring')
    assert.equal(await text(ann, '#ask-title'), 'Call Bob?')
    assert.equal(await text(ann, '#ask-kind'), 'Video call. You will be here as Ann.')
    assert.equal(await ann.evaluate(() => document.activeElement.id), 'ask-cancel', 'Enter does not call')
    for (const colorScheme of ['light', 'dark']) {
      await ann.emulateMedia({ colorScheme })
      await isAccessible(ann, 'it asks', colorScheme)
    }
    await ann.click('#ask-call')
    await bob.click('#accept')
    for (const page of [ann, bob]) await says(page, '#call-state', /^Connected$/)
    assert.equal((await ann.touched())[0], 'getUserMedia')
    // The wish is fulfilled: to load the page again does not call again.
    assert.ok(!ann.url().includes('Bob'))
  })

  for (const [what, hash] of Object.entries({
    'a name': { name: 'Ann' },
    'a name of spaces': { name: '  ', call: 'Bob' },
    'a call without a name': { call: 'Bob' },
    'a kind': { name: 'Ann', call: 'Bob', kind: 'screen' },
    'an unknown kind': { name: 'Ann', call: 'Bob', kind: 'getUserMedia' },
  })) {
    test(`asks first: ${what}`, async () => stayedIdle(await opensLink(hash)))
  }

  test('a visitor who was logged in here is not logged in by a link, a redirect or a frame', async () => {
    const site = await startSite()
    try {
      const ann = await opensLink()
      await ann.goto(`${one.http}/`)
      await ann.fill('#name', 'Ann')
      await ann.press('#name', 'Enter')
      await says(ann, '#connection', /^Ann at one\./)
      await ann.goto(site.http)
      const logins = ann.sent.length
      for (const path of ['link', 'redirect', 'frame', 'refresh']) {
        await ann.goto(`${site.http}/${path}`)
        if (path === 'link') await ann.click('a')
        const lands = path === 'frame' ? site.http : one.http
        await eventually(() => ann.url().startsWith(lands), 10_000, `${path} lands at ${lands}`)
        await eventually(async () => (ann.sent.length > logins ? true : undefined), 2000).then(
          () => assert.fail(`${path} made it send ${JSON.stringify(ann.sent[logins])}`),
          () => null,
        )
        assert.equal(ann.frames().filter((frame) => frame.url().startsWith(`${one.http}/`) && frame.parentFrame()).length, 0, 'no frame')
      }
      pages.splice(pages.indexOf(ann), 1)
      await ann.context().close()
    } finally {
      await site.close()
    }
  })

  test('the doctor examines after a click, for no longer than it may', async () => {
    const doctor = await opensLink()
    await doctor.goto(`${one.http}/doctor?watch=1e9&name=Ann&call=Bob#name=Ann&call=Bob`)
    await stayedIdle(doctor)
    assert.equal(await text(doctor, '#summary'), 'Not examined yet')
  })

  test('does nothing after a no', async () => {
    await logIn(two, 'Bob')
    for (const no of ['Escape', 'Enter']) {
      const ann = await opensLink({ name: `Ann-${no}`, call: 'Bob', kind: 'audio' })
      await ann.waitForSelector('#ask[open]')
      assert.match(await text(ann, '#ask-kind'), /^Audio call\. /)
      await ann.keyboard.press(no)
      await ann.waitForSelector('#ask:not([open])', { state: 'attached' })
      await stayedIdle(ann)
      assert.equal(await ann.inputValue('#name'), `Ann-${no}`)
    }
  })
})

describe('alone', () => {
  for (const [from, start] of [
    ['the list', () => logIn(one, 'Ann')],
    ['the door', () => open(`${one.http}/`)],
  ]) {
    test(`one click on “Call yourself in two tabs” at ${from}: the other tab, once it is told to, calls this one`, async () => {
      const ann = await start()
      const link = ann.getByRole('link', { name: 'Call yourself in two tabs' })
      const [tab] = await Promise.all([ann.context().waitForEvent('page'), link.click()])
      tab.errors = []
      tab.on('pageerror', (error) => tab.errors.push(String(error)))
      await tab.click('#ask-call')
      await ann.waitForSelector('#ring[open]', { timeout: 20_000 })
      await ann.click('#accept')
      for (const page of [ann, tab]) {
        await says(page, '#call-state', /^Connected$/)
        await eventually(async () => (await frames(page)) > 5, 15_000, 'frames advance')
      }
      assert.deepEqual(tab.errors, [])
    })
  }
})

describe('for everybody', () => {
  test('without a camera and a microphone one still gets in, is told so, and sees and hears', async () => {
    const bare = await launchBrowser({ ignoreDefaultArgs: ['--use-fake-device-for-media-stream'] })
    try {
      const [ann, bob] = await inCall('video', { annOptions: { browser: bare } })
      await says(ann, '#missing', /There is no camera or microphone on this device\. The call goes on with what there is\./)
      await eventually(async () => (await frames(ann)) > 10, 15_000, 'frames advance')
      assert.ok(await bob.isVisible('#blank'))
      await ann.fill('#words', 'I see you')
      await ann.press('#words', 'Enter')
      await says(bob, '#messages', /Ann: I see you/)
      await isClean(ann, 'without a camera')
      pages.splice(pages.indexOf(ann), 1)
    } finally {
      await bare.close()
    }
  })

  test('the keyboard alone is enough', async () => {
    const [ann, bob] = [await open(`${one.http}/`), await logIn(two, 'Bob')]
    const focused = (page) => page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.id)
    const tabTo = async (page, what) => {
      for (let presses = 0; presses < 40; presses += 1) {
        if (what.test(await focused(page))) return
        await page.keyboard.press('Tab')
      }
      assert.fail(`${what} cannot be reached`)
    }
    assert.equal(await focused(ann), 'name', 'where one starts')
    await ann.keyboard.type('Ann')
    await ann.keyboard.press('Enter')
    await ann.waitForSelector('#home:not([hidden])')
    await tabTo(ann, /^who$/)
    await ann.keyboard.type('Bob')
    await ann.keyboard.press('Enter')
    await ann.waitForSelector('.person.here')
    await ann.focus('#main')
    await tabTo(ann, /^Video call to Bob$/)
    await ann.keyboard.press('Enter')
    await bob.waitForSelector('#ring[open]')
    assert.equal(await focused(bob), 'accept')
    await bob.keyboard.press('Enter')
    await says(ann, '#call-state', /^Connected$/)
    await tabTo(ann, /^words$/)
    await ann.keyboard.type('Hello')
    await ann.keyboard.press('Enter')
    await says(bob, '#messages', /Ann: Hello/)
    await ann.focus('#peer')
    await tabTo(ann, /^hangup$/)
    await ann.keyboard.press('Space')
    await says(bob, '#notices', /Ann hung up/)
    await eventually(async () => (await focused(ann)) === 'Video call to Bob', 5000, 'back where one was')
  })

  for (const colorScheme of ['light', 'dark']) {
    for (const [size, options] of SIZES) {
      const look = { ...options, colorScheme, reducedMotion: 'reduce' }
      const sees = (page, what) => isAccessible(page, what, `${size} ${colorScheme}`)
      test(`labels, roles, contrast and width in each state, ${size}, ${colorScheme}`, async (test) => {
        const network = await startNetwork(one)
        // After the pages, so that their end is told and names are free.
        test.after(() => network.stop())
        const [ann, bob] = await arrive({ look, sees, door: network.http })
        await converseInSight({ ann, bob, sees, network })
      })

      test(`labels, roles, contrast and width of the doctor, ${size}, ${colorScheme}`, async () => {
        const doctor = await open(`${one.http}/doctor?watch=1`, look)
        await sees(doctor, 'the doctor')
        await doctor.click('#again')
        await sees(doctor, 'the doctor at work')
        await doctor.waitForSelector('body[data-done]', { timeout: 60_000 })
        doctor.expects = /Failed to load resource/
        await sees(doctor, 'the doctor, when it has examined')
      })
    }
  }
})

/** Ann and Bob log in, each state looked at. */
async function arrive({ look, sees, door }) {
  const bob = await logIn(two, LONG, look)
  await sees(bob, 'nobody yet')
  const ann = await open(`${door}/`, look)
  await sees(ann, 'the door')
  await ann.fill('#name', LONG)
  await ann.press('#name', 'Enter')
  await says(ann, '#login-error', /already/)
  await sees(ann, 'refused')
  await ann.goto(`${door}/?#name=Ann&call=${encodeURIComponent(LONG)}`)
  await ann.waitForSelector('#ask[open]')
  await sees(ann, 'it asks')
  await ann.keyboard.press('Escape')
  await ann.fill('#name', 'Ann')
  await ann.press('#name', 'Enter')
  await ann.waitForSelector('#home:not([hidden])')
  await add(ann, LONG)
  await ann.fill('#who', 'Somebody who is not here')
  await ann.press('#who', 'Enter')
  await says(ann, '#people', /not here/)
  await sees(ann, 'the list')
  return [ann, bob]
}

/** A call that is declined, one by audio, and one with everything. */
async function converseInSight({ ann, bob, sees, network }) {
  await button(ann, LONG, 'audio').click()
  await bob.waitForSelector('#ring[open]')
  await bob.click('#decline')
  await says(ann, '#notices', /declined/)
  await sees(ann, 'declined')
  await button(ann, LONG, 'video').click()
  await bob.waitForSelector('#ring[open]')
  await says(ann, '#call-state', /Ringing/)
  await sees(ann, 'it rings there')
  await sees(bob, 'it rings')
  await bob.click('#accept-audio')
  for (const page of [ann, bob]) await says(page, '#call-state', /^Connected$/)
  await says(ann, '#path-peer', /^two/)
  await sees(ann, 'in a call without the other\'s picture')
  await bob.click('#camera')
  await ann.waitForSelector('#blank', { state: 'hidden' })
  for (const words of ['Hello', 'A long one, of which nobody knows yet where the line will end. '.repeat(4)]) {
    await ann.fill('#words', words)
    await ann.press('#words', 'Enter')
  }
  await says(bob, '#messages', /A long one/)
  await sees(bob, 'in a call')
  network.rules.silent = true
  network.cut()
  ann.expects = /WebSocket|ERR_/
  await says(ann, '#connection', /lost/)
  await ann.focus('#words')
  await sees(ann, 'in a call, its own connection lost')
  for (const selector of ['#connection', '#remote']) assert.ok(await inSight(ann, selector), `${selector} is in sight`)
  network.rules.silent = false
  await says(ann, '#connection', /^Ann at/)
  await ann.click('#hangup')
  await says(ann, '#log', /Somebody/)
  await sees(ann, 'after a call')
  const moving = await bob.evaluate(() => document.getAnimations().length)
  assert.equal(moving, 0, 'nothing moves for those who do not want it')
}

/** Whether part of it can be seen without scrolling. */
const inSight = (page, selector) =>
  page.$eval(selector, (one) => {
    const { top, bottom } = one.getBoundingClientRect()
    return bottom > 8 && top < innerHeight - 8
  })
