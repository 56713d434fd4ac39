import type { Engine } from '@introd/core-hooks';
import type { ExceptionsEngine, WithoutRules } from '@introd/exceptions';
import type { Capability } from '@introd/glue';
import type { AlertWriter } from '../alert-writer.js';
import type { GuestInfo } from '../guest-info.js';
import type { DriverList } from '../objects/driver-list.js';
import type { WindowsProcess } from '../objects/process.js';
import type { ProcessTable } from '../objects/process-table.js';
import type { ProtectionMode } from '../policy.js';
import type { ProtectionId } from './index.js';

/** What a protection cannot do without. */
export interface ProtectionNeeds {
  /** Capabilities of the backend. */
  readonly capabilities: readonly Capability[];
  /** Structures, fields and symbols, by the names of the profile. */
  readonly profile: readonly string[];
}

/** What a protection works with. */
export interface ProtectionContext {
  readonly engine: Engine;
  readonly info: GuestInfo;
  readonly exceptions: ExceptionsEngine;
  readonly mode: Exclude<ProtectionMode, 'off'>;
  readonly withoutRules: WithoutRules;
  readonly processes: ProcessTable;
  readonly drivers: DriverList;
  readonly alerts: AlertWriter;
  /** Tells the operator about something that the protection cannot do. */
  problem(message: string): void;
}

/**
 * One protection over one guest. Its folder holds what it watches, how it decides, the alert it sends, its tests and a
 * README of half a page; the list in `index.ts` names it. Each method is called only while it is enabled.
 */
export interface Protection {
  readonly id: ProtectionId;
  readonly needs: ProtectionNeeds;
  /** Switches it on. The processes that exist are reported by {@link processAppeared} right after. */
  enable(context: ProtectionContext): void;
  /** Switches it off and leaves nothing behind in the guest. */
  disable(): void;
  /** Called each second of guest time, after the list of processes was read anew. */
  tick?(): void;
  /** A process was seen for the first time. */
  processAppeared?(process: WindowsProcess): void;
  /** A process is not there any more. */
  processGone?(process: WindowsProcess): void;
}
