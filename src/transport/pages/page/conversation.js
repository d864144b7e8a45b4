// One call, from the first ring to the end: pictures, sound, and what can be done about them.

import { chat } from './chat.js'
import { byId, dress, initial, notify } from './dom.js'
import { canShareScreen, getCamera, getMicrophone, getScreen, stop } from './media.js'
import { showPaths } from './paths.js'
import { clock, mediaWords, stateWords } from './words.js'

/** What each side tells the other of itself. */
const ABOUT = 'about'
const CHAT = 'chat'
export const CHANNELS = [CHAT, ABOUT]

export class Conversation {
  #client
  #call
  /** What is sent, always in this one stream. */
  #stream
  #remote = new MediaStream()
  /** What the picture is: `camera`, `screen` or `none`. */
  #picture
  /** What it was before the screen was shared. */
  #before = 'none'
  #about
  #theirs = {}
  #since
  #timer

  constructor(client, call, { kind, stream, missing }) {
    this.#client = client
    this.#call = call
    this.#stream = stream
    this.#picture = stream.getVideoTracks().length === 0 ? 'none' : kind === 'screen' ? 'screen' : 'camera'
    this.#watchScreen()
    this.#setOut(missing)
    const showPeer = showPaths(client, call)
    this.#about = call.channel(ABOUT)
    chat(call, call.channel(CHAT))
    this.#about.addEventListener('open', this.#tell)
    this.#about.addEventListener('message', ({ data }) => {
      this.#theirs = read(data)
      showPeer(this.#theirs)
      this.#showRemote()
    })
    client.addEventListener('state', this.#tell)
    call.addEventListener('state', this.#showState)
    call.addEventListener('stream', ({ track }) => this.#takeTrack(track))
    for (const { track } of call.pc.getReceivers()) if (call.stream) this.#takeTrack(track)
    call.ended.then(() => this.#end())
    this.#showState()
  }

  /** Seconds since it was connected, if it was. */
  get seconds() {
    return this.#since && (Date.now() - this.#since) / 1000
  }

  #setOut(missing) {
    byId('idle').hidden = true
    byId('call').hidden = false
    byId('peer').textContent = this.#call.name
    byId('initial').textContent = initial(this.#call.name)
    byId('timer').textContent = ''
    byId('remote').srcObject = this.#remote
    byId('missing').hidden = missing.length === 0
    byId('missing').textContent = missing.length === 0 ? '' : `${missing.join(' ')} The call goes on with what there is.`
    byId('share').hidden = !canShareScreen()
    byId('mic').onclick = () => this.#toggleMicrophone()
    byId('camera').onclick = () => this.#setPicture(this.#picture === 'camera' ? 'none' : 'camera')
    byId('share').onclick = () => this.#setPicture(this.#picture === 'screen' ? this.#before : 'screen')
    byId('hangup').onclick = () => this.#call.hangup()
    this.#showLocal()
    this.#showRemote()
    byId('peer').focus({ preventScroll: true })
    byId('call').scrollIntoView({ block: 'nearest' })
  }

  // -------------------------------------------------------------------------------------------------------------------------------
  // What we send

  async #toggleMicrophone() {
    const [track] = this.#stream.getAudioTracks()
    if (track) track.enabled = !track.enabled
    else {
      const stream = await this.#get(getMicrophone, 'microphone')
      if (!stream) return
      this.#send(stream.getAudioTracks()[0])
    }
    this.#showLocal()
  }

  async #setPicture(picture) {
    const buttons = [byId('camera'), byId('share')]
    for (const button of buttons) button.disabled = true
    try {
      const get = { camera: getCamera, screen: getScreen }[picture]
      const stream = get && (await this.#get(get, picture))
      if (get && !stream) return
      for (const old of this.#stream.getVideoTracks()) {
        old.stop()
        this.#stream.removeTrack(old)
      }
      if (this.#picture !== 'screen') this.#before = this.#picture
      this.#picture = picture
      await this.#send(stream?.getVideoTracks()[0] ?? null)
      this.#watchScreen()
      this.#showLocal()
    } finally {
      for (const button of buttons) button.disabled = false
    }
  }

  /** In the place of what was sent before of that kind. */
  #send(track) {
    const { pc } = this.#call
    if (track) this.#stream.addTrack(track)
    const kind = track?.kind ?? 'video'
    const used = pc.getTransceivers().find((one) => one.receiver.track.kind === kind && /send/.test(one.direction))
    if (used) return used.sender.replaceTrack(track)
    if (track) pc.addTrack(track, this.#stream)
    return undefined
  }

  async #get(get, what) {
    try {
      return await get()
    } catch (error) {
      notify(mediaWords(error, what))
      return undefined
    }
  }

  /** Browsers have a button of their own to stop sharing. */
  #watchScreen() {
    const [track] = this.#stream.getVideoTracks()
    if (this.#picture === 'screen' && track) track.onended = () => this.#setPicture(this.#before)
  }

  #showLocal() {
    const hears = this.#stream.getAudioTracks().some((track) => track.enabled)
    dress(byId('mic'), hears ? 'mic' : 'mic-off', hears ? 'Mute' : 'Unmute')
    dress(byId('camera'), this.#picture === 'camera' ? 'video' : 'video-off', this.#picture === 'camera' ? 'Camera off' : 'Camera on')
    dress(byId('share'), 'screen', this.#picture === 'screen' ? 'Stop sharing' : 'Share screen')
    byId('mic').classList.toggle('off', !hears)
    byId('camera').classList.toggle('off', this.#picture !== 'camera')
    const local = byId('local')
    local.hidden = this.#picture === 'none'
    local.classList.toggle('screen-shared', this.#picture === 'screen')
    local.srcObject = this.#picture === 'none' ? null : new MediaStream(this.#stream.getVideoTracks())
    this.#tell()
  }

  #tell = () => {
    if (this.#about?.readyState !== 'open') return
    const { node, transport } = this.#client
    this.#about.send(JSON.stringify({ node, transport, picture: this.#picture }))
  }

  // -------------------------------------------------------------------------------------------------------------------------------
  // What we get

  #takeTrack(track) {
    if (this.#remote.getTrackById(track.id)) return
    this.#remote.addTrack(track)
    for (const event of ['mute', 'unmute', 'ended']) track.addEventListener(event, () => this.#showRemote())
    this.#showRemote()
    byId('remote')
      .play()
      .catch((error) => error.name === 'NotAllowedError' && this.#playLater())
  }

  /** Browsers let a page be heard only after it was touched. */
  #playLater() {
    notify(`Click anywhere to hear ${this.#call.name}.`)
    document.addEventListener('pointerdown', () => byId('remote').play(), { once: true })
  }

  #showRemote() {
    const sees = this.#remote.getVideoTracks().some((track) => track.readyState === 'live' && !track.muted) && this.#theirs.picture !== 'none'
    byId('blank').hidden = sees
    byId('remote').classList.toggle('whole', this.#theirs.picture === 'screen')
  }

  #showState = () => {
    const { state, direction, name } = this.#call
    byId('call-state').textContent = stateWords(state, direction)
    document.title = state === 'connected' ? `${name} · Switchboard` : 'Switchboard'
    if (state !== 'connected' || this.#since) return
    this.#since = Date.now()
    const tick = () => (byId('timer').textContent = clock(this.seconds))
    tick()
    this.#timer = setInterval(tick, 1000)
  }

  #end() {
    clearInterval(this.#timer)
    this.#client.removeEventListener('state', this.#tell)
    stop(this.#stream)
    for (const id of ['remote', 'local']) byId(id).srcObject = null
    byId('call').hidden = true
    byId('idle').hidden = false
    document.title = 'Switchboard'
  }
}

function read(data) {
  try {
    return JSON.parse(data) ?? {}
  } catch {
    return {}
  }
}
