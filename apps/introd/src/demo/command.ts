import { Command } from 'commander';
import { paletteFor } from '../terminal.js';
import { parseDemoOptions, type RawDemoOptions } from './options.js';
import type { DemoRecord } from './record.js';
import { runDemo } from './run.js';
import { textLines, timingLines } from './text.js';

/** Streams and the exit code of the process, so that the program can be run inside a test. */
export interface CliHost {
  readonly stdout: { write(text: string): unknown; readonly isTTY?: boolean };
  readonly stderr: { write(text: string): unknown; readonly isTTY?: boolean };
  exitCode: number;
}

/** `introd demo` */
export function demoCommand(host: CliHost): Command {
  return new Command('demo')
    .description('boot a lab guest, attach, run attacks in it and show what introd does about them')
    .option('--attack <which>', 'self-map: one form per target, chosen by the seed; all: every form; none', 'self-map')
    .option('--seed <number>', 'seed of the guest and of the choice of attacks, 0 to 4294967295', '1')
    .option('--policy <policy>', 'enforce, beta (tell, let through), off, or a policy file', 'enforce')
    .option('--exceptions <rules>', 'baseline, none, or a file of exception rules in HVMI JSON', 'baseline')
    .option('--json', 'one JSON object per line instead of text; the same bytes for the same options')
    .option(
      '--dump <file>',
      "write the guest's physical memory at the end: an ELF core if called .elf or .core, else raw",
    )
    .option('--hostile <guest>', 'run a broken guest instead: triple-fault, loop or cyclic-processes')
    .addHelpText(
      'after',
      `
Exit codes: 0 every attack was stopped or found in time and no legitimate program was touched;
1 not so (--policy off, for instance); 2 bad usage or input; 3 the guest failed.`,
    )
    .action((raw: RawDemoOptions & { json?: boolean }) => {
      const options = parseDemoOptions(raw);
      const palette = paletteFor(host.stdout);
      const print = raw.json
        ? (record: DemoRecord): unknown => host.stdout.write(`${JSON.stringify(record)}\n`)
        : (record: DemoRecord): unknown => host.stdout.write(`${textLines(record, palette).join('\n')}\n`);
      const result = runDemo(options, print);
      if (!raw.json) for (const line of timingLines(result)) host.stdout.write(`${line}\n`);
      host.exitCode = result.exitCode;
    });
}
