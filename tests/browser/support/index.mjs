// What browser tests are made of.

export * from './chromium.mjs'
export * from './cluster.mjs'
export * from './files.mjs'
export * from './firefox.mjs'
export * from './haproxy.mjs'
export * from './network.mjs'
export * from './processes.mjs'
export * from './proxy.mjs'
export * from './roaming.mjs'
export * from './caller.mjs'
