import { Code } from '@introd/x86/decoder';
import type { Emit } from './form-rule.js';
import { generalForms } from './general-forms.js';
import { sseForms } from './sse-forms.js';
import { systemForms } from './system-forms.js';

/** How each form that the machine has is written, by the decoder's number for it. */
export const instructionForms: ReadonlyMap<Code, Emit> = (() => {
  const rules = [...generalForms, ...sseForms, ...systemForms];
  const forms = new Map<Code, Emit>();
  for (const [name, code] of Object.entries(Code)) {
    if (typeof code !== 'number') continue;
    for (const [pattern, make] of rules) {
      const match = pattern.exec(name);
      if (match) {
        forms.set(code, make(match));
        break;
      }
    }
  }
  return forms;
})();
