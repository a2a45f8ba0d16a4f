// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { errorText, findPool, fullInode, INODE_MAX, VitastorError, type ClusterView, type DescribeItem, type JsonObject } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { wholeNumber } from '../list-flags.js';
import { parseOsdList } from '../reports/pg-rows.js';
import { compareItems, describeAll, objectText, parseStates, parseU64, primariesOf } from '../unclean.js';

const U64_MAX = (1n << 64n) - 1n;

export default class Describe extends VitastorCommand {
  static override summary = 'List unclean objects and where they lie';
  static override description =
    'A line for every known copy or chunk of every object that is not clean, as the primary OSDs of their PGs know it.';
  static override flags = {
    osds: string({ summary: 'only objects whose PGs these OSDs lead', helpValue: '1,2,...' }),
    'object-state': string({
      summary: 'only in one of these states: degraded, misplaced, incomplete, corrupted, inconsistent',
      helpValue: 'LIST',
    }),
    pool: string({ char: 'p', summary: 'only this pool (ID or name)', helpValue: 'POOL' }),
    pg: string({ summary: 'only this PG of the pool', helpValue: 'PG' }),
    inode: string({ summary: 'only this inode', helpValue: 'INODE' }),
    'min-inode': string({ summary: 'from this inode on', helpValue: 'INODE' }),
    'max-inode': string({ summary: 'up to this inode', helpValue: 'INODE' }),
    'min-offset': string({ summary: 'from this offset in the lowest inode on', helpValue: 'BYTES' }),
    'max-offset': string({ summary: 'up to this offset in the highest inode', helpValue: 'BYTES' }),
  };

  async run(): Promise<Outcome> {
    const { flags } = await this.parse(Describe);
    const view = await this.session.load(['pg/', 'osd/state/']);
    const pool = flags.pool === undefined ? 0 : findPool(view, flags.pool).id;
    const pg = flags.pg === undefined ? 0 : wholeNumber('--pg', flags.pg, 1);
    if (pg && !pool) throw new VitastorError('ERR_INVALID_ARGUMENT', '--pg needs a pool: add --pool POOL');
    const inode = (option: string, text: string | undefined): bigint | null => {
      if (text === undefined) return null;
      const value = parseU64(option, text);
      if (value > INODE_MAX || value === 0n) return value;
      if (!pool)
        throw new VitastorError('ERR_INVALID_ARGUMENT', `${option}: ${text} has no pool in it: add --pool POOL`);
      return fullInode(pool, value);
    };
    const only = inode('--inode', flags.inode);
    const minInode = only ?? inode('--min-inode', flags['min-inode']) ?? 0n;
    const maxInode = only ?? inode('--max-inode', flags['max-inode']);
    const maxOffset = flags['max-offset'] === undefined ? null : parseU64('--max-offset', flags['max-offset']);
    const request = {
      stateMask: flags['object-state'] === undefined ? 0 : parseStates(flags['object-state']),
      pool, pg, minInode,
      minOffset: flags['min-offset'] === undefined ? 0n : parseU64('--min-offset', flags['min-offset']),
      maxInode: maxInode ?? (maxOffset === null ? 0n : U64_MAX),
      maxOffset: maxOffset ?? (maxInode === null ? 0n : U64_MAX),
    };
    const osds = flags.osds === undefined ? primariesOf(view, pool, pg) : parseOsdList(flags.osds);
    const admin = this.session.osdAdmin(view);
    const problems = flags.osds === undefined ? leaderless(view, pool, pg) : [];
    const lists = await Promise.all(
      osds.map((osd) =>
        describeAll(admin, osd, request).catch((error: unknown): DescribeItem[] => {
          problems.push(errorText(error));
          return [];
        }),
      ),
    );
    const items = lists.flat().sort(compareItems);
    const failed = problems.length === 0
      ? {}
      : { error: new VitastorError('ERR_IO', `the list is not complete: ${problems.join('; ')}`, { retryable: true }) };
    const text = items.map(itemText).join('\n');
    // What is known is shown also when some OSD did not answer.
    if (problems.length && !this.session.options.json && text !== '') this.session.environment.stdout(`${text}\n`);
    return { json: items.map(itemJson), text, ...failed };
  }
}

/** PGs that nobody can be asked about. At most this many are named. */
const NAMED_PGS = 10;

function leaderless(view: ClusterView, onlyPool: number, onlyPg: number): string[] {
  const found = [...(view.pgConfig?.items ?? [])]
    .filter(([pool]) => view.pools.has(pool) && (onlyPool === 0 || pool === onlyPool))
    .flatMap(([pool, items]) => items.map((_, i) => [pool, i + 1] as const))
    .filter(([pool, pg]) => (onlyPg === 0 || pg === onlyPg) && !view.pgStates.get(pool, pg))
    .map(([pool, pg]) => `${pool}/${pg}`);
  if (found.length === 0) return [];
  const more = found.length > NAMED_PGS ? ` and ${found.length - NAMED_PGS} more` : '';
  return [`no OSD leads PG ${found.slice(0, NAMED_PGS).join(', ')}${more}`];
}

const FLAGS = ['corrupted', 'inconsistent', 'outdated'] as const;

function itemText(item: DescribeItem): string {
  const flags = FLAGS.filter((flag) => item[flag]).map((flag) => ` ${flag}`).join('');
  return `${objectText(item)} part ${item.part} on OSD ${item.osd}${flags}`;
}

function itemJson(item: DescribeItem): JsonObject {
  return {
    inode: `0x${item.inode.toString(16)}`,
    stripe: `0x${item.stripe.toString(16)}`,
    part: item.part,
    osd_num: item.osd,
    ...Object.fromEntries(FLAGS.filter((flag) => item[flag]).map((flag) => [flag, true])),
  };
}
