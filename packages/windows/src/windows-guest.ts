import { type Alert, alertTime, cr3, gva } from '@introd/abi';
import type { CrWriteEvent, Engine, RegisterHook, TickHook } from '@introd/core-hooks';
import type { ExceptionsEngine } from '@introd/exceptions';
import { supports } from '@introd/glue';
import type { GuestProfile, ProfileStore } from '@introd/windows-profiles';
import { AlertWriter } from './alert-writer.js';
import { discover } from './discovery/discovery.js';
import type { GuestInfo } from './guest-info.js';
import { DriverList } from './objects/driver-list.js';
import type { WindowsProcess } from './objects/process.js';
import { ProcessReader } from './objects/process-reader.js';
import { ProcessTable } from './objects/process-table.js';
import type { Policy } from './policy.js';
import { PROTECTION_IDS, type ProtectionId, protectionFactories } from './protections/index.js';
import type { Protection } from './protections/protection.js';
import { addressSpace } from './virtual-memory.js';

/** Most looks at a guest that has a kernel-like system call handler but no Windows behind it (windows.md 1.1). */
const MAX_TRIES = 32;

/**
 * How far the engine got with a guest. `searching`: waiting for a moment at which its kernel shows. `found`: known and
 * protected. `unsupported`: it is something that cannot be handled. `failed`: it should be possible, but what the guest
 * shows makes no sense; what was protected stays protected.
 */
export type GuestState = 'searching' | 'found' | 'unsupported' | 'failed';

/** How a protection stands. */
export interface ProtectionStatus {
  readonly id: ProtectionId;
  readonly state: 'on' | 'off' | 'beta' | 'feedback';
  /** Why it is off although the policy wants it. */
  readonly reason?: string;
}

/** Something that happened, beside alerts. */
export type WindowsEvent =
  | { readonly type: 'state'; readonly state: GuestState; readonly reason?: string }
  | { readonly type: 'process-started' | 'process-ended'; readonly process: WindowsProcess }
  | { readonly type: 'problem'; readonly message: string };

/** What a {@link WindowsGuest} is given. */
export interface WindowsGuestOptions {
  /** The kernels that are known. */
  readonly profiles: ProfileStore;
  readonly exceptions: ExceptionsEngine;
  readonly policy: Policy;
  /** Receives each alert, during the exit that caused it. What it throws is reported as a problem. */
  onAlert(alert: Alert): void;
  /** Receives everything else. What it throws is ignored. */
  onEvent?(event: WindowsEvent): void;
}

interface Watched {
  readonly info: GuestInfo;
  readonly processes: ProcessTable;
}

/**
 * The Windows in a guest: finds its kernel as soon as it shows, mirrors its processes, and runs the protections. It
 * works inside the engine's exits only, and what the guest does never makes it throw.
 */
export class WindowsGuest {
  readonly #engine: Engine;
  readonly #options: WindowsGuestOptions;
  #state: GuestState = 'searching';
  #stateReason: string | undefined;
  #tries = 0;
  #cr3Hook: RegisterHook | undefined;
  #tickHook: TickHook | undefined;
  #watched: Watched | undefined;
  #alerts: AlertWriter | undefined;
  #enabled: Protection[] = [];
  #protections: ProtectionStatus[];
  #closed = false;

  constructor(engine: Engine, options: WindowsGuestOptions) {
    this.#engine = engine;
    this.#options = options;
    this.#protections = PROTECTION_IDS.map((id) => {
      const wanted = options.policy.protections[id];
      return wanted === 'off' ? { id, state: 'off' } : { id, state: 'off', reason: 'the guest is not found yet' };
    });
    this.#cr3Hook = engine.hooks.cr.set(3, (event) => this.#onCr3Write(event));
    engine.beforeReply({ name: 'alerts', run: () => this.#alerts?.release() });
  }

  get state(): GuestState {
    return this.#state;
  }

  /** Why the state is what it is; while searching, what was in the way at the last look. */
  get stateReason(): string | undefined {
    return this.#stateReason;
  }

  /** What is known about the guest, once it is found. */
  get info(): GuestInfo | undefined {
    return this.#watched?.info;
  }

  /** The processes that were there at the last tick, System first. */
  get processes(): readonly WindowsProcess[] {
    return this.#watched?.processes.list ?? [];
  }

  get protections(): readonly ProtectionStatus[] {
    return this.#protections;
  }

  /** Switches everything off and forgets the guest. A second call does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#cr3Hook?.remove();
    this.#tickHook?.remove();
    for (const protection of this.#enabled) protection.disable();
    this.#enabled = [];
    this.#protections = this.#protections.map(({ id }) => ({ id, state: 'off', reason: 'closed' }));
  }

  #onCr3Write(event: CrWriteEvent): void {
    if (this.#closed || this.#state !== 'searching') return;
    const { port } = this.#engine;
    // Structures must not change while they are put together.
    port.pause();
    try {
      const result = discover(event.vcpu, cr3(event.newValue), this.#engine.memory, this.#options.profiles);
      switch (result.status) {
        case 'too-early':
          this.#stateReason = result.reason;
          return;
        case 'not-found':
          this.#tries += 1;
          this.#stateReason = result.reason;
          if (this.#tries >= MAX_TRIES) this.#giveUp('failed', `${result.reason} (${MAX_TRIES} looks)`);
          return;
        case 'unsupported':
          this.#giveUp('unsupported', result.reason);
          return;
        case 'found':
          this.#watch(result.info, result.profile);
      }
    } finally {
      port.resume();
    }
  }

  #giveUp(state: GuestState, reason: string): void {
    this.#cr3Hook?.remove();
    this.#setState(state, reason);
    this.#protections = this.#protections.map(({ id }) => ({ id, state: 'off', reason }));
  }

  #watch(info: GuestInfo, profile: GuestProfile): void {
    this.#cr3Hook?.remove();
    const kernel = addressSpace(this.#engine.memory, info.systemCr3);
    const processes = new ProcessTable(
      kernel,
      info.systemCr3,
      gva(info.kernelBase + BigInt(profile.symbol('PsActiveProcessHead'))),
      new ProcessReader(profile, info.kptiActive),
    );
    this.#watched = { info, processes };
    this.#engine.addressSpaces = processes;
    this.#setState('found', undefined);
    this.#enableProtections(profile, info, processes, new DriverList(kernel, profile, info));
    this.#readProcesses(processes);
    this.#tickHook = this.#engine.hooks.tick.set(() => this.#onTick(processes));
  }

  #enableProtections(profile: GuestProfile, info: GuestInfo, processes: ProcessTable, drivers: DriverList): void {
    const { exceptions, policy } = this.#options;
    const now = () => alertTime(this.#engine.port.clockOrigin, this.#engine.time);
    const alerts = new AlertWriter(info, exceptions, now, (alert) => this.#sendAlert(alert));
    this.#alerts = alerts;
    this.#protections = PROTECTION_IDS.map((id): ProtectionStatus => {
      const mode = policy.protections[id];
      if (mode === 'off') return { id, state: 'off' };
      const protection: Protection = protectionFactories[id]();
      const { needs } = protection;
      const lacking = needs.capabilities.filter((capability) => !supports(this.#engine.port, capability));
      if (lacking.length > 0) return { id, state: 'off', reason: `the backend cannot do ${lacking.join(', ')}` };
      const missing = profile.missing(needs.profile);
      if (missing.length > 0) return { id, state: 'off', reason: `the profile lacks ${missing.join(', ')}` };
      protection.enable({
        engine: this.#engine,
        info,
        exceptions,
        mode,
        withoutRules: policy.withoutRules,
        processes,
        drivers,
        alerts,
        problem: (message) => this.#tell({ type: 'problem', message }),
      });
      this.#enabled.push(protection);
      return { id, state: mode === 'enforce' ? 'on' : mode };
    });
  }

  #onTick(processes: ProcessTable): void {
    this.#engine.port.pause();
    try {
      this.#readProcesses(processes);
      for (const protection of this.#enabled) protection.tick?.();
    } finally {
      this.#engine.port.resume();
    }
  }

  /** Reads the list of processes anew. While it cannot be trusted, the processes known so far stay protected. */
  #readProcesses(processes: ProcessTable): void {
    const changes = processes.refresh();
    if (changes.status === 'problem') {
      this.#setState('failed', changes.reason);
      return;
    }
    this.#setState('found', undefined);
    for (const process of changes.gone) {
      for (const protection of this.#enabled) protection.processGone?.(process);
      this.#tell({ type: 'process-ended', process });
    }
    for (const process of changes.appeared) {
      for (const protection of this.#enabled) protection.processAppeared?.(process);
      this.#tell({ type: 'process-started', process });
    }
  }

  #setState(state: GuestState, reason: string | undefined): void {
    if (this.#state === state && this.#stateReason === reason) return;
    this.#state = state;
    this.#stateReason = reason;
    this.#tell({ type: 'state', state, ...(reason === undefined ? {} : { reason }) });
  }

  #sendAlert(alert: Alert): void {
    try {
      this.#options.onAlert(alert);
    } catch (cause) {
      this.#tell({ type: 'problem', message: `alert ${alert.alertId} could not be delivered: ${String(cause)}` });
    }
  }

  #tell(event: WindowsEvent): void {
    try {
      this.#options.onEvent?.(event);
    } catch {
      // Nothing that a listener does may change what happens to the guest.
    }
  }
}
