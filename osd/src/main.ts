// SPDX-License-Identifier: GPL-2.0-or-later
// vitastor-osd: the daemon itself, or with --supervise its small parent, which loads next to nothing.

import { superviseMode } from './supervise-words.js';

const { mode, words } = superviseMode(process.argv.slice(2));
if (mode === null) await (await import('./daemon.js')).runDaemon(words);
else await (await import('./supervisor-main.js')).runSupervisor(mode, words);
