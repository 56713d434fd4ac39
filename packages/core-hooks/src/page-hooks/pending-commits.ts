/**
 * Whether there may be something to do before the next reply: rights to make effective, removed hooks to take out, an exit to switch off,
 * something that the backend refused to try again. Whoever makes or leaves such work says so, so that the many exits without any ask once.
 */
export class PendingCommits {
  any = false;
}
