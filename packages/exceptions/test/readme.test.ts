import { readFileSync } from 'node:fs';
import * as exceptions from '@introd/exceptions';
import ts from 'typescript';
import { expect, it } from 'vitest';

it('prints what the README says it prints', () => {
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const example = /```ts\n([\s\S]*?)```/.exec(readme)![1]!;
  // Comments that begin a line at the left or inside the catch, right after a console.log, are its output.
  const promised = [...example.matchAll(/console\.log\([^\n]*\n\s*\/\/ ([^\n]*)/g)].map((match) => match[1]);
  const printed: string[] = [];
  const show = (value: unknown) =>
    typeof value === 'string'
      ? value
      : JSON.stringify(value)
          .replace(/"(\w+)":/g, ' $1: ')
          .replace(/,/g, ',')
          .replace(/}$/, ' }')
          .replace(/"/g, "'");
  const { outputText } = ts.transpileModule(example, {
    compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 },
  });
  new Function('require', 'exports', 'console', outputText)(
    () => exceptions,
    {},
    {
      log: (...values: unknown[]) => printed.push(values.map(show).join(' ')),
    },
  );
  expect(printed).toEqual(promised);
  expect(printed).toHaveLength(3);
});
