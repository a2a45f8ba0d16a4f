// SPDX-License-Identifier: GPL-2.0-or-later
// Unclean objects as primaries describe them, names of objects as people and programs write them. Source: tools 2.12.

import {
  DESCRIBE_LIMIT, OBJECT_STATE_BITS, parseJson, VitastorError,
  type ClusterView, type DescribeItem, type DescribeRequest, type ObjectName, type ObjectStateWord, type OsdAdmin,
} from '@vitastor/core';

const hex = (n: bigint): string => `0x${n.toString(16)}`;

export function objectText(object: ObjectName): string {
  return `${hex(object.inode)}:${hex(object.stripe)}`;
}

/** `degraded,corrupted` → bits. Throws ERR_INVALID_ARGUMENT. */
export function parseStates(text: string): number {
  let mask = 0;
  for (const word of text.split(/[\s,|+]+/).filter((part) => part !== '')) {
    if (!Object.hasOwn(OBJECT_STATE_BITS, word)) {
      throw new VitastorError(
        'ERR_INVALID_ARGUMENT',
        `--object-state: "${word}" is no state: use ${Object.keys(OBJECT_STATE_BITS).join(', ')}`,
      );
    }
    mask |= OBJECT_STATE_BITS[word as ObjectStateWord];
  }
  return mask;
}

/** Decimal or 0x…; throws ERR_INVALID_ARGUMENT that names the option. */
export function parseU64(option: string, text: string): bigint {
  const value = /^(\d{1,20}|0[xX][0-9a-fA-F]{1,16})$/.test(text.trim()) ? BigInt(text.trim()) : -1n;
  if (value < 0n || value >= 1n << 64n)
    throw new VitastorError('ERR_INVALID_ARGUMENT', `${option}: "${text}" is not a number (decimal or 0x...)`);
  return value;
}

/** OSDs that lead at least one PG of what is asked for, ascending. */
export function primariesOf(view: ClusterView, pool: number, pg: number): number[] {
  const osds = new Set<number>();
  for (const [statePool, statePg] of view.pgStates.entries()) {
    const primary = view.pgStates.get(statePool, statePg)?.primary ?? 0;
    if (primary && (pool === 0 || statePool === pool) && (pg === 0 || statePg === pg)) osds.add(primary);
  }
  return [...osds].sort((a, b) => a - b);
}

/** All items, in pieces that the OSD is willing to send. */
export async function describeAll(admin: OsdAdmin, osd: number, request: DescribeRequest): Promise<DescribeItem[]> {
  const items: DescribeItem[] = [];
  let from = request;
  for (;;) {
    const some = await admin.describe(osd, from);
    for (const item of some) items.push(item);
    const last = some.at(-1);
    if (!last || some.length < DESCRIBE_LIMIT) return items;
    from = { ...from, minInode: last.inode, minOffset: last.stripe + 1n };
  }
}

export function compareItems(a: DescribeItem, b: DescribeItem): number {
  if (a.inode !== b.inode) return a.inode < b.inode ? -1 : 1;
  if (a.stripe !== b.stripe) return a.stripe < b.stripe ? -1 : 1;
  return a.part - b.part || a.osd - b.osd;
}

/** Text `0x…:0x…` with anything between, or JSON [{inode, stripe}, …]; each object once. Throws ERR_INVALID_ARGUMENT. */
export function parseObjects(text: string): ObjectName[] {
  const names = text.trim().startsWith('[') ? fromJson(text) : fromText(text);
  const unique = new Map(names.map((name) => [objectText(name), name]));
  return [...unique.values()];
}

function fromText(text: string): ObjectName[] {
  const pairs = [...text.matchAll(/(0[xX][0-9a-fA-F]{1,16}|\d{1,20}):(0[xX][0-9a-fA-F]{1,16}|\d{1,20})/g)];
  if (pairs.length === 0)
    throw new VitastorError('ERR_INVALID_ARGUMENT', 'there is no object: give them as 0x<inode>:0x<stripe>, or as JSON of describe');
  return pairs.map(([, inode, stripe]) => ({
    inode: parseU64('object', inode ?? ''), stripe: parseU64('object', stripe ?? ''),
  }));
}

function fromJson(text: string): ObjectName[] {
  const bad = (why: string): VitastorError => new VitastorError('ERR_INVALID_ARGUMENT', `the list of objects is not what describe --json prints: ${why}`);
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (error) {
    throw bad(error instanceof Error ? error.message : 'no JSON');
  }
  if (!Array.isArray(value)) throw bad('no array');
  return value.map((entry: unknown, i) => {
    const { inode, stripe } = (typeof entry === 'object' && entry !== null ? entry : {}) as Record<string, unknown>;
    const number = (name: string, from: unknown): bigint => {
      if (typeof from !== 'string' && typeof from !== 'number' && typeof from !== 'bigint') throw bad(`item ${i} has no ${name}`);
      return parseU64(`${name} of item ${i}`, String(from));
    };
    return { inode: number('inode', inode), stripe: number('stripe', stripe) };
  });
}
