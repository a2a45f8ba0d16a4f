// SPDX-License-Identifier: GPL-2.0-or-later

import {
  findLayer,
  inodeKeyOf,
  isVitastorError,
  nothingRemoved,
  removeLayers,
  VitastorError,
  type ClusterView,
  type InodeConfig,
  type JsonObject,
  type RemovedLayers,
} from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { matchesAny } from '../glob.js';
import { CliLayerWork, mergeFlags, mergeSettings } from '../layer-work.js';
import { flag, words } from '../list-flags.js';

/** Selections are made anew so often in a row without anything being removed. */
const MAX_RESTARTS = 10;

export default class Rm extends VitastorCommand {
  static override strict = false;
  static override summary = 'Remove images and their data';
  static override description =
    'rm FROM TO removes the chain of layers from FROM up to its descendant TO. Images that stand on a removed layer get what ' +
    'they read of it, and read the same as before. May be interrupted and repeated.';
  static override flags = {
    exact: flag({ summary: 'remove all images of these names' }),
    matching: flag({ summary: 'remove all images that match these patterns' }),
    'wait-list': flag({ summary: 'list everything before removing' }),
    'down-ok': flag({ summary: 'go on although OSDs are down' }),
    'writers-stopped': flag({ summary: 'nobody writes to images above: data may move down, where that is less' }),
    ...mergeFlags,
  };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(Rm);
    const names = words(argv);
    const [from = '', to = from] = names;
    const bulk = flags.exact || flags.matching;
    if (from === '') throw new VitastorError('ERR_INVALID_ARGUMENT', 'Layer to remove is missing');
    if (!bulk && names.length > 2)
      throw new VitastorError('ERR_INVALID_ARGUMENT', 'rm takes FROM and TO; use rm --exact to remove several images');
    const work = new CliLayerWork(this.session, mergeSettings(flags), { waitList: flags['wait-list'], downOk: flags['down-ok'] });
    const options = { writersStopped: flags['writers-stopped'] };
    const done = nothingRemoved();
    const json = (): JsonObject => ({ ...resultJson(done, bulk), ...(bulk ? {} : work.lastRemoval) });
    try {
      if (bulk) await removeSelected(work, names, flags.exact, options, done);
      else await removeLayers(work, from, to, options, done);
    } catch (error) {
      // What had been done when it failed is worth knowing; that nothing was, is no data.
      const anything = Object.values(json()).some((value) => (Array.isArray(value) ? value.length > 0 : value !== ''));
      if (!(error instanceof VitastorError) || !anything) throw error;
      return { json: json(), text: '', error };
    }
    return { json: json(), text: done.deletedImages.map((name) => `Layer ${name} deleted`).join('\n') };
  }
}

function resultJson(done: RemovedLayers, bulk: boolean): JsonObject {
  return {
    deleted_ids: done.deletedIds, deleted_images: done.deletedImages, rebased_images: done.rebasedImages,
    ...(bulk ? {} : { renamed_from: done.renamedFrom, renamed_to: done.renamedTo }),
  };
}

/** Chain by chain, children first. The selection is made anew after each, and when somebody else has changed something. */
async function removeSelected(
  work: CliLayerWork,
  names: readonly string[],
  exact: boolean,
  options: { writersStopped: boolean },
  done: RemovedLayers,
): Promise<void> {
  let restarts = 0;
  for (let first = true; ; first = false) {
    const { view } = await work.load();
    const images = exact ? named(view, names, first) : matching(view, names);
    const [from, to] = nextChain(view, images);
    if (!from || !to) {
      if (first) throw new VitastorError('ERR_NOT_FOUND', `No images match ${names.join(', ')}`);
      return;
    }
    try {
      await removeLayers(work, from.name, to.name, options, done);
      restarts = 0;
    } catch (error) {
      if (!isVitastorError(error, 'ERR_CONFLICT') || ++restarts > MAX_RESTARTS) throw error;
    }
  }
}

/** All must be there at the beginning. */
function named(view: ClusterView, names: readonly string[], first: boolean): InodeConfig[] {
  const images = names.map((name) => (first ? findLayer(view, name) : view.imageByName(name)));
  return [...new Set(images)].filter((image) => image !== null);
}

function matching(view: ClusterView, patterns: readonly string[]): InodeConfig[] {
  return [...view.inodes.values()].filter((image) => image.name !== '' && matchesAny(patterns, image.name, false));
}

/** A selected image on which no selected one stands, down to where that ends or another branch begins. */
function nextChain(view: ClusterView, images: readonly InodeConfig[]): [from?: InodeConfig, to?: InodeConfig] {
  const selected = new Set(images);
  const above = (image: InodeConfig) => view.childrenOf(image.pool, image.inode).filter((child) => selected.has(child));
  // In a loop nobody is topmost: the removal itself says what is wrong.
  const to = images.find((image) => above(image).length === 0) ?? images[0];
  let from = to;
  for (let steps = 0; from?.parent && steps < images.length; steps++) {
    const parent = view.inodes.get(inodeKeyOf(from.parent));
    if (!parent || !selected.has(parent) || above(parent).length > 1) break;
    from = parent;
  }
  return from && to ? [from, to] : [];
}
