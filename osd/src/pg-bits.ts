// SPDX-License-Identifier: GPL-2.0-or-later
// PG state bits of the wire (wire-protocol 9.9) ↔ words of etcd.

import type { PgStateWord } from '@vitastor/core';

export const PG_BITS: Readonly<Record<PgStateWord, number>> = {
  starting: 0x1,
  peering: 0x2,
  incomplete: 0x4,
  active: 0x8,
  repeering: 0x10,
  stopping: 0x20,
  offline: 0x40,
  degraded: 0x80,
  has_incomplete: 0x100,
  has_degraded: 0x200,
  has_misplaced: 0x400,
  has_unclean: 0x800,
  has_invalid: 0x1000,
  has_corrupted: 0x2000,
  has_inconsistent: 0x4000,
  left_on_dead: 0x8000,
  scrubbing: 0x10000,
};

/** Words in no particular order; encodePgState puts them in the canonical one. */
export function wordsOf(bits: number): PgStateWord[] {
  return (Object.keys(PG_BITS) as PgStateWord[]).filter((word) => (bits & PG_BITS[word]) !== 0);
}
