// SPDX-License-Identifier: GPL-2.0-or-later
// Options that several listings share.

import { boolean, string } from '@oclif/core/flags';
import { parseBoolean, VitastorError } from '@vitastor/core';
import type { ListOrder } from './sort.js';

/** An option without a value: true or false, never absent. */
export function flag(options: { char?: 'f' | 'l' | 'r'; summary: string }) {
  return boolean({ default: false, ...options });
}

export const listFlags = {
  long: flag({ char: 'l', summary: 'more columns: rates and latencies' }),
  sort: string({ summary: 'sort by this field of the JSON output', helpValue: 'FIELD' }),
  reverse: flag({ char: 'r', summary: 'reverse the order' }),
  count: string({ char: 'n', summary: 'only the first N', helpValue: 'N' }),
};

export function listOrder(
  flags: { sort?: string | undefined; reverse: boolean; count?: string | undefined },
  field: string,
): ListOrder {
  return {
    field: flags.sort ?? field,
    reverse: flags.reverse,
    count: flags.count === undefined ? 0 : wholeNumber('--count', flags.count),
  };
}

/** Throws ERR_INVALID_ARGUMENT that names the option. */
export function wholeNumber(option: string, text: string, min = 0): number {
  const n = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
  if (!(n >= min))
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      `${option}: "${text}" is not a whole number${min ? ` of at least ${min}` : ''}`,
    );
  return n;
}

/** Of an option that takes a word: given, and not 0, no or the like. */
export function isOn(value: string | undefined): boolean {
  return value !== undefined && (parseBoolean(value) ?? true);
}

/** What oclif left over. */
export function words(argv: readonly unknown[]): string[] {
  return argv.map(String);
}
