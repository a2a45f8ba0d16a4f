// SPDX-License-Identifier: GPL-2.0-or-later
// vitastor-cli: first of all, standard input is left alone; then the program.

import './stdin.js';

await import('./program.js');
