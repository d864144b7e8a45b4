// The package is a folder of this repository here: it has no React of its own. From npm it needs no `dedupe`.
export default {
  esbuild: { jsx: 'automatic' },
  resolve: { dedupe: ['react'] },
}
