// SPDX-License-Identifier: GPL-2.0-or-later
// One line for people about one damage.

import type { JsonObject } from '@vitastor/core';

export function damageText(damage: JsonObject): string {
  const object =
    damage['inode'] === undefined
      ? ''
      : ` of pool ${String(damage['pool'])}, inode ${String(damage['inode'])}, stripe ${String(damage['stripe'])}`;
  const offset = Number(damage['offset'] ?? 0);
  return `${String(damage['device'])}: ${String(damage['area'])}${object}${offset > 0 ? ` at byte ${offset}` : ''}: ${String(damage['text'])}`;
}
