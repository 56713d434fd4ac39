/** Whether a hook was removed, or a table is not needed any more, since the engine last committed: nearly every exit leaves nothing to do. */
export class PendingCommits {
  any = false;
}
