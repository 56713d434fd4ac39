/** A JSON Schema document. */
export type JsonSchema = { readonly [key: string]: unknown };

/** What typia's `json.schemas` gives for one type, in its 3.1 form. */
export interface SchemaCollection {
  readonly schemas: readonly object[];
  readonly components: { readonly schemas?: object };
}

/**
 * Makes a self-contained JSON Schema (draft 2020-12) of the first type of a collection.
 * @param title for people
 */
export function jsonSchemaDocument(title: string, collection: SchemaCollection): JsonSchema {
  return relocate({
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title,
    ...collection.schemas[0],
    $defs: collection.components.schemas,
  }) as JsonSchema;
}

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
