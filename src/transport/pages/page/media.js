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
  const failures = []
  const tracks = []
  const take = async (what, get) => {
    try {
      tracks.push(...(await get()).getTracks())
    } catch (error) {
      failures.push({ error, what })
    }
  }
  if (kind === 'screen') await take('screen', getScreen)
  if (kind === 'video') {
    // One question to the user rather than two, if both are there; and none again after a no.
    await take('camera or microphone', getBoth)
    if (tracks.length === 0 && failures[0].error.name !== 'NotAllowedError') {
      failures.length = 0
      await take('microphone', getMicrophone)
      await take('camera', getCamera)
    }
  } else await take('microphone', getMicrophone)
  return { stream: new MediaStream(tracks), missing: words(failures) }
}

/** The same reason twice is one. */
function words(failures) {
  const [first, second] = failures
  if (second && first.error.name === second.error.name) return [mediaWords(first.error, `${second.what} or ${first.what}`)]
  return failures.map(({ error, what }) => mediaWords(error, what))
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
