// SPDX-License-Identifier: GPL-2.0-or-later
// resize and raw-resize: one job, then superblocks that say where the areas are now.

import { formatSize, stringifyJson, VitastorError, type JsonObject } from '@vitastor/core';
import { roleOf, roomBefore } from './devices.js';
import { DiskCommand, metadataPrefix } from './environment.js';
import { jsonLine } from './native.js';

export interface Wish {
  /** 0n: as now, or to the end of the device. */
  dataSize: bigint;
  /** undefined: stays where it is. '': in one area with the data. */
  metaDevice: string | undefined;
  /** undefined: behind a superblock if the OSD has one, else 0. */
  metaOffset: bigint | undefined;
  /** 0n: as now, or to the end of a new device. In one area: the log at least. */
  metaSize: bigint;
  dryRun: boolean;
  force: boolean;
}

export abstract class ResizeCommand extends DiskCommand {
  /** parameters: of the OSD now. stored: they are in superblocks, which follow. */
  protected async resize(parameters: JsonObject, stored: boolean, wish: Wish): Promise<number> {
    const { environment, json } = this.context;
    const place = this.place(parameters);
    const moves = wish.metaDevice !== undefined;
    const metaDevice = !moves ? place.metaDevice : wish.metaDevice === place.dataDevice ? '' : wish.metaDevice ?? '';
    const stays = metaDevice === place.metaDevice;
    const metaOffset = wish.metaOffset ?? (metaDevice === '' ? 0n : stays ? place.metaOffset : stored ? 4096n : 0n);
    let plan: JsonObject = {};
    await this.job({
      kind: 'resize', ...place, force: wish.force, dryRun: wish.dryRun,
      newDataSize: wish.dataSize, newMetaDevice: metaDevice, newMetaOffset: metaOffset, newMetaSize: wish.metaSize,
    }, (line) => {
      if (!line.startsWith('{"kind":"resize"')) return;
      plan = jsonLine(line);
      if (!json) environment.stdout(planText(place.dataDevice, metaDevice, plan));
    });
    const after = newParameters(parameters, wish, metaDevice, metaOffset);
    if (stored && !wish.dryRun) await this.#writeSuperblocks(place.dataDevice, place.metaDevice, after);
    const { kind: _kind, ...figures } = plan;
    if (json) this.print(`${stringifyJson({ new_sb_params: after, ...figures })}\n`);
    else if (!stored) this.print(`Start the OSD with ${optionText(after)}\n`);
    return 0;
  }

  async #writeSuperblocks(dataDevice: string, oldMeta: string, parameters: JsonObject): Promise<void> {
    const meta = typeof parameters['meta_device'] === 'string' ? parameters['meta_device'] : '';
    for (const device of [...(meta === '' ? [] : [meta]), dataDevice]) {
      const role = (await roleOf(device, parameters)) ?? (device === dataDevice ? 'data' : 'meta');
      await this.job({
        kind: 'write_superblock', dataDevice: device, json: stringifyJson(parameters), roomBytes: roomBefore(role, parameters), force: false,
      }, () => undefined);
    }
    if (oldMeta !== '' && oldMeta !== meta) await this.job({ kind: 'clear_superblock', dataDevice: oldMeta }, () => undefined);
  }
}

function newParameters(parameters: JsonObject, wish: Wish, metaDevice: string, metaOffset: bigint): JsonObject {
  const { meta_device: _device, meta_offset: _offset, meta_size: ofMeta, io: _io, ...after } = parameters;
  const onJournal = metadataPrefix(parameters) === 'journal';
  const size = onJournal ? parameters['journal_size'] : ofMeta;
  if (onJournal) for (const name of ['journal_device', 'journal_offset', 'journal_size']) delete after[name];
  if (wish.dataSize > 0n) after['data_size'] = Number(wish.dataSize);
  if (metaDevice === '') return after;
  const metaSize = wish.metaSize > 0n ? Number(wish.metaSize) : wish.metaDevice === undefined ? size : undefined;
  return { ...after, meta_device: metaDevice, meta_offset: Number(metaOffset), ...(metaSize === undefined ? {} : { meta_size: metaSize }) };
}

function optionText(parameters: JsonObject): string {
  return ['data_device', 'data_offset', 'data_size', 'meta_device', 'meta_offset', 'meta_size']
    .filter((name) => parameters[name] !== undefined && String(parameters[name]) !== '0')
    .map((name) => `--${name} ${String(parameters[name])}`).join(' ');
}

function planText(device: string, metaDevice: string, plan: JsonObject): string {
  const n = (name: string): number => Number(plan[name] ?? 0);
  if (plan['changed'] !== true) return `${device}: nothing is to be done\n`;
  if (plan['done'] === true) return `${device}: done\n`;
  const size = (count: string): string => formatSize(n(count) * n('block_size'));
  return `${device}: ${size('old_block_count')} of data become ${size('block_count')}; ${n('moved_blocks')} blocks have to move\n` +
    (plan['log_moved'] === true
      ? `${metaDevice || device}: a metadata log of ${formatSize(n('log_size'))} at byte ${n('log_offset')} takes the place of one of ${formatSize(n('old_log_size'))}\n`
      : '');
}

export function noJournal(context: { environment: { stderr(text: string): void } }, ...options: (string | undefined)[]): void {
  if (options.some((value) => value !== undefined)) context.environment.stderr('there is no journal here: what was said of it has no effect\n');
}

export function refuseDataOffset(parameters: JsonObject, offset: bigint): void {
  if (offset === BigInt(Math.trunc(Number(parameters['data_offset'] ?? 0)))) return;
  throw new VitastorError('ERR_INVALID_ARGUMENT', 'new_data_offset: an area cannot begin elsewhere; only its end moves');
}
