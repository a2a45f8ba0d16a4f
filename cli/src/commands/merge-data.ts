// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { layerChain, VitastorError, type ClusterView, type InodeConfig } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { CliLayerWork, mergeFlags, mergeSettings } from '../layer-work.js';
import { flag, isOn, words } from '../list-flags.js';

export default class MergeData extends VitastorCommand {
  static override strict = false;
  static override summary = 'Merge the data of a chain of layers into one of them, without changing metadata';
  static override description =
    'Afterwards TARGET alone holds what TO showed of the layers from FROM to TO. Images that stand on TARGET, or between it and ' +
    'TO, read differently then. rm and flatten do what most people want; this is a part of them.';
  static override flags = {
    target: string({ summary: 'layer between FROM and TO that takes the data; default FROM', helpValue: 'TARGET' }),
    'delete-source': string({ summary: 'delete the data of the other layers afterwards', helpValue: '1' }),
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
    const deletes = isOn(flags['delete-source']);
    const chain = layerChain(view, from, to);
    const target = chain.find((layer) => layer.name === into);
    if (!target)
      throw new VitastorError('ERR_INVALID_ARGUMENT', `Target ${into} is not between ${from} and ${to}`);
    const sources = chain.filter((layer) => layer !== target);
    if (deletes) refuseWithOthers(view, chain, sources);
    work.check(view, chain);
    await work.merge(view, chain, target);
    if (deletes) for (const layer of [...sources].reverse()) await work.purge(view, layer);
    return { json: { from, to, into }, text: `Layers ${from} to ${to} merged into ${into}` };
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
