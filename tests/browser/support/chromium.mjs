// Debian's Chromium, without a head, with a camera and a microphone that are made up.

import { existsSync } from 'node:fs'

import { chromium } from 'playwright-core'

export const EXECUTABLE = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync)

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  '--auto-select-desktop-capture-source=Entire screen',
  '--autoplay-policy=no-user-gesture-required',
  // Names of a local resolver instead of addresses: there is none here.
  '--disable-features=WebRtcHideLocalIpsWithMdns',
  // A tab that is not looked at is not slowed down: several pages of a test share one browser.
  '--disable-background-timer-throttling',
  '--disable-renderer-backgrounding',
  '--disable-backgrounding-occluded-windows',
]

/** A browser with a fresh profile; close() it. Playwright ends it by its own process id, and with the test. */
export async function launchBrowser({ flags = [], ...options } = {}) {
  if (!EXECUTABLE) throw new Error('there is no Chromium: make setup-browser, or set CHROMIUM to one')
  return chromium.launch({ executablePath: EXECUTABLE, headless: true, args: [...FLAGS, ...flags], ...options })
}

/** A page in a profile of its own. What it writes to its console is kept in `page.said`, its uncaught errors in `page.errors`. */
export async function openPage(browser, url, options = {}) {
  const context = await browser.newContext({ permissions: ['camera', 'microphone'], ...options })
  const page = await context.newPage()
  page.said = []
  page.errors = []
  page.on('console', (message) => page.said.push(`${message.type()}: ${message.text()}`))
  page.on('pageerror', (error) => page.errors.push(String(error)))
  if (url) await page.goto(url)
  return page
}
