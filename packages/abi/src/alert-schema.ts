import typia from 'typia';
import type { Alert } from './alert.js';

/** Whether a value is an alert of this version. */
export const isAlert: (value: unknown) => value is Alert = typia.createIs<Alert>();

/**
 * Checks that a value is an alert of this version.
 * @throws TypeGuardError of typia, with the path of the first property that is not as it must be.
 */
export const assertAlert: (value: unknown) => Alert = typia.createAssert<Alert>();

/** A JSON Schema document. */
export type JsonSchema = { readonly [key: string]: unknown };

const collection = typia.json.schemas<[Alert], '3.1'>();

/** JSON Schema (draft 2020-12) of an alert, derived from the type {@link Alert}. */
export const alertJsonSchema: JsonSchema = relocate({
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: 'introd alert',
  ...collection.schemas[0],
  $defs: collection.components.schemas,
}) as JsonSchema;

/** Makes OpenAPI into JSON Schema: definitions lie under `$defs`, and `discriminator` is no keyword of it. */
function relocate(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(relocate);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([key, member]) => member !== undefined && key !== 'discriminator');
  return Object.fromEntries(
    entries.map(([key, member]) => [
      key,
      key === '$ref' && typeof member === 'string'
        ? member.replace('#/components/schemas/', '#/$defs/')
        : relocate(member),
    ]),
  );
}
