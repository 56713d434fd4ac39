import { hex64, PAGE_SIZE } from '@introd/abi';
import type { Ledger } from '@introd/glue';
import type { PageHook } from '../page-hooks/page-hooks.js';
import type { AccessEvent } from './access-event.js';

/** Calls a page hook and books the call on the account of the hook and on that of its page, also when it throws. */
export function callAccounted(ledger: Ledger, hook: PageHook, event: AccessEvent): void {
  const start = ledger.now();
  try {
    hook.callback(event);
  } finally {
    const elapsed = ledger.now() - start;
    ledger.account('hook', hook.name).add(elapsed);
    ledger.account('page', hex64(hook.page.frame * PAGE_SIZE)).add(elapsed);
  }
}
