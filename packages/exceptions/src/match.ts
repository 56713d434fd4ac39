import { Access, type AlertReason } from '@introd/abi';
import { KERNEL_OBJECTS, type KernelRule, RuleFlag } from './kernel-rule.js';
import { NO_NAME, PredefinedName } from './name-hash.js';
import type { KernelCode, KernelImage, KernelQuery } from './query.js';

/** Section that holds the code which only runs while an image is started. */
const INIT_SECTION = 'INIT';

/** Hash of the image that holds a place in code, {@link NO_NAME} when none does. */
export function hashOf(code: KernelCode | undefined): number {
  return code?.image?.nameHash ?? NO_NAME;
}

/**
 * Whether one rule fits a query (behaviour 1.5.7, kernel victim); who did it has been compared already.
 * @returns `allowed` or `allowed-feedback` when it does; how far it got when it reached its signatures; `undefined` when it does not fit
 */
export function matchKernelRule(rule: KernelRule, query: KernelQuery): AlertReason | undefined {
  const { flags } = rule;
  const { victim, originator, returnsTo } = query;
  if ((accessOf(flags) & victim.access) === 0) return undefined;
  if (flags & RuleFlag.INTEGRITY && victim.zone !== 'integrity') return undefined;
  if (flags & RuleFlag.NON_DRIVER && originator.image !== undefined) return undefined;
  const width = query.bits === 32 ? RuleFlag.BITS_32 : RuleFlag.BITS_64;
  if ((flags & width) === 0) return undefined;
  const actor = flags & RuleFlag.RETURN_DRV ? (returnsTo?.image ?? originator.image) : originator.image;
  if (!victimNameFits(rule.victim, victim.image, actor)) return undefined;
  if (rule.object !== KERNEL_OBJECTS.any && rule.object !== KERNEL_OBJECTS[victim.object]) return undefined;
  if (flags & RuleFlag.INIT && !isInitialisation(query)) return undefined;
  // A rule whose signatures are not known never fits: ignoring them would widen it.
  if (rule.signatures.length > 0) return 'signature-not-matched';
  return flags & RuleFlag.FEEDBACK ? 'allowed-feedback' : 'allowed';
}

function accessOf(flags: number): Access {
  return (
    (flags & RuleFlag.READ ? Access.READ : 0) |
    (flags & RuleFlag.WRITE ? Access.WRITE : 0) |
    (flags & RuleFlag.EXEC ? Access.EXECUTE : 0)
  );
}

function victimNameFits(wanted: number, victim: KernelImage | undefined, actor: KernelImage | undefined): boolean {
  switch (wanted) {
    case PredefinedName.ANY:
      return true;
    case PredefinedName.NONE:
      return victim === undefined;
    case PredefinedName.OWN:
      return victim !== undefined && actor !== undefined && victim.nameHash === actor.nameHash;
    default:
      return victim?.nameHash === wanted;
  }
}

function isKernelStartUp(code: KernelCode | undefined): boolean {
  return code?.image?.nameHash === PredefinedName.KERNEL && code.section === INIT_SECTION;
}

function isInitialisation(query: KernelQuery): boolean {
  return (
    isKernelStartUp(query.returnsTo) ||
    isKernelStartUp(query.originator) ||
    (query.returnsTo ?? query.originator).isEntryPoint === true ||
    (query.victim.initialised !== true && query.oldValue.length > 0 && query.oldValue.every((byte) => byte === 0))
  );
}

/** Most bytes of a written value that are compared and reported (behaviour 1.5.4). */
const MAX_VALUE_BYTES = 64;

/** Whether a write through the second-level tables changes nothing. */
export function isSameValue(query: KernelQuery): boolean {
  const { oldValue, newValue, victim } = query;
  if (victim.zone !== 'ept' || (victim.access & Access.WRITE) === 0 || oldValue.length === 0) return false;
  if (oldValue.length !== newValue.length) return false;
  const length = Math.min(oldValue.length, MAX_VALUE_BYTES);
  for (let i = 0; i < length; i += 1) if (oldValue[i] !== newValue[i]) return false;
  return true;
}
