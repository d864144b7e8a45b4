import { parse } from './util.js'

/**
 * The server's own pings do not show in a browser, so that the library sends some of its own.
 * @param {import('./address.js').Address} address
 * @param {import('./link.js').World} world
 * @param {import('./link.js').Port} port
 */
export function webSocket(address, world, port) {
  const socket = new world.WebSocket(address.socket)
  /** @type {string[] | undefined} What is said before it is open. */
  let early = []
  socket.onopen = () => {
    for (const text of early ?? []) socket.send(text)
    early = undefined
  }
  socket.onmessage = (/** @type {{ data: string }} */ { data }) => port.hear(parse(data), data)
  socket.onclose = (/** @type {{ code: number, reason: string }} */ { code, reason }) =>
    port.end({ code, message: reason })
  socket.onerror = () => {}
  return {
    send(/** @type {string} */ text) {
      if (early) early.push(text)
      else if (socket.readyState === 1) socket.send(text)
    },
    close(/** @type {number} */ code, /** @type {string | number} */ why = code) {
      socket.onopen = socket.onmessage = socket.onclose = null
      socket.close(code)
      port.end({ code: why })
    },
  }
}
