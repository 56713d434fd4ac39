import { IntrodError } from '@introd/abi';
import { Command, CommanderError } from 'commander';
import { type CliHost, demoCommand } from './demo/command.js';
import { CliError, ExitCode } from './error.js';
import { paletteFor } from './terminal.js';

/**
 * Runs the program with arguments (without node and script). Sets the host's exit code; never throws for bad usage or bad input.
 * @param version what `--version` prints
 */
export function runCli(args: readonly string[], host: CliHost, version: string): void {
  const program = new Command('introd')
    .description('Hypervisor memory introspection: watches and protects a running Windows guest from outside.')
    .version(version)
    .showHelpAfterError('(introd --help tells more)')
    .configureOutput({
      writeOut: (text) => host.stdout.write(text),
      writeErr: (text) => host.stderr.write(text),
    })
    .exitOverride();
  const demo = demoCommand(host).copyInheritedSettings(program);
  program.addCommand(demo);
  try {
    program.parse(args, { from: 'user' });
  } catch (error) {
    host.exitCode = tellError(error, host);
  }
}

/** Says what went wrong and returns the exit code. Errors that are not ours are bugs and go on. */
function tellError(error: unknown, host: CliHost): number {
  // Commander has printed its message already; --help and --version arrive here with exit code 0.
  if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.OK : ExitCode.USAGE;
  if (!(error instanceof IntrodError)) throw error;
  const { red } = paletteFor(host.stderr);
  const place = error.offset === undefined ? '' : ` (at offset ${error.offset})`;
  host.stderr.write(`${red('error')}: ${printable(error.message)}${place} [${error.code}]\n`);
  if (error.hint) host.stderr.write(`  ${error.hint}\n`);
  return error instanceof CliError ? error.exitCode : ExitCode.USAGE;
}

/** A message may quote a file; what could move a terminal's cursor is left out. */
function printable(text: string): string {
  return text.replaceAll(/[^\P{C}\n]/gu, '?');
}
