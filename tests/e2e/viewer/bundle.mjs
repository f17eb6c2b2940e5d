// Bundles read_objects.mjs into one file that Node runs: node bundle.mjs OUTFILE
//
// The adapters are written for a web page's bundler (imports without extensions, CommonJS beside ESM), so Node cannot
// import them as they lie in node_modules.
import { build } from 'esbuild';

await build({
  entryPoints: [new URL('read_objects.mjs', import.meta.url).pathname],
  outfile: process.argv[2],
  bundle: true,
  platform: 'node',
  format: 'esm',
  logLevel: 'error',
  // CommonJS modules inside the bundle ask for a `require`, which an ES module does not have.
  banner: { js: "import { createRequire as nodeRequire } from 'node:module'; const require = nodeRequire(import.meta.url);" },
});
