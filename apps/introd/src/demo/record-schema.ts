import { type JsonSchema, jsonSchemaDocument } from '@introd/abi';
import typia from 'typia';
import type { DemoRecord } from './record.js';

/** Whether a value is a line of `introd demo --json`. */
export const isDemoRecord: (value: unknown) => value is DemoRecord = typia.createIs<DemoRecord>();

/** JSON Schema (draft 2020-12) of a line of `introd demo --json`, derived from the type {@link DemoRecord}. */
export const demoRecordSchema: JsonSchema = jsonSchemaDocument(
  'a line of introd demo --json',
  typia.json.schemas<[DemoRecord], '3.1'>(),
);
