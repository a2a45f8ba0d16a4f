// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { inodeKeyOf, layerChain, VitastorError, type ClusterView, type InodeConfig } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { CliLayerWork, mergeFlags, mergeSettings } from '../layer-work.js';
import { CommandImages } from '../copy/images.js';
import { firstUncovered } from '../coverage.js';
import { flag, isOn, words } from '../list-flags.js';
import { dataOption, isWithoutData } from '../removal.js';

export default class MergeData extends VitastorCommand {
  static override strict = false;
  static override summary = 'Merge the data of a chain of layers into one of them, without changing metadata';
  static override description =
    'Afterwards TARGET alone holds what TO showed of the layers from FROM to TO. Images that stand on TARGET, or between it and ' +
    'TO, read differently then. rm and flatten do what most people want; this is a part of them.';
  static override flags = {
    target: string({ summary: 'layer between FROM and TO that takes the data; default FROM', helpValue: 'TARGET' }),
    'delete-source': string({ summary: 'delete the data of the other layers afterwards', helpValue: '1' }),
    'check-delete-source': string({ summary: 'the same, after a look whether the target has all that they hold', helpValue: '1' }),
    'down-ok': flag({ summary: 'with --delete-source: go on although OSDs are down' }),
    ...mergeFlags,
  };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(MergeData);
    const [from = '', to = '', ...rest] = words(argv);
    if (from === '' || to === '' || rest.length > 0 || from === to)
      throw new VitastorError('ERR_INVALID_ARGUMENT', 'merge-data takes two different layers, FROM and its descendant TO');
    const into = flags.target ?? from;
    const work = new CliLayerWork(this.session, mergeSettings(flags), { waitList: false, downOk: flags['down-ok'] });
    const { view } = await work.load();
    const checks = isOn(flags['check-delete-source']);
    const deletes = isOn(flags['delete-source']) || checks;
    const chain = layerChain(view, from, to);
    const target = chain.find((layer) => layer.name === into);
    if (!target)
      throw new VitastorError('ERR_INVALID_ARGUMENT', `Target ${into} is not between ${from} and ${to}`);
    const sources = chain.filter((layer) => layer !== target);
    if (deletes) refuseWithOthers(view, chain, sources);
    work.check(view, chain);
    await work.merge(view, chain, target);
    if (checks) await this.#requireCovered(view, sources, target);
    if (deletes) for (const layer of [...sources].reverse()) await work.purge(view, layer);
    return { json: { from, to, into }, text: `Layers ${from} to ${to} merged into ${into}` };
  }

  /** By the bitmaps, without reading data. */
  async #requireCovered(view: ClusterView, sources: readonly InodeConfig[], target: InodeConfig): Promise<void> {
    const placed = sources.filter((layer) => !isWithoutData(view, layer.pool));
    if (placed.length === 0) return;
    const images = await CommandImages.start(this.session);
    try {
      const options = { iodepth: dataOption(this.session, 'iodepth', 32), parallelOsds: dataOption(this.session, 'parallel_osds', 4) };
      const map = (layers: readonly InodeConfig[]) => images.client.mapLayers({ layers: layers.map(inodeKeyOf), ...options });
      const missing = await firstUncovered(map(placed), map([target]));
      if (missing === null) return;
      throw new VitastorError(
        'ERR_IO',
        `${target.name} has nothing at offset ${missing}, where a merged layer has data: nothing was deleted. Somebody writes to them, or a discard was made; repeat the command`,
        { retryable: true },
      );
    } finally {
      await images.close();
    }
  }
}

function refuseWithOthers(view: ClusterView, chain: readonly InodeConfig[], sources: readonly InodeConfig[]): void {
  for (const layer of sources) {
    const other = view.childrenOf(layer.pool, layer.inode).find((child) => !chain.includes(child));
    if (!other) continue;
    throw new VitastorError(
      'ERR_BUSY',
      `Image ${other.name} stands on ${layer.name}, whose data would be deleted: leave --delete-source out, or use rm`,
    );
  }
}
