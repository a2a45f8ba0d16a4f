// SPDX-License-Identifier: GPL-2.0-or-later
// What this machine gives and refuses, as far as people should know it.

import { closeSync, constants, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** Some file systems (tmpfs of older kernels, a few network ones) refuse O_DIRECT. */
export function takesDirect(dir: string): boolean {
  const file = join(dir, 'direct.probe');
  try {
    closeSync(openSync(file, constants.O_RDWR | constants.O_CREAT | constants.O_DIRECT));
    return true;
  } catch {
    return false;
  } finally {
    rmSync(file, { force: true });
  }
}

/** Why an OSD runs without io_uring, from what it printed; undefined when it has it. */
export function ioUringRefusal(lines: readonly string[]): string | undefined {
  for (const line of lines) {
    const match = /io_uring is refused on this machine: (.+?)\. Continuing/.exec(line);
    if (match) return match[1];
  }
  return undefined;
}
