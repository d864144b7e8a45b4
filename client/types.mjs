// Writes switchboard.d.ts: what `tsc` says of the modules of src/, in one file, without what is @internal.
//
// node types.mjs           writes it
// node types.mjs check     fails if it would write something else

import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const HERE = fileURLToPath(new URL('.', import.meta.url))
const OUT = join(HERE, 'switchboard.d.ts')
/** Modules whose types apps see, and what of them. */
const SEEN = {
  errors: ['SwitchboardError'],
  events: ['Emitter'],
  channel: ['Channel'],
  call_media: ['CallMedia'],
  call: ['Call'],
  session: ['Session'],
  client: ['Client', 'connect'],
  version: ['version'],
}

// The tests have it.
const ts = createRequire(join(HERE, '../tests/browser/package.json'))('typescript')

function emitted() {
  const { config } = ts.readConfigFile(join(HERE, 'tsconfig.json'), ts.sys.readFile)
  const { options, fileNames } = ts.parseJsonConfigFileContent(config, ts.sys, HERE)
  const texts = {}
  const host = ts.createCompilerHost(options)
  host.writeFile = (path, text) => (texts[basename(path, '.d.ts')] = text)
  ts.createProgram(
    fileNames,
    { ...options, noEmit: false, declaration: true, emitDeclarationOnly: true, outDir: '/' },
    host,
  ).emit()
  return texts
}

/** A file without imports and @internal members. A constructor that is internal is protected. */
function seen(text, names) {
  const file = ts.createSourceFile('seen.d.ts', text, ts.ScriptTarget.ES2022, true)
  const cut = []
  const isInternal = (node) => ts.getJSDocTags(node).some(({ tagName }) => tagName.text === 'internal')
  for (const statement of file.statements) {
    const name = statement.name?.text ?? statement.declarationList?.declarations[0].name.text
    if (names && !names.includes(name)) cut.push([statement.getFullStart(), statement.end, ''])
    else if (!names && ts.isImportDeclaration(statement)) cut.push([statement.getFullStart(), statement.end, ''])
    else if (names) {
      // Of the comments before it, the last one is about it.
      const comments = ts.getLeadingCommentRanges(text, statement.getFullStart()) ?? []
      cut.push([statement.getFullStart(), comments.at(-1)?.pos ?? statement.getStart(), '\n'])
    }
    for (const member of statement.members ?? []) {
      const isOurs = ts.isPropertyDeclaration(member) && !ts.isPrivateIdentifier(member.name) && !member.modifiers
      if (!isInternal(member)) {
        if (isOurs) cut.push([member.getStart(), member.getStart(), 'readonly '])
        continue
      }
      cut.push([
        member.getFullStart(),
        member.end,
        ts.isConstructorDeclaration(member) ? '\n    protected constructor();' : '',
      ])
    }
  }
  for (const [from, to, instead] of cut.sort(([one], [other]) => other - one))
    text = text.slice(0, from) + instead + text.slice(to)
  return text
    .replace(/^export (?=class|function|const)/gm, 'export declare ')
    .replace(/import\("\.\/\w+\.js"\)\./g, '')
    .trim()
}

const texts = emitted()
const own = seen(readFileSync(join(HERE, 'src/types.d.ts'), 'utf8'))
const classes = Object.entries(SEEN).map(([module, names]) => seen(texts[module], names))
// TypeScript writes no member of JavaScript whose name is worked out.
const disposable = classes.map((text) =>
  text.replace(/^ {4}close\(\): void;\n/m, (line) =>
    text.includes('class Session') ? `${line}    [Symbol.asyncDispose](): Promise<void>;\n` : line,
  ),
)
const text = `// Made of what is in src/, by types.mjs.\n\nexport {}\n\n${own}\n\n${disposable.join('\n\n')}\n`
if (process.argv[2] !== 'check') writeFileSync(OUT, text)
else if (readFileSync(OUT, 'utf8') !== text) {
  console.error('switchboard.d.ts is not what src/ says: node client/types.mjs')
  process.exit(1)
}
