// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import {
  fullInode,
  modifyImage,
  parentChain,
  removeImageMetadata,
  VitastorError,
  type AdminContext,
  type ClusterView,
  type InodeConfig,
  type JsonObject,
} from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { matchesAny } from '../glob.js';
import { flag, words } from '../list-flags.js';
import { isWithoutData, REMOVAL_PATHS, removeData, type RemovalOptions } from '../removal.js';

export default class Rm extends VitastorCommand {
  static override strict = false;
  static override summary = 'Remove images and their data';
  static override description =
    'rm FROM TO removes the chain of layers from FROM up to its descendant TO. Layers that others stand on are refused.';
  static override flags = {
    exact: flag({ summary: 'remove all images of these names' }),
    matching: flag({ summary: 'remove all images that match these patterns' }),
    'wait-list': flag({ summary: 'list everything before removing' }),
    'down-ok': flag({ summary: 'go on although OSDs are down' }),
    'writers-stopped': flag({ summary: 'nobody writes to the layers' }),
    cas: string({ hidden: true }),
  };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(Rm);
    const names = words(argv);
    if (names.length === 0) throw new VitastorError('ERR_INVALID_ARGUMENT', 'Layer to remove is missing');
    const context = await this.session.admin(['index/', ...REMOVAL_PATHS]);
    const layers =
      flags.exact || flags.matching ? selected(context.view, names, flags.exact) : chain(context.view, names);
    refuseWithOtherChildren(context.view, layers);
    return this.#remove(context, layers, { waitList: flags['wait-list'], downOk: flags['down-ok'] });
  }

  /** Children first. A failure leaves its layer marked as deleted, to be repeated. */
  async #remove(context: AdminContext, layers: readonly InodeConfig[], options: RemovalOptions): Promise<Outcome> {
    const json: JsonObject = {
      deleted_ids: [],
      deleted_images: [],
      rebased_images: [],
      renamed_from: '',
      renamed_to: '',
    };
    const [ids, images]: [bigint[], string[]] = [[], []];
    const lines: string[] = [];
    // Refused before anything is marked.
    for (const layer of layers) isWithoutData(context.view, layer.pool);
    for (const layer of layers) {
      const marked = layer.deleted
        ? { image: layer, revision: context.view.modRevision(context.view.keys.configInode(layer.pool, layer.inode)) }
        : await modifyImage(context, layer, { deleted: true });
      if (!layer.deleted) this.session.step(`Image ${layer.name} modified`);
      const removal = await removeData(
        this.session,
        context.view,
        { pool: layer.pool, inode: layer.inode, minOffset: 0n, maxOffset: null },
        options,
      );
      Object.assign(json, removal.json, { deleted_ids: ids, deleted_images: images });
      if (removal.error) return { json, text: '', error: removal.error };
      if (context.view.pools.has(layer.pool)) this.session.step(`Done, inode ${layer.inode} from pool ${layer.pool} removed`);
      else this.session.step(`Pool ${layer.pool} does not exist any more: there is no data of ${layer.name} to remove`);
      await removeImageMetadata(context, marked.image, marked.revision);
      ids.push(fullInode(layer.pool, layer.inode));
      images.push(layer.name);
      lines.push(`Layer ${layer.name} deleted`);
    }
    return { json, text: lines.join('\n') };
  }
}

function find(view: ClusterView, name: string): InodeConfig {
  const image = view.imageByName(name);
  if (!image) throw new VitastorError('ERR_NOT_FOUND', `Layer ${name} not found`, { data: { image: name } });
  return image;
}

/** FROM … TO, topmost first. */
function chain(view: ClusterView, names: readonly string[]): InodeConfig[] {
  const [fromName = '', toName = fromName, ...rest] = names;
  if (rest.length)
    throw new VitastorError('ERR_INVALID_ARGUMENT', 'rm takes FROM and TO; use rm --exact to remove several images');
  const [from, to] = [find(view, fromName), find(view, toName)];
  if (from === to) return [from];
  const below = parentChain(view, to);
  const end = below.indexOf(from);
  if (end < 0) throw new VitastorError('ERR_INVALID_ARGUMENT', `${to.name} is not a descendant of ${from.name}`);
  return [to, ...below.slice(0, end + 1)];
}

/** Images by name or pattern, children before their parents. */
function selected(view: ClusterView, names: readonly string[], exact: boolean): InodeConfig[] {
  const images = exact
    ? names.map((name) => find(view, name))
    : [...view.inodes.values()].filter((image) => image.name !== '' && matchesAny(names, image.name, false));
  if (images.length === 0) throw new VitastorError('ERR_NOT_FOUND', `No images match ${names.join(', ')}`);
  const depth = new Map(images.map((image) => [image, parentChain(view, image).length]));
  return [...new Set(images)].sort((a, b) => (depth.get(b) ?? 0) - (depth.get(a) ?? 0));
}

/** TODO(merge): with the merge of layers, children take over the data of what is removed. */
function refuseWithOtherChildren(view: ClusterView, layers: readonly InodeConfig[]): void {
  for (const layer of layers) {
    const others = view.childrenOf(layer.pool, layer.inode).filter((child) => !layers.includes(child));
    if (!others.length) continue;
    throw new VitastorError(
      'ERR_BUSY',
      `Layer ${layer.name} has children (${others.map((child) => child.name).join(', ')}), and merging layers is not built yet: ` +
        `remove them first, or remove the chain with rm ${layer.name} ${others[0]?.name ?? ''}`,
    );
  }
}
