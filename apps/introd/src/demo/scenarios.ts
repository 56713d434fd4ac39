import { type LabScenario, type ScenarioTarget, type SelfMapForm, scenarioId } from '@introd/guest-lab';

/** Which attacks `introd demo` can run. */
export type DemoAttack = 'self-map' | 'none' | 'all';

/** The values of `--attack`. */
export const DEMO_ATTACKS: readonly DemoAttack[] = ['self-map', 'none', 'all'];

/** A scenario as the demo runs and names it. */
export interface PlannedScenario {
  /** `self-map/bts/system` */
  readonly id: string;
  readonly kind: 'attack' | 'benign';
  /** What happens, for a person. */
  readonly title: string;
  readonly target: ScenarioTarget;
  readonly lab: LabScenario;
  /** Microseconds of guest time to wait before it: where between two ticks it begins. */
  readonly delay: number;
}

/** What a scenario is, without when. */
type Scenario = Omit<PlannedScenario, 'delay'>;

/** Instruction forms of the self-map attack, in the order in which seeds choose them. */
const SELF_MAP_FORMS: readonly SelfMapForm[] = ['mov', 'or', 'xchg', 'bts', 'lock-cmpxchg'];

const TARGETS: readonly ScenarioTarget[] = ['system', 'ordinary'];

const PLACE: Record<ScenarioTarget, string> = { system: 'the System process', ordinary: 'an ordinary process' };

function attack(form: SelfMapForm, target: ScenarioTarget): Scenario {
  const lab: LabScenario = { name: 'self-map', form, target };
  return {
    id: scenarioId(lab),
    kind: 'attack',
    title: `kernel code in ${PLACE[target]} opens its page tables to ring 3 with ${form.toUpperCase().replace('-', ' ')}`,
    target,
    lab,
  };
}

function benign(target: ScenarioTarget): Scenario {
  const lab: LabScenario = { name: 'self-map-benign', target };
  return {
    id: scenarioId(lab),
    kind: 'benign',
    title: `kernel code in ${PLACE[target]} does legitimate work on the same page table`,
    target,
    lab,
  };
}

/**
 * What a run does, in order. `self-map` takes one instruction form per target, chosen by the seed; `all` takes every form.
 * Each target's benign twin runs first.
 */
export function planScenarios(choice: DemoAttack, seed: number): PlannedScenario[] {
  if (choice === 'none') return [];
  const scenarios = TARGETS.flatMap((target, index) => {
    const forms: readonly SelfMapForm[] =
      choice === 'all' ? SELF_MAP_FORMS : [SELF_MAP_FORMS[(seed + index * 2) % SELF_MAP_FORMS.length]!];
    return [benign(target), ...forms.map((form) => attack(form, target))];
  });
  return scenarios.map((scenario, index) => ({ ...scenario, delay: delayOf(seed, index) }));
}

/** A moment between two ticks for the n-th scenario of a run: a multiplicative hash, so that near seeds give distant moments. */
function delayOf(seed: number, index: number): number {
  return (Math.imul(seed + index * 0x9e37 + 1, 0x9e37_79b1) >>> 0) % 1_000_000;
}
