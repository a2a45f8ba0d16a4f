// SPDX-License-Identifier: GPL-2.0-or-later
// --supervise on the command line of vitastor-osd. It is no parameter of the configuration: it says what kind of process
// this is.

import type { SuperviseMode } from './supervisor.js';

/** mode null: be the daemon. words: what is left for it. Prints and exits with 1 where the value is none. */
export function superviseMode(argv: readonly string[]): { mode: SuperviseMode | null; words: string[] } {
  const words: string[] = [];
  let mode: SuperviseMode | null = null;
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? '';
    const inline = /^--supervise(?:=(.*))?$/.exec(word);
    if (!inline) {
      words.push(word);
      continue;
    }
    const value = inline[1] ?? argv[++i] ?? '';
    if (value === 'revoke' || value === 'restart') mode = value;
    else if (value === 'no') mode = null;
    else {
      process.stderr.write(`vitastor-osd: --supervise ${value}: give revoke, restart or no; see --help\n`);
      process.exit(1);
    }
  }
  return { mode, words };
}
