/**
 * What happens to the page that the library is in. A page that is frozen or in the back/forward cache hears nothing, while the browser
 * answers the server's pings for it; so its connection is closed, and what comes is kept by the server.
 *
 * @param {AbortSignal} life
 * @param {{ awake(networkChanged: boolean): void, freeze(): void, thaw(): void, gone(): void }} port
 */
export function watchPage(life, port) {
  /** @type {(target: any, type: string, listener: (event: any) => void) => void} */
  const on = (target, type, listener) => target?.addEventListener?.(type, listener, { signal: life })
  const { document, navigator } = globalThis
  on(globalThis, 'online', () => port.awake(true))
  on(/** @type {any} */ (navigator)?.connection, 'change', () => port.awake(true))
  on(document, 'visibilitychange', () => document.hidden || port.awake(false))
  on(globalThis, 'pagehide', ({ persisted }) => (persisted ? port.freeze() : port.gone()))
  on(globalThis, 'pageshow', ({ persisted }) => persisted && port.thaw())
  on(document, 'freeze', () => port.freeze())
  on(document, 'resume', () => port.thaw())
}
