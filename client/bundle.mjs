// Joins the modules of src/ into one file, as nodes do when they hand out the library. Each name at the top of a module
// is there once in all of them, so that nothing has to be renamed. Comments stay behind.
//
// node bundle.mjs OUT          the library
// node bundle.mjs OUT lite     the lite edition: lite.js stands in for src/world.js

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const SOURCES = fileURLToPath(new URL('src/', import.meta.url))

/** The modules that a module needs, before it. `instead` names files that stand in for modules. */
function ordered(name, instead, done = new Map(), path = []) {
  if (path.includes(name)) throw new Error(`${[...path, name].join(' → ')} is a circle`)
  if (done.has(name)) return done
  const text = readFileSync(join(SOURCES, instead[name] ?? name), 'utf8')
  for (const [, needed] of text.matchAll(/^(?:import|export) .*from '\.\/(.*)'$/gm))
    ordered(needed, instead, done, [...path, name])
  return done.set(name, text)
}

export function bundle({ lite = false } = {}) {
  const exported = []
  const modules = [...ordered('index.js', lite ? { 'world.js': '../lite.js' } : {}).values()].map((text) =>
    text
      .replace(/^export \{ (.*) \} from .*\n/gm, (_, names) => (exported.push(...names.split(', ')), ''))
      .replace(/^import .*\n/gm, '')
      .replace(/\/\*\*[^]*?\*\/ ?/g, '')
      .replace(/^ *\/\/.*\n/gm, '')
      .replace(/^ *\n/gm, '')
      .replace(/^export /gm, '')
      .trim(),
  )
  return `${modules.join('\n')}\nexport { ${exported.join(', ')} }\n`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const out = resolve(process.argv[2])
  mkdirSync(dirname(out), { recursive: true })
  writeFileSync(out, bundle({ lite: process.argv[3] === 'lite' }))
}
