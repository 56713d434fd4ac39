export { baselineRules } from './baseline.js';
export { ExceptionsEngine } from './engine.js';
export { ExceptionsError, type ExceptionsErrorCode } from './error.js';
export type { KernelObjectName } from './kernel-rule.js';
export { hashImageName, NO_NAME, originatorHash, PredefinedName } from './name-hash.js';
export type { Decision, KernelCode, KernelImage, KernelQuery, WithoutRules } from './query.js';
export type { RuleSource } from './source.js';
