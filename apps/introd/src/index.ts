export { runCli } from './cli.js';
export type { CliHost } from './demo/command.js';
export { type DemoOptions, parseDemoOptions, type RawDemoOptions } from './demo/options.js';
export type {
  DemoAlert,
  DemoBoot,
  DemoFailure,
  DemoGuest,
  DemoOutcome,
  DemoProcess,
  DemoRecord,
  DemoScenario,
  DemoStart,
  DemoSummary,
} from './demo/record.js';
export { demoRecordSchema, isDemoRecord } from './demo/record-schema.js';
export { type DemoResult, type DemoSink, runDemo } from './demo/run.js';
export type { DemoTimings } from './demo/running-guest.js';
export type { DemoAttack } from './demo/scenarios.js';
export { CliError, type CliErrorCode, ExitCode } from './error.js';
