// A stock Firefox, by WebDriver BiDi: as much of Playwright's face as `openPage` and `openCaller` use. Playwright itself
// needs a newer Firefox than distributions have.

import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

import WebSocket from 'ws'

export const FIREFOX = process.env.FIREFOX ?? ['/usr/bin/firefox-esr', '/usr/bin/firefox'].find(existsSync)

/** A camera and a microphone that are made up, no questions, no sound, and addresses instead of names of a resolver. */
const PREFERENCES = {
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.autoplay.default': 0,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'app.update.enabled': false,
}

/** A Firefox with a fresh profile; close() it. */
export async function launchFirefox() {
  const profile = mkdtempSync(join(tmpdir(), 'switchboard-firefox-'))
  const lines = Object.entries(PREFERENCES).map(([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`)
  writeFileSync(join(profile, 'user.js'), lines.join(''))
  const args = ['--headless', '--no-remote', '--remote-debugging-port', '0', '--profile', profile]
  // It keeps its settings of other users in the home directory.
  const child = spawn(FIREFOX, args, { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, HOME: profile } })
  const gone = new Promise((resolve) => child.once('exit', resolve))
  const atExit = () => child.kill('SIGKILL')
  process.once('exit', atExit)
  const address = await new Promise((resolve, reject) => {
    createInterface(child.stderr).on('line', (line) => {
      const [, found] = /^WebDriver BiDi listening on (ws:\S+)/.exec(line) ?? []
      if (found) resolve(found)
    })
    gone.then((code) => reject(new Error(`Firefox ended with ${code} before it listened`)))
  })
  const bidi = await dial(`${address}/session`)
  await bidi.ask('session.new', { capabilities: {} })
  await bidi.ask('session.subscribe', { events: ['log.entryAdded'] })
  return {
    newContext: () => newContext(bidi),
    async close() {
      await bidi.ask('browser.close', {}).catch(() => {})
      const timer = setTimeout(atExit, 5000)
      await gone
      clearTimeout(timer)
      process.off('exit', atExit)
      rmSync(profile, { recursive: true, maxRetries: 5, retryDelay: 200 })
    },
  }
}

/** The connection: questions, their answers, and events. */
async function dial(address) {
  const socket = new WebSocket(address, { perMessageDeflate: false, maxPayload: 1 << 28 })
  const asked = new Map()
  const listeners = new Set()
  let ids = 0
  socket.on('message', (data) => {
    const { id, type, result, message, method, params } = JSON.parse(data)
    if (id === undefined) return listeners.forEach((listener) => listener(method, params))
    const { resolve, reject } = asked.get(id)
    asked.delete(id)
    if (type === 'success') resolve(result)
    else reject(new Error(`Firefox: ${message}`))
  })
  socket.on('close', () => asked.forEach(({ reject }) => reject(new Error('Firefox is gone'))))
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  return {
    listeners,
    ask: (method, params) =>
      new Promise((resolve, reject) => {
        asked.set(++ids, { resolve, reject })
        socket.send(JSON.stringify({ id: ids, method, params }))
      }),
  }
}

async function newContext(bidi) {
  const { userContext } = await bidi.ask('browser.createUserContext', {})
  const context = {
    newPage: () => newPage(bidi, userContext, context),
    close: () => bidi.ask('browser.removeUserContext', { userContext }),
  }
  return context
}

async function newPage(bidi, userContext, context) {
  const { context: tab } = await bidi.ask('browsingContext.create', { type: 'tab', userContext })
  const heard = { console: [], pageerror: [] }
  bidi.listeners.add((method, { source, type, level, text } = {}) => {
    if (source?.context !== tab) return
    if (type === 'javascript') heard.pageerror.forEach((listener) => listener(text))
    else heard.console.forEach((listener) => listener({ type: () => level, text: () => text }))
  })
  return {
    context: () => context,
    on: (what, listener) => heard[what].push(listener),
    goto: (url) => bidi.ask('browsingContext.navigate', { context: tab, url, wait: 'complete' }),
    /** What goes in and out is JSON. */
    async evaluate(work, given) {
      const { type, result, exceptionDetails } = await bidi.ask('script.evaluate', {
        expression: `(async () => JSON.stringify(await (${work})(${JSON.stringify(given)})))()`,
        target: { context: tab },
        awaitPromise: true,
        userActivation: true,
      })
      if (type === 'exception') throw new Error(exceptionDetails.text)
      return result.type === 'string' ? JSON.parse(result.value) : undefined
    },
  }
}
