#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { runCli } from './cli.js';
import { ExitCode } from './error.js';

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // A reader that has seen enough (`| head`) is no error of ours.
  if (error.code === 'EPIPE') process.exit(ExitCode.OK);
  process.stderr.write(`error: cannot write the output: ${error.message}\n`);
  process.exit(ExitCode.USAGE);
});

const host = { stdout: process.stdout, stderr: process.stderr, exitCode: 0 };
runCli(process.argv.slice(2), host, version);
process.exitCode = host.exitCode;
