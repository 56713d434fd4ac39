import type { RuleSource } from './source.js';

/**
 * The rules that introd ships. They hold what Windows itself is known to do; whatever is not in them is not expected of
 * a healthy guest.
 */
export const baselineRules: readonly RuleSource[] = [
  {
    name: 'baseline/kernel-selfmap.json',
    text: `{
  "Type": "kernel",
  "Exceptions": [
    // No code of a healthy Windows opens the page tables to user mode. The kernel's own start-up code is the only one
    // that builds such entries; what it does is let through, and told, because nothing should run there later.
    {
      "originator": "[kernel]",
      "object_type": "selfmap",
      "flags": "64 init feedback"
    }
  ]
}
`,
  },
];
