// An incoming call: a dialog, a tone, and the title of the tab.

import { byId, dress, initial } from './dom.js'
import { kindWords } from './words.js'

const TITLE = document.title

/**
 * Asks whether to take a call. Ends by itself when the caller gives up.
 *
 * @param {import('/client/switchboard.js').Call} call
 * @param {'video'|'audio'|'screen'|'call'} kind what the caller has said that it will be; `call`: nothing
 * @returns {Promise<'video'|'audio'|'declined'|'gone'>}
 */
export function ring(call, kind) {
  const dialog = byId('ring')
  const withPicture = kind === 'video' || kind === 'call'
  byId('ring-title').textContent = `${call.name} calls you`
  byId('ring-kind').textContent = kindWords(kind)
  byId('ring-initial').textContent = initial(call.name)
  byId('accept-audio').hidden = !withPicture
  dress(byId('accept'), withPicture ? 'video' : 'audio', 'Accept')
  document.title = `${call.name} calls · ${TITLE}`
  const silence = sound()
  return new Promise((resolve) => {
    let asked = true
    const done = (answer) => {
      if (!asked) return
      asked = false
      silence()
      document.title = TITLE
      dialog.close()
      resolve(answer)
    }
    byId('accept').onclick = () => done(withPicture ? 'video' : 'audio')
    byId('accept-audio').onclick = () => done('audio')
    byId('decline').onclick = () => done('declined')
    // Escape is pressed too easily for what cannot be taken back.
    dialog.oncancel = (event) => event.preventDefault()
    call.ended.then(() => done('gone'))
    dialog.showModal()
    byId('accept').focus()
  })
}

/** Two soft tones, again and again, if the browser lets a page be heard that nobody has touched yet. Returns how to end them. */
function sound() {
  let context
  try {
    context = new AudioContext()
  } catch {
    return () => {}
  }
  const tone = () => {
    if (context.state !== 'running') return
    for (const [pitch, delay] of [
      [523, 0],
      [659, 0.22],
    ]) {
      const [oscillator, gain] = [context.createOscillator(), context.createGain()]
      const start = context.currentTime + delay
      oscillator.frequency.value = pitch
      gain.gain.setValueAtTime(0, start)
      gain.gain.linearRampToValueAtTime(0.12, start + 0.04)
      gain.gain.exponentialRampToValueAtTime(0.0001, start + 0.7)
      oscillator.connect(gain).connect(context.destination)
      oscillator.start(start)
      oscillator.stop(start + 0.75)
    }
    navigator.vibrate?.([180, 120, 180])
  }
  const first = setTimeout(tone, 100)
  const timer = setInterval(tone, 2200)
  return () => {
    clearTimeout(first)
    clearInterval(timer)
    context.close()
  }
}
