export { Access, accessText, isExpressible } from './access.js';
export {
  type Cr3,
  cr3,
  ENTRY_FRAME_MASK,
  type Gfn,
  GPA_LIMIT,
  type Gpa,
  type Gva,
  gfn,
  gfnOf,
  gpa,
  gpaOf,
  gva,
  isCanonical,
  PAGE_SIZE,
  rootOf,
  U64_MASK,
} from './address.js';
export {
  ALERT_SCHEMA_VERSION,
  type Alert,
  type AlertAttack,
  type AlertClass,
  type AlertCpu,
  type AlertEnvelope,
  type AlertFlag,
  type AlertModule,
  type AlertOriginator,
  type AlertProcess,
  type AlertReason,
  type AlertVersions,
  type AlertVictim,
  type AlertWrite,
  alertTime,
  type EptViolationAlert,
  type TranslationViolationAlert,
} from './alert.js';
export { alertJsonSchema, assertAlert, isAlert } from './alert-schema.js';
export { IntrodError, type IntrodErrorDetails } from './error.js';
export { DescriptorTable, ExitCause, ExitKind, Reply, ShutdownReason } from './exit.js';
export { type Hex64, hex64, parseHex64 } from './hex.js';
export { type JsonSchema, jsonSchemaDocument, type SchemaCollection } from './json-schema.js';
export { defineRecord, type FieldsOf, type FieldType, fieldSize, type RecordLayout } from './record-layout.js';
export type { FieldLayout, StructLayout } from './struct-layout.js';
export {
  createVcpuRecord,
  type Field32,
  type Field64,
  GENERAL_REGISTERS,
  type GeneralRegister,
  REPLY_DATA_SIZE,
  recordsSize,
  SEGMENT_NAMES,
  type SegmentName,
  u32Index,
  VCPU_RECORD,
  VCPU_RECORD_VERSION,
  VcpuRecord,
} from './vcpu-record.js';
export { strongerVerdict, Verdict } from './verdict.js';
export {
  FCW_INITIAL,
  FXSAVE_AREA_SIZE,
  MXCSR_INITIAL,
  MXCSR_MASK,
  XSAVE_AREA,
  XSAVE_HEADER_END,
  XStateComponent,
} from './xsave-area.js';
