// React hooks: a client that lives as long as a component, and a call as state.

import { useCallback, useEffect, useState, useSyncExternalStore } from 'react'
import { Client } from 'switchboard-client'

/** @import { Call, CallOptions, ClientOptions, SwitchboardError } from 'switchboard-client' */

/**
 * A client that is connected while the component is there. With StrictMode, which mounts twice, the first one is closed
 * at once, before it has taken the name.
 *
 * @param {string} url
 * @param {ClientOptions & { name: string }} options read when `url` or `name` changes
 * @returns {{ client: Client | undefined, state: Client['state'], error: SwitchboardError | undefined, calls: readonly
 * Call[] }}
 */
export function useSwitchboard(url, options) {
  const [client, setClient] = useState(/** @type {Client | undefined} */ (undefined))
  const [error, setError] = useState(/** @type {SwitchboardError | undefined} */ (undefined))
  const [calls, setCalls] = useState(/** @type {readonly Call[]} */ ([]))
  const { name } = options
  useEffect(() => {
    let mine = /** @type {Client | undefined} */ (undefined)
    // After the second mounting of StrictMode: the name is taken once.
    const timer = setTimeout(() => {
      const made = (mine = new Client(url, options))
      made.addEventListener('call', ({ call }) => {
        setCalls((before) => [...before, call])
        call.ended.then(() => setCalls((before) => before.filter((one) => one !== call)))
      })
      setError(undefined)
      setClient(made)
      made.connect().catch((reason) => made === mine && setError(reason))
    })
    return () => {
      clearTimeout(timer)
      mine?.close()
      mine = undefined
      setClient(undefined)
      setCalls([])
    }
    // The options are an object that is new each time.
  }, [url, name])
  const state = useEvents(client, ['state'], () => client?.state ?? 'offline')
  return { client, state, error, calls }
}

/**
 * What becomes of a call, as state.
 *
 * @param {Call | undefined} call of `client.call()`, or one that rings
 * @returns {{ state: Call['state'] | undefined, stream: Call['stream'], reason: Call['reason'] }}
 */
export function useCall(call) {
  const state = useEvents(call, ['state'], () => call?.state)
  const stream = useEvents(call, ['stream'], () => call?.stream)
  const reason = useEvents(call, ['end'], () => call?.reason)
  return { state, stream, reason }
}

/**
 * @template T
 * @param {any} target
 * @param {string[]} types of events after which the value may be another
 * @param {() => T} value
 * @returns {T}
 */
function useEvents(target, types, value) {
  const subscribe = useCallback(
    (/** @type {() => void} */ changed) => {
      for (const type of types) target?.addEventListener(type, changed)
      return () => types.forEach((type) => target?.removeEventListener(type, changed))
    },
    [target],
  )
  return useSyncExternalStore(subscribe, value, value)
}
