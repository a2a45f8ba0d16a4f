// SPDX-License-Identifier: GPL-2.0-or-later
// npm packages: installed from the lock file, only when they differ from it.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Stop, mustRun, root, run, say } from './ui.mjs';

/**
 * @param {string} path
 * @returns {Record<string, { version?: string, link?: boolean, optional?: boolean, os?: string[], cpu?: string[],
 * libc?: string[] }>}
 */
function lockedPackages(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8')).packages ?? {};
  } catch {
    return {};
  }
}

/** What is in the lock file but not, or in another version, in node_modules. */
export function outdatedPackages() {
  const locked = lockedPackages(join(root, 'package-lock.json'));
  const installed = lockedPackages(join(root, 'node_modules', '.package-lock.json'));
  return Object.entries(locked)
    .filter(([path, entry]) => path.startsWith('node_modules/') && !(entry.optional && (entry.os || entry.cpu)))
    .filter(([path, entry]) => installed[path]?.version !== entry.version || !existsSync(join(root, path)))
    .map(([path]) => path.slice('node_modules/'.length));
}

export async function installNpmPackages() {
  const outdated = outdatedPackages();
  if (outdated.length === 0) return;
  say(`Installing npm packages from package-lock.json (${outdated.length} to add or change).`);
  await mustRun(['npm', 'ci', '--no-progress', '--loglevel=error'], { quiet: true });
  const left = outdatedPackages();
  if (left.length > 0) throw new Stop(`npm ci ended well, but these packages are not there: ${left.join(', ')}`);
}

/** Compiles all TypeScript packages with project references. */
export async function buildTypeScript() {
  const result = await run(
    [join(root, 'node_modules', '.bin', 'tsc'), '-b', '--pretty', process.stdout.isTTY ? 'true' : 'false'],
    {
      quiet: true,
    },
  );
  if (result.code !== 0) {
    process.stderr.write(result.output);
    throw new Stop('TypeScript does not compile; the errors are above.');
  }
}
