import type { Access, AlertReason } from '@introd/abi';
import type { KernelObjectName } from './kernel-rule.js';

/** An image in kernel memory, as far as rules look at it. */
export interface KernelImage {
  /** Hash of {@link originatorHash}; an implementation may compute it when first asked. */
  readonly nameHash: number;
}

/** A place in kernel code. */
export interface KernelCode {
  readonly rip: bigint;
  /** The image that holds it; `undefined` when none does. */
  readonly image: KernelImage | undefined;
  /** Name of the section of that image; `undefined` when unknown. */
  readonly section: string | undefined;
  /** Whether it is the entry point of a driver that is being started. */
  readonly isEntryPoint?: boolean;
}

/** May kernel code do this to that object? */
export interface KernelQuery {
  readonly kind: 'kernel';
  /** The code that did it. */
  readonly originator: KernelCode;
  /** The code that it returns to, when that is another place; `undefined` when unknown. */
  readonly returnsTo: KernelCode | undefined;
  readonly victim: {
    readonly object: Exclude<KernelObjectName, 'any'>;
    /** The image that is or holds the victim, where there is one. */
    readonly image?: KernelImage;
    /** How it was noticed. */
    readonly zone: 'ept' | 'integrity';
    readonly access: Access;
    /** Known to be set up already: an old value of 0 does not mean then that it is being initialised. */
    readonly initialised?: boolean;
  };
  /** Old and new bytes, at most 64 of each, same length. Empty for an execution. */
  readonly oldValue: Uint8Array;
  readonly newValue: Uint8Array;
  /** Width of the guest. */
  readonly bits: 32 | 64;
}

/** What is done with violations while no rules are loaded: the original lets them pass. */
export type WithoutRules = 'allow' | 'block';

/** Answer to a query. */
export interface Decision {
  readonly action: 'allowed' | 'not-allowed';
  /** Behaviour 1.5.1. */
  readonly reason: AlertReason;
  /** Name of the rule that allowed it. */
  readonly rule?: string;
}
