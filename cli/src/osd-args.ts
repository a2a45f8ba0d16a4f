// SPDX-License-Identifier: GPL-2.0-or-later
// OSD numbers as arguments.

import { VitastorError } from '@vitastor/core';

/** Each of `words` is an OSD number, none twice. Throws ERR_INVALID_ARGUMENT. */
export function osdNumbers(words: readonly string[]): number[] {
  if (words.length === 0) throw new VitastorError('ERR_INVALID_ARGUMENT', 'OSD number is missing');
  return [...new Set(words.map(osdNumber))];
}

function osdNumber(word: string): number {
  if (/^[1-9]\d{0,14}$/.test(word)) return Number(word);
  throw new VitastorError('ERR_INVALID_ARGUMENT', `"${word}" is not an OSD number`);
}
