// SPDX-License-Identifier: GPL-2.0-or-later
// The files of the repository, as checks and formatters see them.

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ask, root } from './ui.mjs';

/** Paths inside the repository, generated and ignored ones left out. @returns {string[]} */
export function sources() {
  const listed = ask(['git', 'ls-files', '-co', '--exclude-standard']).split('\n').filter(Boolean);
  if (listed.length > 0) return listed.filter((file) => existsSync(join(root, file))).sort();
  // Not a git work tree (a release archive).
  const skip = /(^|\/)(node_modules|dist|build|\.git)(\/|$)/;
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(root.length + 1))
    .filter((file) => !skip.test(file))
    .sort();
}
