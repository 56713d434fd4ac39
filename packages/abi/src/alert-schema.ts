import typia from 'typia';
import type { Alert } from './alert.js';
import { type JsonSchema, jsonSchemaDocument } from './json-schema.js';

/** Whether a value is an alert of this version. */
export const isAlert: (value: unknown) => value is Alert = typia.createIs<Alert>();

/**
 * Checks that a value is an alert of this version.
 * @throws TypeGuardError of typia, with the path of the first property that is not as it must be.
 */
export const assertAlert: (value: unknown) => Alert = typia.createAssert<Alert>();

/** JSON Schema (draft 2020-12) of an alert, derived from the type {@link Alert}. */
export const alertJsonSchema: JsonSchema = jsonSchemaDocument('introd alert', typia.json.schemas<[Alert], '3.1'>());
