import type { ThreadRole } from './code/plan.js';
import { ADMINISTRATORS, EVERYONE, LOCAL_SYSTEM, type Sid, type TokenContent } from './token.js';

/** A process that the lab guest has. */
export interface ProcessSpec {
  readonly name: string;
  /** Fixed process id; the others get theirs by seed. */
  readonly pid?: number;
  /** Name of the parent, which comes earlier in the list; no parent without. */
  readonly parent?: string;
  /** Its ring-3 program; absent for Idle and System. */
  readonly program?: {
    readonly commandLine: string;
    readonly sessionId: number;
    /** Uses ntdll.dll only. */
    readonly native: boolean;
  };
  readonly token: TokenContent;
  readonly threads: readonly ThreadRole[];
}

const USER_SID: Sid = [5, 21, 1004336348, 1177238915, 682003330, 1001];

/** Privileges 2..36, which Local System holds. */
const ALL_PRIVILEGES = 0x1f_ffff_fffcn;
/** Shutdown (19), change notify (23), undock (25), increase working set (33), time zone (34). */
const USER_PRIVILEGES = 0x6_0288_0000n;

const SYSTEM_TOKEN: TokenContent = {
  logonId: 0x3e7,
  sessionId: 0,
  user: LOCAL_SYSTEM,
  groups: [ADMINISTRATORS, EVERYONE],
  privileges: ALL_PRIVILEGES,
};
const USER_TOKEN: TokenContent = {
  logonId: 0x2_4f1c,
  sessionId: 1,
  user: USER_SID,
  groups: [EVERYONE],
  privileges: USER_PRIVILEGES,
};

/** The processes of the lab guest in the order of their creation; Idle first, then System. */
export function processSpecs(vcpus: number): readonly ProcessSpec[] {
  const system32 = 'C:\\Windows\\system32\\';
  return [
    { name: 'Idle', pid: 0, token: SYSTEM_TOKEN, threads: Array.from({ length: vcpus }, () => 'idle' as const) },
    { name: 'System', pid: 4, token: SYSTEM_TOKEN, threads: ['attack-driver', 'system-worker'] },
    {
      name: 'smss.exe',
      parent: 'System',
      program: { commandLine: '\\SystemRoot\\System32\\smss.exe', sessionId: 0, native: true },
      token: SYSTEM_TOKEN,
      threads: ['user'],
    },
    {
      name: 'csrss.exe',
      parent: 'smss.exe',
      program: {
        commandLine: '%SystemRoot%\\system32\\csrss.exe ObjectDirectory=\\Windows',
        sessionId: 0,
        native: true,
      },
      token: SYSTEM_TOKEN,
      threads: ['user'],
    },
    {
      name: 'wininit.exe',
      parent: 'smss.exe',
      program: { commandLine: 'wininit.exe', sessionId: 0, native: false },
      token: SYSTEM_TOKEN,
      threads: ['user'],
    },
    {
      name: 'services.exe',
      parent: 'wininit.exe',
      program: { commandLine: `${system32}services.exe`, sessionId: 0, native: false },
      token: SYSTEM_TOKEN,
      threads: ['user', 'user'],
    },
    {
      name: 'lsass.exe',
      parent: 'wininit.exe',
      program: { commandLine: `${system32}lsass.exe`, sessionId: 0, native: false },
      token: SYSTEM_TOKEN,
      threads: ['user'],
    },
    {
      name: 'explorer.exe',
      parent: 'wininit.exe',
      program: { commandLine: 'C:\\Windows\\Explorer.EXE', sessionId: 1, native: false },
      token: USER_TOKEN,
      threads: ['user'],
    },
    {
      name: 'notepad.exe',
      parent: 'explorer.exe',
      program: { commandLine: `"${system32}notepad.exe" C:\\Users\\lab\\notes.txt`, sessionId: 1, native: false },
      token: USER_TOKEN,
      threads: ['attack-user'],
    },
  ];
}
