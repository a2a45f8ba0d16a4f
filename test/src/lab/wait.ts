// SPDX-License-Identifier: GPL-2.0-or-later
// Waiting for something that real processes bring about.

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export interface UntilOptions {
  timeoutMs: number;
  /** Pause between two looks. */
  everyMs?: number;
  /** Called when the time is up (not when it is hopeless); its answer becomes part of the message. */
  diagnose?: () => Promise<string> | string;
  /** Something that makes waiting useless; a text ends it at once. */
  hopeless?: () => string | undefined;
}

/**
 * Looks until `look` answers with something other than undefined or false. An error thrown by `look` counts as
 * "not yet" and is told when the time is up.
 */
export async function until<T>(
  what: string,
  look: () => Promise<T | undefined | false> | T | undefined | false,
  options: UntilOptions,
): Promise<T> {
  const end = performance.now() + options.timeoutMs;
  let last = '';
  for (;;) {
    try {
      const result = await look();
      if (result !== undefined && result !== false) return result;
      last = '';
    } catch (error) {
      last = error instanceof Error ? error.message : String(error);
    }
    const reason = options.hopeless?.();
    const late = performance.now() >= end;
    if (reason !== undefined || late) {
      const parts = [
        reason === undefined ? `${what}: not reached within ${options.timeoutMs / 1000} s` : `${what}: cannot be reached: ${reason}`,
        ...(last ? [`last error: ${last}`] : []),
        ...(options.diagnose && reason === undefined ? [await options.diagnose()] : []),
      ];
      throw new Error(parts.join('\n'));
    }
    await sleep(options.everyMs ?? 100);
  }
}
