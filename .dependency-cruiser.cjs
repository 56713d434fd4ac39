/**
 * The import rules of docs/architecture.md, section 1, as a table: what a package may import of the others.
 */
const allowed = {
  abi: [],
  glue: ['abi'],
  x86: ['abi'],
  'windows-profiles': ['abi'],
  'hv-sim': ['abi', 'glue', 'x86'],
  'core-hooks': ['abi', 'glue', 'x86'],
  exceptions: ['abi'],
  windows: ['abi', 'glue', 'x86', 'windows-profiles', 'core-hooks', 'exceptions'],
  'guest-lab': ['abi', 'glue', 'x86', 'windows-profiles', 'hv-sim'],
};

/** What tests may import besides, in every package. */
const forTests = ['hv-sim', 'guest-lab'];

/** Tests and what lies beside them in a folder `test`; both only under `packages/<name>/`. */
const isTest = '(\\.test\\.ts$|^(packages|apps)/[^/]+/test/)';

/** A rule against every import of the other packages but those given, and of the program. */
const layer = (name, what, imports, from) => {
  const others = Object.keys(allowed).filter((other) => other !== name && !imports.includes(other));
  return {
    name: `layers-${what}`,
    comment: `${what} may import: ${imports.join(', ') || 'nothing of ours'}`,
    severity: 'error',
    from,
    to: { path: `^(packages/(${others.join('|')})|apps)/` },
  };
};

const layers = Object.entries(allowed).flatMap(([name, imports]) => [
  layer(name, name, imports, { path: `^packages/${name}/`, pathNot: isTest }),
  layer(name, `${name}-tests`, [...imports, ...forTests], {
    path: `^packages/${name}/(test/|.*\\.test\\.ts$)`,
  }),
]);

module.exports = {
  forbidden: [
    ...layers,
    {
      name: 'sim-decoder-only',
      comment:
        'of x86 the machine may use the decoder only, so that machine and engine cannot share a mistake; its tests ' +
        'also assemble code',
      severity: 'error',
      from: { path: '^packages/hv-sim/', pathNot: isTest },
      to: { path: '^packages/x86/src/', pathNot: '^packages/x86/src/decoder\\.ts$' },
    },
    {
      name: 'sim-tests-encoder-only',
      comment: 'a test of the machine must not judge it by what the engine believes',
      severity: 'error',
      from: { path: '^packages/hv-sim/(test/|.*\\.test\\.ts$)' },
      to: { path: '^packages/x86/src/', pathNot: '^packages/x86/src/(decoder|encoder)\\.ts$' },
    },
    {
      name: 'no-test-code-in-sources',
      comment: 'what is published does not need what lies in a test folder',
      severity: 'error',
      from: { path: '^(packages|apps)/[^/]+/src/', pathNot: isTest },
      to: { path: isTest },
    },
    {
      name: 'no-cycles',
      comment: 'a file may need the types of one that needs its own; at run time there is no cycle',
      severity: 'error',
      from: { pathNot: isTest },
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'browser-safe',
      comment:
        'our sources of these packages import nothing of Node; what needs it sits in a file named node.ts. (iced-x86, ' +
        'on which x86 stands, loads its WebAssembly with fs: a browser build has to bring its own way to load it.) ' +
        'The globals of Node are refused by .oxlintrc.json.',
      severity: 'error',
      from: { path: '^packages/(abi|x86|windows-profiles)/src/', pathNot: `(${isTest}|/node\\.ts$)` },
      to: { dependencyTypes: ['core'] },
    },
    {
      name: 'no-deep-imports',
      comment: 'another package is imported by its name, never by a path',
      severity: 'error',
      from: { path: '^(packages|apps)/([^/]+)/' },
      to: { path: '^(packages|apps)/', pathNot: '^$1/$2/', dependencyTypes: ['local'] },
    },
    {
      name: 'declared',
      comment:
        'an import must resolve: the package is declared in package.json and exports what is asked for. (A script may ' +
        'use the build of its own package, which is not there before the first build.)',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true, pathNot: '^\\.\\./dist/' },
    },
  ],
  options: {
    // Not excluded: an import into another package's dist or node_modules has to be seen to be refused.
    doNotFollow: { path: '(^|/)(node_modules|dist)/' },
    exclude: { path: '(^|/)(wasm|build|assembly|native)/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['@introd/source', 'import', 'types', 'node', 'default'],
      extensions: ['.ts', '.js', '.mjs'],
    },
  },
};
