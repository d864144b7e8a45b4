// The page at /: take a name, see who is here, call.

import { Client } from '/client/switchboard.js'

import { CHANNELS, Conversation } from './page/conversation.js'
import { byId, dress, kept, notify } from './page/dom.js'
import { Log } from './page/log.js'
import { getMedia, stop } from './page/media.js'
import { People } from './page/people.js'
import { ring } from './page/ring.js'
import { doorWords, endWords, kindWords, loginWords } from './page/words.js'

/** After so long without a connection it is said. */
const PATIENCE = 6000
/** A page that is loaded again finds its name taken until the server has seen the one before go. */
const AGAIN = 1000
/** How long it may ring. */
const RINGING = 45_000
/** How long to wait for somebody who is to be called as soon as they are here. */
const COMING = 15_000
const KINDS = ['video', 'audio', 'screen']
/** Of how many that is kept. */
const ANNOUNCED = 100

let client
let people
let log
/** The call that there is, or whom one is being made ready to. */
let current
/** What those who are about to call have said that it will be. */
const announced = new Map()

// ---------------------------------------------------------------------------------------------------------------------------------
// To have a name

async function logIn(name, { again = false } = {}) {
  const button = byId('login').querySelector('button')
  button.disabled = true
  byId('login-error').textContent = ''
  const hint = setTimeout(() => (byId('login-error').textContent = loginWords({ code: 'unreachable' }, name)), PATIENCE)
  abandon()
  // Somebody looks at it: a node that is started again is found soon.
  const candidate = new Client('/', { name, reconnect: { max: 4000 } })
  try {
    candidate.addEventListener('state', showConnection)
    client = candidate
    await candidate.connect()
    enter(name)
    return true
  } catch (error) {
    // Another try has begun meanwhile.
    if (client !== candidate) return false
    abandon()
    showConnection()
    if (again && error.code === 'name_taken') {
      await new Promise((resolve) => setTimeout(resolve, Math.min(error.retryAfter ?? AGAIN, 5 * AGAIN)))
      return logIn(name)
    }
    byId('login-error').textContent = loginWords(error, name)
    byId('name').value = name
    byId('name').focus()
    return false
  } finally {
    clearTimeout(hint)
    button.disabled = false
  }
}

function enter(name) {
  kept.set('name', name)
  kept.set('name', name, sessionStorage)
  byId('welcome').hidden = true
  byId('home').hidden = false
  byId('logout').hidden = false
  byId('me').textContent = name
  byId('two-tabs').href = twoTabs(name)
  log = new Log(name)
  people = new People(client, name, begin)
  client.addEventListener('call', ({ call }) => answer(call))
  client.addEventListener('message', ({ name: from, message }) => announce(from, message?.calls))
  client.addEventListener('state', watchEnd)
  byId('main').focus({ preventScroll: true })
}

function leave(words = '') {
  abandon()
  kept.set('name', null, sessionStorage)
  history.replaceState(null, '', '/')
  byId('people').replaceChildren()
  byId('welcome').hidden = false
  byId('home').hidden = true
  byId('logout').hidden = true
  byId('login-error').textContent = words
  byId('name').value = kept.get('name', '')
  showConnection()
  byId('name').focus()
}

function abandon() {
  const session = client
  client = undefined
  session?.close()
}

function showConnection() {
  const pill = byId('connection')
  const state = client?.state
  const words = {
    connecting: ['trying', 'Connecting…'],
    reconnecting: ['trying', 'Connection lost. Trying again…'],
    online: ['on', `${client?.name ?? 'Connected'} at ${client?.node ?? 'a node'} by ${doorWords(client?.transport)}`],
  }[state]
  pill.dataset.state = words?.[0] ?? 'off'
  pill.textContent = words?.[1] ?? ''
  pill.title = state === 'online' ? 'Your name, the node that you are connected to, and how' : ''
}

/** Ended by the server, and not to be tried again. */
function watchEnd(event) {
  if (event.target !== client || event.state !== 'closed' || byId('home').hidden) return
  leave(event.error?.code === 'replaced' ? 'You have logged in elsewhere.' : loginWords(event.error, byId('me').textContent))
}

// ---------------------------------------------------------------------------------------------------------------------------------
// To call, and to be called

async function begin(name, kind, opener) {
  if (current) return
  const session = client
  current = { name }
  people.busy = true
  const media = await getMedia(kind)
  if (client !== session) {
    stop(media.stream)
    return free()
  }
  if (kind === 'screen' && media.stream.getVideoTracks().length === 0) {
    stop(media.stream)
    notify(media.missing[0])
    return free(opener)
  }
  people.add(name)
  client.send(name, { calls: kind }).catch(() => null)
  const call = client.call(name, { stream: media.stream, channels: CHANNELS, signal: AbortSignal.timeout(RINGING) })
  // What we cannot send we can still get.
  for (const wanted of kind === 'audio' ? ['audio'] : ['audio', 'video']) {
    if (call.direction === 'outgoing' && !media.stream.getTracks().some((track) => track.kind === wanted)) {
      call.pc.addTransceiver(wanted, { direction: 'recvonly' })
    }
  }
  converse(call, { kind, ...media }, opener)
}

async function answer(call) {
  const at = Date.now()
  const kind = announced.get(call.name) ?? 'call'
  announced.delete(call.name)
  const note = (reason) => log.add({ name: call.name, kind, direction: 'incoming', at, reason })
  // We were about to call them: that takes their call.
  if (current?.name === call.name && !current.state) return
  if (current) {
    call.hangup('busy')
    note('busy')
    notify(endWords('busy', call.name, { local: true }))
    return
  }
  current = call
  people.busy = true
  const taken = await ring(call, kind)
  if (taken === 'gone' || taken === 'declined') {
    if (taken === 'declined') call.hangup('declined')
    else notify(`${call.name} called. ${endWords(call.reason, call.name)}`)
    note(taken === 'declined' ? 'declined' : call.reason)
    free()
    return
  }
  const media = await getMedia(taken)
  if (call.state === 'ended') {
    stop(media.stream)
    note(call.reason)
    free()
    return
  }
  people.add(call.name)
  call.accept({ stream: media.stream })
  converse(call, { kind, ...media })
}

function announce(from, kind) {
  if (!KINDS.includes(kind)) return
  if (announced.size >= ANNOUNCED) announced.clear()
  announced.set(from, kind)
}

function converse(call, media, opener) {
  current = call
  // What was said of the call before is not about this one.
  byId('notices').replaceChildren()
  const at = Date.now()
  const conversation = new Conversation(client, call, media)
  call.addEventListener('end', ({ reason, local }) => {
    log.add({ name: call.name, kind: media.kind, direction: call.direction, at, seconds: conversation.seconds, reason })
    notify(endWords(reason, call.name, { local }))
    free(opener)
  })
}

function free(opener) {
  current = undefined
  people.busy = false
  if (opener?.isConnected) opener.focus()
  // Somebody whom we were about to call has called us, and we have thought better of it.
  for (const call of client?.calls.values() ?? []) if (call.direction === 'incoming' && call.state === 'ringing') answer(call)
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Alone, in two tabs

/** The other tab is somebody else, and calls this one. */
function twoTabs(name) {
  return `/#${new URLSearchParams({ name: `${name}-2`, call: name })}`
}

/** What the address asks for, or nothing. */
function wanted() {
  const wish = new URLSearchParams(location.hash.slice(1))
  const [name, whom, kind] = ['name', 'call', 'kind'].map((key) => wish.get(key)?.trim() || undefined)
  if (!name && !whom) return undefined
  return { name: name ?? kept.get('name', ''), whom, kind: KINDS.includes(kind) ? kind : 'video' }
}

/** Anybody can write an address, and any page can open it: without a click here, it logs nobody in, opens no camera and calls nobody. */
async function follow({ name, whom, kind }) {
  byId('name').value = name
  if (name && (await agrees({ name, whom, kind }))) {
    // Not again when the page is loaded again.
    history.replaceState(null, '', '/')
    if (!(await logIn(name, { again: true }))) return
    if (whom) callWhenHere(whom, kind)
  } else {
    byId('name').focus()
  }
}

function agrees({ name, whom, kind }) {
  const dialog = byId('ask')
  byId('ask-title').textContent = whom ? `Call ${whom}?` : `Log in as ${name}?`
  byId('ask-kind').textContent = whom ? `${kindWords(kind)}. You will be here as ${name}.` : 'The address that you have opened asks for this.'
  dress(byId('ask-call'), kind, whom ? 'Call' : 'Log in')
  return new Promise((resolve) => {
    byId('ask-call').onclick = () => dialog.close('call')
    byId('ask-cancel').onclick = () => dialog.close()
    dialog.onclose = () => resolve(dialog.returnValue === 'call')
    dialog.showModal()
  })
}

/** As soon as they are here. */
async function callWhenHere(name, kind) {
  const coming = new Promise((resolve) => {
    const look = () => people.isHere(name) && resolve(true)
    client.addEventListener('presence', look)
    people.add(name)
    const timer = setInterval(look, 100)
    setTimeout(() => (clearInterval(timer), resolve(false)), COMING)
  })
  if (await coming) begin(name, kind)
  else notify(`${name} is not here.`)
}

// ---------------------------------------------------------------------------------------------------------------------------------

function listen() {
  byId('login').addEventListener('submit', (event) => {
    event.preventDefault()
    const name = byId('name').value.trim()
    if (name) logIn(name)
  })
  byId('alone').addEventListener('click', () => {
    const name = byId('name').value.trim() || `guest-${Math.floor(Math.random() * 9000 + 1000)}`
    byId('alone').href = twoTabs(name)
    logIn(name)
  })
  byId('add').addEventListener('submit', (event) => {
    event.preventDefault()
    people.add(byId('who').value.trim())
    byId('who').value = ''
  })
  byId('logout').addEventListener('click', () => leave())
  // So that the name is free at once, and call peers know.
  addEventListener('pagehide', abandon)
  addEventListener('pageshow', ({ persisted }) => persisted && location.reload())
}

async function start() {
  listen()
  byId('name').value = kept.get('name', '')
  const wish = wanted()
  if (wish) return follow(wish)
  // A link to this page is no wish to be logged in again; to load it again is.
  const [{ type }] = performance.getEntriesByType('navigation')
  const name = type === 'reload' || type === 'back_forward' ? kept.get('name', null, sessionStorage) : null
  if (!name || !(await logIn(name, { again: true }))) byId('name').focus()
}

start()
