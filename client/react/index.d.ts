import type { Call, Client, ClientOptions, SwitchboardError } from 'switchboard-client'

/**
 * A client that is connected while the component is there. With StrictMode, which mounts twice, the name is taken once.
 * The options are read when `url` or `name` changes. `calls` are those that ring or were accepted, until they end.
 */
export declare function useSwitchboard(
  url: string,
  options: ClientOptions & { name: string },
): { client: Client | undefined; state: Client['state']; error: SwitchboardError | undefined; calls: readonly Call[] }

/** What becomes of a call, as state. */
export declare function useCall(call: Call | undefined): { state: Call['state'] | undefined; stream: Call['stream']; reason: Call['reason'] }
