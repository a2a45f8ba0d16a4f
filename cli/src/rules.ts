// SPDX-License-Identifier: GPL-2.0-or-later
// How words become options and arguments. Source: tools 2.1.

import type { CommandLineRules } from '@vitastor/core';

/** Options without a value, in every command. */
export const FLAGS = [
  'json',
  'wait',
  'wait_list',
  'long',
  'detail',
  'del',
  'no_color',
  'readonly',
  'readwrite',
  'force',
  'reverse',
  'allow_data_loss',
  'allow_up',
  'down_ok',
  'dry_run',
  'help',
  'all',
  'exact',
  'matching',
  'tree',
  'writers_stopped',
];

export const RULES: CommandLineRules = {
  flags: new Set(FLAGS),
  short: { l: 'long', n: 'count', p: 'pool', s: 'size', r: 'reverse', f: 'force', h: 'help' },
};
