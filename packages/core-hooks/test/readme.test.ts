import { readFileSync } from 'node:fs';
import * as abi from '@introd/abi';
import * as sim from '@introd/hv-sim';
import ts from 'typescript';
import { expect, it } from 'vitest';
import * as core from '../src/index.js';

const PACKAGES: Readonly<Record<string, object>> = {
  '@introd/abi': abi,
  '@introd/core-hooks': core,
  '@introd/hv-sim': sim,
};

it('prints what the README says that its first example prints', () => {
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const example = /```ts\n([\s\S]*?)```/.exec(readme)![1]!;
  const promised = /console\.log\([^\n]*\n\s*\/\/ ([^\n]*)/.exec(example)![1];
  const { outputText } = ts.transpileModule(example, {
    compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 },
  });
  const printed: string[] = [];
  const log = (text: string): void => {
    printed.push(text);
  };
  new Function('require', 'exports', 'console', outputText)((name: string) => PACKAGES[name], {}, { log, error: log });
  expect(printed).toEqual([promised]);
});
