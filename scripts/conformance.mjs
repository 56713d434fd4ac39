// The conformance table docs/conformance.md, made from the results of a test run: which tests showed each step of an exit and each
// property of the hook layers (scripts/conformance-steps.mjs).
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { LAYERS, NOT_APPLICABLE, STEPS } from './conformance-steps.mjs';
import { root } from './prepare.mjs';

const file = path.join(root, 'docs', 'conformance.md');
const name = String.raw`(?:P\d+\.\d+|1\.2\.\d+(?:-\d+| [A-Za-z0-9]+)?)`;
const TAGS = new RegExp(String.raw`\s*\[(${name}(?:, ?${name})*)\]`, 'g');

/** Names in square brackets in a title, and the title without them. */
function parseTitle(title) {
  const names = [...title.matchAll(TAGS)].flatMap((match) => match[1].split(/, ?/));
  return { names, text: title.replaceAll(TAGS, '').trim() };
}

/** The test files that say what they show; the page is made from these alone. */
export function conformanceTests() {
  const folders = ['packages', 'apps'].flatMap((kind) =>
    readdirSync(path.join(root, kind)).flatMap((name) =>
      ['src', 'test'].map((part) => path.join(root, kind, name, part)),
    ),
  );
  return folders
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder, { recursive: true }).map((file) => path.join(folder, file)))
    .filter((file) => file.endsWith('.test.ts') && parseTitle(readFileSync(file, 'utf8')).names.length > 0)
    .map((file) => path.relative(root, file))
    .sort();
}

/** Tests that passed, by the name that they show: file -> titles. */
function collect(report) {
  const shown = new Map();
  for (const suite of report.testResults) {
    const where = path.relative(root, suite.name).split(path.sep).join('/');
    for (const test of suite.assertionResults) {
      if (test.status !== 'passed') continue;
      // What a test says begins with what it is about.
      const { names, text } = parseTitle([...test.ancestorTitles, test.title].join(' '));
      for (const one of names) {
        const files = shown.get(one) ?? new Map();
        shown.set(one, files);
        const titles = files.get(where) ?? new Set();
        files.set(where, titles);
        titles.add(text);
      }
    }
  }
  return shown;
}

const cell = (text) => text.replaceAll('|', '\\|').replaceAll(/\s+/g, ' ');

/** Tests as a table cell: of each file the first title by name, and whether there are others. */
function evidence(files) {
  return [...files]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([where, titles]) => {
      const [first] = [...titles].sort();
      return `\`${where}\`: ${cell(first)}${titles.size > 1 ? ', and others' : ''}`;
    })
    .join('<br>');
}

/** The page, and what is wrong with the tests that it is made from. */
function makePage(report) {
  const shown = collect(report);
  const problems = [];
  const row = (id, what, reason) => {
    const files = shown.get(id);
    shown.delete(id);
    if (files && reason) problems.push(`${id} is listed as not applicable, but a test shows it`);
    if (!files && !reason) problems.push(`no test shows ${id}`);
    const cells = [
      id,
      ...(what === undefined ? [] : [cell(what)]),
      files ? evidence(files) : `Not applicable: ${reason ?? ''}`,
    ];
    return `| ${cells.join(' | ')} |`;
  };
  const lines = [
    '# Conformance',
    '',
    'Made by `npm run conformance` from the results of the tests; a full `npm test` fails when it is not up to date.',
    'A test says what it shows by a name in square brackets at the end of its title.',
    '',
    '## The journey of an exit',
    '',
    '| step | what happens | shown by |',
    '|---|---|---|',
    ...STEPS.map(([id, what, reason]) => row(id, what, reason)),
  ];
  lines.push('', '## Properties of the layers');
  for (const [layer, title, properties] of LAYERS) {
    lines.push('', `### ${title}`, '', '| property | what holds | shown by |', '|---|---|---|');
    for (const [at, what] of properties.entries()) {
      const id = `P${layer}.${at + 1}`;
      lines.push(row(id, what, NOT_APPLICABLE[id]));
    }
  }
  for (const [id, files] of shown) {
    problems.push(`${[...files.keys()].join(', ')} shows ${id}, which scripts/conformance-steps.mjs does not have`);
  }
  return { page: `${lines.join('\n')}\n`, problems };
}

/**
 * Compares docs/conformance.md with the results of a full test run, or writes it.
 * @returns what is wrong, a line each
 */
export function conformance(report, write) {
  const { page, problems } = makePage(report);
  if (write) {
    writeFileSync(file, page);
    return problems;
  }
  let current = '';
  try {
    current = readFileSync(file, 'utf8');
  } catch {
    // A missing page is one that is not up to date.
  }
  return current === page ? problems : [...problems, 'docs/conformance.md is not up to date: npm run conformance'];
}
