import path from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import typiaTransformer from 'typia/lib/transform';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** One program for all files of the process: making one per file is what makes typia slow under test. */
let program;

function load() {
  if (program) return program;
  const file = path.join(root, 'tsconfig.json');
  const parsed = ts.parseJsonConfigFileContent(ts.readConfigFile(file, ts.sys.readFile).config, ts.sys, root);
  program = ts.createProgram(parsed.fileNames, {
    ...parsed.options,
    noEmit: false,
    sourceMap: false,
    declaration: false,
  });
  return program;
}

/** Vite plugin: compiles the files that use typia as the build does, with its transformer. */
export function typiaTransform() {
  return {
    name: 'introd-typia',
    enforce: 'pre',
    transform(code, id) {
      if (!id.endsWith('.ts') || !/from ['"]typia['"]/.test(code)) return null;
      const source = load().getSourceFile(id);
      if (!source) return null;
      let output;
      const errors = [];
      const transformer = typiaTransformer.default ?? typiaTransformer;
      load().emit(
        source,
        (name, text) => {
          if (name.endsWith('.js')) output = text;
        },
        undefined,
        false,
        {
          before: [transformer(load(), {}, { addDiagnostic: (d) => errors.push(d) })],
        },
      );
      if (errors.length > 0)
        throw new Error(errors.map((d) => ts.flattenDiagnosticMessageText(d.messageText, '\n')).join('\n'));
      return output === undefined ? null : { code: output, map: null };
    },
  };
}
