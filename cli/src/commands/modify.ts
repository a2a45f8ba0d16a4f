// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import {
  checkImageName,
  findPool,
  modifyImage,
  parseBoolean,
  requireSize,
  stringifyJson,
  VitastorError,
  type ClusterView,
  type ImageChange,
  type InodeConfig,
} from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { SECTOR_BYTES } from '../image-create.js';
import { changedLimits, LIMIT_FLAGS } from '../limit-options.js';
import { flag, isOn, words } from '../list-flags.js';
import { REMOVAL_PATHS, removeData } from '../removal.js';

export default class Modify extends VitastorCommand {
  static override strict = false;
  static override summary = 'Rename or resize an image, change its flags or limits';
  static override flags = {
    rename: string({ summary: 'new name', helpValue: 'NEW' }),
    resize: string({ summary: 'new size; what lies beyond a smaller one is removed', helpValue: 'SIZE' }),
    readonly: flag({ summary: 'refuse writes' }),
    readwrite: flag({ summary: 'allow writes' }),
    deleted: string({ summary: 'set or clear the mark of an unfinished removal', helpValue: '1|0' }),
    force: flag({ char: 'f', summary: 'shrink or make writable although there are clones or snapshots above' }),
    'down-ok': flag({ summary: 'shrink although OSDs are down' }),
    ...LIMIT_FLAGS,
    'inc-size': string({ hidden: true }),
    'force-size': string({ hidden: true }),
  };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(Modify);
    const [name] = words(argv);
    if (!name) throw invalid('Image name is missing');
    const context = await this.session.admin(['index/', ...(flags.resize === undefined ? [] : REMOVAL_PATHS)]);
    const image = context.view.imageByName(name);
    if (!image) throw new VitastorError('ERR_NOT_FOUND', `Image ${name} does not exist`);
    const change: ImageChange = {};
    if (flags.resize !== undefined) {
      const size = requireSize('--resize', flags.resize);
      if (!isOn(flags['force-size']) && size % SECTOR_BYTES !== 0n)
        throw invalid(`Image size should be a multiple of ${SECTOR_BYTES}`);
      if (size !== image.sizeBytes && !(isOn(flags['inc-size']) && size < image.sizeBytes)) change.sizeBytes = size;
    }
    if (flags.rename !== undefined && flags.rename !== name) {
      checkNewName(name, flags.rename);
      if (context.view.imageByName(flags.rename))
        throw new VitastorError('ERR_EXISTS', `Image ${flags.rename} already exists`);
      change.name = flags.rename;
    }
    if (flags.readonly && flags.readwrite) throw invalid('--readonly and --readwrite exclude each other');
    if (flags.readonly && !image.readonly) change.readonly = true;
    if (flags.readwrite && image.readonly) change.readonly = false;
    const deleted = flags.deleted === undefined ? image.deleted : parseBoolean(flags.deleted);
    if (deleted === null) throw invalid(`--deleted: "${flags.deleted}" is not 1 or 0`);
    if (deleted !== image.deleted) change.deleted = deleted;
    const meta = changedLimits(image.meta, flags);
    if (meta !== undefined && stringifyJson(meta) !== stringifyJson(image.meta)) change.meta = meta;
    if (Object.keys(change).length === 0) return { text: 'No change', plain: true };
    if (!flags.force) refuseWithChildren(context.view, image, change);

    if (change.sizeBytes !== undefined && change.sizeBytes < image.sizeBytes) {
      const error = await this.#purgeBeyond(context.view, image, change.sizeBytes, flags['down-ok']);
      if (error) throw error;
    }
    const { image: changed } = await modifyImage(context, image, change);
    return {
      text: `Image ${name} modified`,
      json: { name: changed.name, inode: image.inode, pool: image.pool, size: changed.sizeBytes },
    };
  }

  /** Whole objects behind the new end, and the rest of the one that the end cuts. */
  async #purgeBeyond(
    view: ClusterView,
    image: InodeConfig,
    sizeBytes: bigint,
    downOk: boolean,
  ): Promise<VitastorError | null> {
    const pool = findPool(view, String(image.pool));
    const removal = await removeData(
      this.session,
      view,
      { pool: pool.id, inode: image.inode, minOffset: sizeBytes, maxOffset: null, cut: true },
      { waitList: false, downOk },
    );
    return removal.error;
  }
}

function refuseWithChildren(view: ClusterView, image: InodeConfig, change: ImageChange): void {
  const shrinks = change.sizeBytes !== undefined && change.sizeBytes < image.sizeBytes;
  const opens = change.readonly === false;
  if ((!shrinks && !opens) || view.childrenOf(image.pool, image.inode).length === 0) return;
  throw invalid(
    `Image ${image.name} has children. Refusing to ${opens ? 'make it read-write' : 'shrink it'} without --force`,
  );
}

/** A snapshot may become one of another image, or an image; an image does not become a snapshot. */
function checkNewName(name: string, next: string): void {
  const at = name.includes('@') ? next.indexOf('@') : -1;
  checkImageName(at < 0 ? next : next.slice(0, at));
  if (at >= 0) checkImageName(next.slice(at + 1));
}

function invalid(text: string): VitastorError {
  return new VitastorError('ERR_INVALID_ARGUMENT', text);
}
