// SPDX-License-Identifier: GPL-2.0-or-later
// @vitastor/cli for other programs: run a command with an environment of their own.

export type { Environment } from './environment.js';
export { runCli } from './run.js';
