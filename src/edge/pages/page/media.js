// Camera, microphone and screen: what there is, and plain words for what there is not.

import { mediaWords } from './words.js'

const CAMERA = { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: 'user' }
const MICROPHONE = { echoCancellation: true, noiseSuppression: true, autoGainControl: true }

export const canShareScreen = () => Boolean(navigator.mediaDevices?.getDisplayMedia)

/**
 * As much as can be had of what a call of that kind needs.
 *
 * @param {'video'|'audio'|'screen'} kind
 * @returns {Promise<{stream: MediaStream, missing: string[]}>} what is missing, in words
 */
export async function getMedia(kind) {
  const missing = []
  const tracks = []
  const take = async (what, get) => {
    try {
      tracks.push(...(await get()).getTracks())
      return true
    } catch (error) {
      missing.push(mediaWords(error, what))
      return false
    }
  }
  if (kind === 'screen') await take('screen', getScreen)
  // One question to the user rather than two, if both are there.
  const both = kind === 'video' && (await getBoth().catch(() => null))
  if (both) tracks.push(...both.getTracks())
  else {
    await take('microphone', () => getUser({ audio: MICROPHONE }))
    if (kind === 'video') await take('camera', getCamera)
  }
  // The same reason twice is one.
  return { stream: new MediaStream(tracks), missing: [...new Set(missing)] }
}

export const getCamera = () => getUser({ video: CAMERA })
export const getMicrophone = () => getUser({ audio: MICROPHONE })

export async function getScreen() {
  if (!canShareScreen()) throw insecure()
  return navigator.mediaDevices.getDisplayMedia({ video: true, audio: false })
}

export function stop(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop()
}

const getBoth = () => getUser({ audio: MICROPHONE, video: CAMERA })

async function getUser(constraints) {
  if (!navigator.mediaDevices?.getUserMedia) throw insecure()
  return navigator.mediaDevices.getUserMedia(constraints)
}

const insecure = () => Object.assign(new Error('no media devices'), { name: isSecureContext ? 'NotFoundError' : 'Insecure' })
