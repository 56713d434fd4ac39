/**
 * The import rules of docs/architecture.md, section 1, as a table: what a package may import of the others.
 * Tests may import hv-sim and guest-lab anywhere.
 */
const allowed = {
  abi: [],
  glue: ['abi'],
  x86: ['abi'],
  'windows-profiles': ['abi'],
  'hv-sim': ['abi', 'glue', 'x86'],
  'core-hooks': ['abi', 'glue', 'x86'],
  exceptions: ['abi', 'x86'],
  windows: ['abi', 'glue', 'x86', 'windows-profiles', 'core-hooks', 'exceptions'],
  'guest-lab': ['abi', 'glue', 'x86', 'windows-profiles', 'hv-sim'],
};

const isTest = '(\\.test\\.ts$|^packages/[^/]+/(test|bench)/)';

const layers = Object.entries(allowed).flatMap(([name, imports]) => {
  const others = Object.keys(allowed).filter((other) => other !== name && !imports.includes(other));
  return [
    {
      name: `layers-${name}`,
      comment: `packages/${name} may import: ${imports.join(', ') || 'nothing of ours'}`,
      severity: 'error',
      from: { path: `^packages/${name}/`, pathNot: isTest },
      to: { path: `^(packages/(${others.join('|')})/|apps/)` },
    },
    {
      name: `layers-${name}-tests`,
      comment: `tests of packages/${name} may also import hv-sim and guest-lab`,
      severity: 'error',
      from: { path: `^packages/${name}/.*${isTest}` },
      to: {
        path: `^(packages/(${others.filter((other) => !['hv-sim', 'guest-lab', 'windows-profiles', 'x86', 'glue'].includes(other)).join('|') || '\\0'})/|apps/)`,
      },
    },
  ];
});

module.exports = {
  forbidden: [
    ...layers,
    {
      name: 'sim-decoder-only',
      comment: 'of x86 the machine may use the decoder only, so that machine and engine cannot share a mistake',
      severity: 'error',
      from: { path: '^packages/hv-sim/src/', pathNot: isTest },
      to: { path: '^packages/x86/src/', pathNot: '^packages/x86/src/decoder\\.ts$' },
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
      comment: 'these packages also run in a browser; what needs Node sits in a file named node.ts',
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
      comment: 'an import must resolve: the package is declared in package.json and exports what is asked for',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^|/)(dist|wasm|build|assembly|native|node_modules)/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['@introd/source', 'import', 'types', 'node', 'default'],
      extensions: ['.ts', '.js', '.mjs'],
    },
  },
};
