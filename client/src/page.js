/**
 * What happens to the page that the library is in. A page that is frozen or in the back/forward cache hears nothing,
 * while the browser answers the server's pings for it; so its connection is closed, and what comes is kept by the
 * server.
 *
 * @param {AbortSignal} life
 * @param {{ awake(why: 'online' | 'change' | 'visible'): void, freeze(): void, thaw(): void, gone(): void }} port
 */
export function watchPage(life, port) {
  /** @type {(target: any, type: string, listener: (event: any) => void) => void} */
  const on = (target, type, listener) => target?.addEventListener?.(type, listener, { signal: life })
  const { document, navigator } = globalThis
  on(globalThis, 'online', () => port.awake('online'))
  // Some browsers say so too when they only have a new estimate, or when there is no network at all.
  on(/** @type {any} */ (navigator)?.connection, 'change', () => navigator.onLine && port.awake('change'))
  on(document, 'visibilitychange', () => document.hidden || port.awake('visible'))
  on(globalThis, 'pagehide', ({ persisted }) => (persisted ? port.freeze() : port.gone()))
  on(globalThis, 'pageshow', ({ persisted }) => persisted && port.thaw())
  on(document, 'freeze', () => port.freeze())
  on(document, 'resume', () => port.thaw())
}
