// SPDX-License-Identifier: GPL-2.0-or-later
// clang-format over our C++ and C, where it is installed.

import { Stop, mustRun, say, which } from './ui.mjs';
import { sources } from './sources.mjs';

/** @param {readonly string[]} args `--check` changes nothing and fails where something would change */
export async function format(args) {
  if (!which('clang-format'))
    throw new Stop('clang-format is not installed. Please run as root: apt-get install clang-format');
  const files = sources().filter((file) => /\.(cpp|hpp|c|h)$/.test(file) && !file.startsWith('plugins/'));
  const check = args.includes('--check');
  if (files.length > 0)
    await mustRun(['clang-format', ...(check ? ['--dry-run', '--Werror'] : ['-i']), ...files], { quiet: check });
  say(`${files.length} files ${check ? 'are in shape' : 'formatted'}.`);
  return 0;
}
