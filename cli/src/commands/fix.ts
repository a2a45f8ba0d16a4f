// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import {
  errnoText, errorText, objectStart, parseBoolean, pgOfOffset, VitastorError,
  type ClusterView, type DescribeItem, type JsonObject, type ObjectName, type OsdAdmin, type PoolConfig,
} from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { wholeNumber } from '../list-flags.js';
import { parseOsdList } from '../reports/pg-rows.js';
import { objectText, parseObjects } from '../unclean.js';

const ENOENT = -2;
/** Objects worked on at once, unless --iodepth says otherwise. */
const DEPTH = 32;

interface Wish {
  badOsds: readonly number[];
  /** null = any. */
  part: number | null;
  check: boolean;
}

interface Deleted extends ObjectName {
  part: number;
  osd: number;
}

export default class Fix extends VitastorCommand {
  static override summary = 'Delete wrong copies of inconsistent objects';
  static override description =
    'Deletes the copies or chunks on --bad-osds of objects whose copies differ, and has the primary check each object again, ' +
    'which repairs it from the others. describe --json prints a list that is understood here.';
  static override flags = {
    objects: string({ summary: 'objects, 0x<inode>:0x<stripe> or JSON; default: read from stdin', helpValue: 'LIST' }),
    'bad-osds': string({ summary: 'OSDs whose copies are wrong', helpValue: '1,2,...' }),
    part: string({ summary: 'only this chunk of erasure-coded objects', helpValue: 'N' }),
    check: string({ summary: 'no: delete the copies although they are not known to be inconsistent', helpValue: 'yes|no' }),
  };

  async run(): Promise<Outcome> {
    const { flags } = await this.parse(Fix);
    if (flags['bad-osds'] === undefined)
      throw new VitastorError('ERR_INVALID_ARGUMENT', 'OSDs with wrong copies are missing: give --bad-osds 1,2,...');
    const check = flags.check === undefined ? true : parseBoolean(flags.check);
    if (check === null) throw new VitastorError('ERR_INVALID_ARGUMENT', `--check: "${flags.check}" is neither yes nor no`);
    const wish: Wish = {
      badOsds: parseOsdList(flags['bad-osds']),
      part: flags.part === undefined ? null : wholeNumber('--part', flags.part),
      check,
    };
    const objects = parseObjects(flags.objects ?? (await this.session.environment.readStdin()));
    const view = await this.session.load(['pg/', 'osd/state/']);
    const admin = this.session.osdAdmin(view);
    const depth = wholeNumber('--iodepth', this.session.options.parameters['iodepth'] ?? String(DEPTH), 1);
    const deleted: Deleted[] = [];
    const problems: string[] = [];
    let next = 0;
    const worker = async (): Promise<void> => {
      for (let object = objects[next++]; object; object = objects[next++]) {
        try {
          await fixObject(view, admin, object, wish, deleted);
        } catch (error) {
          problems.push(`${objectText(object)}: ${errorText(error)}`);
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(depth, objects.length) }, worker));
    const lines = deleted.map((copy) => `Deleted ${objectText(copy)} part ${copy.part} on OSD ${copy.osd}`);
    if (problems.length && lines.length && !this.session.options.json) this.session.environment.stdout(`${lines.join('\n')}\n`);
    return {
      json: deleted.map((copy): JsonObject => ({ inode: copy.inode, stripe: copy.stripe, part: copy.part, osd_num: copy.osd })),
      text: lines.length ? lines.join('\n') : 'Nothing to delete',
      ...(problems.length ? { error: new VitastorError('ERR_IO', problems.join('\n'), { retryable: true }) } : {}),
    };
  }
}

async function fixObject(view: ClusterView, admin: OsdAdmin, name: ObjectName, wish: Wish, deleted: Deleted[]): Promise<void> {
  const pool = view.pools.get(Number(name.inode >> 48n));
  const pgCount = pool ? (view.pgConfig?.items.get(pool.id)?.length ?? 0) : 0;
  if (!pool) throw new VitastorError('ERR_NOT_FOUND', `pool ${name.inode >> 48n} does not exist`);
  if (pgCount === 0) throw new VitastorError('ERR_IO', `pool ${pool.name} has no placement groups yet`, { retryable: true });
  const object = { inode: name.inode, stripe: objectStart(pool, name.stripe) };
  const pg = pgOfOffset(pool, pgCount, object.stripe);
  const state = view.pgStates.get(pool.id, pg);
  const primary = state?.primary ?? 0;
  if (primary === 0 || !state?.state.includes('active'))
    throw new VitastorError('ERR_IO', `PG ${pool.id}/${pg} is not active: repeat when it is`, { retryable: true });
  const described = await admin.describe(primary, {
    stateMask: 0, pool: pool.id, pg,
    minInode: object.inode, minOffset: object.stripe, maxInode: object.inode, maxOffset: object.stripe,
  });
  const known = described.length > 0 || wish.check ? described : configuredPlaces(view, pool, pg, object);
  const selected = known.filter(
    (item) =>
      wish.badOsds.includes(item.osd) && (wish.part === null || item.part === wish.part) && (!wish.check || item.inconsistent),
  );
  if (selected.length === 0) return;
  refuseTooMany(known, selected, pool.dataChunks);
  for (const item of selected) {
    const result = await admin.deleteCopy(item.osd, object, item.part);
    if (result < 0 && result !== ENOENT)
      throw new VitastorError('ERR_IO', `OSD ${item.osd} could not delete its copy: ${errnoText(-result)}`);
    deleted.push({ ...object, part: item.part, osd: item.osd });
  }
  const scrubbed = await admin.scrub(primary, object);
  if (scrubbed < 0 && scrubbed !== ENOENT)
    throw new VitastorError('ERR_IO', `the copies were deleted, but OSD ${primary} could not check the object again, ${errnoText(-scrubbed)}: repeat`, { retryable: true });
}

/** Where a clean object lies. */
function configuredPlaces(view: ClusterView, pool: PoolConfig, pg: number, object: ObjectName): DescribeItem[] {
  return (view.pgItem(pool.id, pg)?.osdSet ?? []).flatMap((osd, position) =>
    osd === 0
      ? []
      : [{ ...object, part: pool.scheme === 'replicated' ? 0 : position, osd, outdated: false, corrupted: false, inconsistent: false }],
  );
}

/** Deleting must leave enough to read the object from. */
function refuseTooMany(known: readonly DescribeItem[], selected: readonly DescribeItem[], needed: number): void {
  const left = known.filter((item) => !item.outdated && !item.corrupted && !selected.includes(item));
  const parts = needed > 1 ? new Set(left.map((item) => item.part)).size : left.length;
  if (parts < needed)
    throw new VitastorError('ERR_INVALID_ARGUMENT', `no good ${needed > 1 ? `${needed} chunks` : 'copy'} would be left: name fewer --bad-osds`);
}
