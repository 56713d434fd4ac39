import { readFileSync } from 'node:fs';
import * as coreHooks from '@introd/core-hooks';
import * as exceptions from '@introd/exceptions';
import * as guestLab from '@introd/guest-lab';
import * as windowsProfiles from '@introd/windows-profiles';
import ts from 'typescript';
import { expect, it } from 'vitest';
import * as windows from '../src/index.js';

const modules: Record<string, unknown> = {
  '@introd/core-hooks': coreHooks,
  '@introd/exceptions': exceptions,
  '@introd/guest-lab': guestLab,
  '@introd/windows': windows,
  '@introd/windows-profiles': windowsProfiles,
};

it('prints what the README says it prints', () => {
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const example = /```ts\n([\s\S]*?)```/.exec(readme)![1]!;
  const promised = [...example.matchAll(/^\/\/ (.*)$/gm)].map((match) => match[1]);
  const printed: string[] = [];
  const { outputText } = ts.transpileModule(example, {
    compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 },
  });
  new Function('require', 'exports', 'console', outputText)(
    (name: string) => modules[name],
    {},
    {
      log: (...values: unknown[]) => printed.push(values.join(' ')),
    },
  );
  expect(promised).toHaveLength(2);
  expect(printed).toEqual(promised);
});
