// SPDX-License-Identifier: GPL-2.0-or-later
// What rm, flatten and merge-data lend to the layers of @vitastor/core: etcd, merging and purging with progress.

import {
  formatSize,
  inodeKeyOf,
  LAYER_PATHS,
  parseBoolean,
  VitastorError,
  type ClusterView,
  type InodeConfig,
  type JsonObject,
  type LayerWork,
} from '@vitastor/core';
import { string } from '@oclif/core/flags';
import { wholeNumber } from './list-flags.js';
import { Pace } from './progress.js';
import { dataOption, isWithoutData, REMOVAL_PATHS, removeData, type RemovalOptions } from './removal.js';
import type { Session } from './session.js';

export const mergeFlags = {
  cas: string({ summary: 'others may write to the target meanwhile: compare versions; default: as its metadata says', helpValue: '1|0' }),
  'fsync-interval': string({ summary: 'writes between two flushes, in pools that need them (default 128)', helpValue: 'N' }),
};

export interface MergeSettings {
  /** null: as the metadata says. */
  cas: boolean | null;
  fsyncInterval: number;
}

export function mergeSettings(flags: { cas?: string | undefined; 'fsync-interval'?: string | undefined }): MergeSettings {
  const cas = flags.cas === undefined ? null : parseBoolean(flags.cas);
  if (flags.cas !== undefined && cas === null)
    throw new VitastorError('ERR_INVALID_ARGUMENT', `--cas: "${flags.cas}" is not 1 or 0`);
  const interval = flags['fsync-interval'];
  return { cas, fsyncInterval: interval === undefined ? 128 : wholeNumber('--fsync-interval', interval, 1) };
}

export class CliLayerWork implements LayerWork {
  readonly #session: Session;
  readonly #merge: MergeSettings;
  readonly #removal: RemovalOptions;
  /** Of the last purge: removed_objects and so on. */
  lastRemoval: JsonObject = {};

  constructor(session: Session, merge: MergeSettings, removal: RemovalOptions) {
    this.#session = session;
    this.#merge = merge;
    this.#removal = removal;
  }

  load() {
    return this.#session.admin([...LAYER_PATHS, ...REMOVAL_PATHS]);
  }

  check(view: ClusterView, layers: readonly InodeConfig[]): void {
    for (const layer of layers) isWithoutData(view, layer.pool);
  }

  async merge(view: ClusterView, layers: readonly InodeConfig[], target: InodeConfig): Promise<void> {
    const session = this.#session;
    const full = layers.filter((layer) => layer === target || !isWithoutData(view, layer.pool));
    if (full.length < 2) return;
    const config = await session.config();
    const ops = await session.dataOps();
    const pace = new Pace(session.environment.clock);
    const what = `Merging ${layers.length - 1} layer${layers.length === 2 ? '' : 's'} into ${target.name}`;
    const result = await ops.mergeLayers(
      {
        layers: full.map(inodeKeyOf), target: full.indexOf(target), ...this.#merge,
        iodepth: dataOption(session, 'iodepth', 32), parallelOsds: dataOption(session, 'parallel_osds', 4),
        waitUpTimeoutMs: config.number('client_wait_up_timeout') * 1000,
      },
      ({ doneObjects, totalObjects, writtenBytes }) => {
        const rate = pace.text(writtenBytes, formatSize, doneObjects, totalObjects);
        session.progress(`${what}: ${doneObjects}/${totalObjects} objects, ${formatSize(writtenBytes)}${rate}`, false);
      },
      session.environment.signal,
    );
    session.progress(`${what}: ${result.mergedObjects} objects, ${formatSize(result.writtenBytes)} written`, true);
  }

  async purge(view: ClusterView, layer: InodeConfig): Promise<void> {
    const target = { pool: layer.pool, inode: layer.inode, minOffset: 0n, maxOffset: null };
    const removal = await removeData(this.#session, view, target, this.#removal);
    this.lastRemoval = removal.json;
    if (removal.error) throw removal.error;
    if (view.pools.has(layer.pool)) this.step(`Done, inode ${layer.inode} from pool ${layer.pool} removed`);
    else this.step(`Pool ${layer.pool} does not exist any more: there is no data of ${layer.name} to remove`);
  }

  step(text: string): void {
    this.#session.step(text);
  }
}
