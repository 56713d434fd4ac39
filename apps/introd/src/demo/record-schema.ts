import typia from 'typia';
import type { DemoRecord } from './record.js';

/** Whether a value is a line of `introd demo --json`. */
export const isDemoRecord: (value: unknown) => value is DemoRecord = typia.createIs<DemoRecord>();

/** JSON Schema (OpenAPI 3.1 components) of a line of `introd demo --json`, generated from {@link DemoRecord}. */
export const demoRecordSchema = typia.json.schemas<[DemoRecord], '3.1'>();
