// What the library is made of, for apps. `Session` is what there is without calls.

export { Call } from './call.js'
export { Channel } from './channel.js'
export { Client, connect } from './client.js'
export { SwitchboardError } from './errors.js'
export { Session } from './session.js'
export { version } from './version.js'
