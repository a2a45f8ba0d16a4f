// SPDX-License-Identifier: GPL-2.0-or-later
// Standard input, opened only by commands that read it. Node opens process.stdin as soon as any library imports node:process, and makes a pipe
// non-blocking for all that share it: in `export ... | cmp - <(vitastor-cli ...)`, cmp would fail. Imported before everything else.

const opened = Object.getOwnPropertyDescriptor(process, 'stdin');
let wanted = false;

Object.defineProperty(process, 'stdin', {
  configurable: true,
  enumerable: true,
  get: (): unknown => (wanted ? opened?.get?.call(process) : undefined),
});

/** process.stdin, from now on for everybody. */
export function openStdin(): typeof process.stdin {
  wanted = true;
  return process.stdin;
}
