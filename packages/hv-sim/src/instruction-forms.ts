import { Code } from '@introd/x86/decoder';
import { branchForms } from './branch-forms.js';
import type { Emit } from './form-rule.js';
import { generalForms } from './general-forms.js';
import { legacyForms } from './legacy-forms.js';
import { sseForms } from './sse-forms.js';
import { stackForms } from './stack-forms.js';
import { stringForms } from './string-forms.js';
import { systemForms } from './system-forms.js';
import { vectorForms } from './vector-forms.js';
import { x87Forms } from './x87-forms.js';

/** How each form that the machine has is written, by the decoder's number for it. The first rule whose pattern matches its name counts. */
export const instructionForms: ReadonlyMap<Code, Emit> = (() => {
  const rules = [
    ...generalForms,
    ...branchForms,
    ...stackForms,
    ...stringForms,
    ...sseForms,
    ...vectorForms,
    ...x87Forms,
    ...systemForms,
    ...legacyForms,
  ];
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
