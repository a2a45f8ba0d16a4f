// SPDX-License-Identifier: GPL-2.0-or-later

import { changeFlags, CLUSTER_FLAGS, clusterFlags, isClusterFlag, isFlagSet, isOnlineFlag, isParameter, VitastorError, type ClusterFlag, type ClusterView } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { words } from '../list-flags.js';
import { didYouMean } from '../suggest.js';
import { formatTable } from '../table.js';

export default class Flags extends VitastorCommand {
  static override strict = false;
  static override summary = 'Show, set or clear switches of the whole cluster';
  static override description =
    `They are settings in /config/global. flags set FLAG..., flags unset FLAG...; FLAG is one of\n` +
    clusterFlags().map((name) => `  ${name}: ${CLUSTER_FLAGS[name]}`).join('\n');

  async run(): Promise<Outcome> {
    const { argv } = await this.parse(Flags);
    const [verb, ...names] = words(argv);
    if (verb === undefined) return this.#list();
    if (verb !== 'set' && verb !== 'unset')
      throw invalid(`flags ${verb}: use flags, flags set FLAG... or flags unset FLAG...${didYouMean(verb, ['set', 'unset'])}`);
    if (names.length === 0) throw invalid(`Which flag? One of ${clusterFlags().join(', ')}`);
    const wanted = names.map(flagOf);
    const inFile = await this.#inFile();
    const context = await this.session.admin([]);
    const changed = await changeFlags(context, wanted, verb === 'set');
    const lines = [...new Set(wanted)].map((flag) => changeText(flag, verb === 'set', changed.includes(flag)));
    if (verb === 'unset') lines.push(...inFile.filter(({ flag }) => wanted.includes(flag)).map(({ text }) => text));
    const text = lines.join('\n');
    return { text, json: this.#json((flag) => (wanted.includes(flag) ? verb === 'set' : isFlagSet(context.view, flag)), context.view) };
  }

  /** Flags that the configuration file of this machine sets: its OSDs keep to them wherever /config/global says nothing. */
  async #inFile(): Promise<{ flag: ClusterFlag; text: string }[]> {
    const config = await this.session.config();
    return clusterFlags()
      .filter((flag) => isParameter(flag) && config.source(flag) === 'file' && config.value(flag) === true)
      .map((flag) => ({ flag, text: `${flag} is set in ${config.filePath ?? 'the configuration file'}: OSDs of this machine keep to that. Take it out there` }));
  }

  async #list(): Promise<Outcome> {
    const inFile = await this.#inFile();
    const view = await this.session.load([]);
    const rows = clusterFlags().map((flag) => [flag, isFlagSet(view, flag) ? 'set' : '-', CLUSTER_FLAGS[flag]]);
    const table = formatTable([{ title: 'FLAG' }, { title: 'STATE' }, { title: 'WHILE IT IS SET' }], rows, this.session.table);
    const noout = nooutOsds(view);
    const hint = noout.length ? `\nnoout of OSD ${noout.join(', ')}: see vitastor-cli modify-osd` : '';
    return { text: [table + hint, ...inFile.map(({ text }) => text)].join('\n'), json: this.#json((flag) => isFlagSet(view, flag), view) };
  }

  #json(isSet: (flag: ClusterFlag) => boolean, view: ClusterView) {
    return { ...Object.fromEntries(clusterFlags().map((flag) => [flag, isSet(flag)])), noout_osds: nooutOsds(view) };
  }
}

function nooutOsds(view: ClusterView): number[] {
  return [...view.osdConfig].filter(([, config]) => config.noout).map(([osd]) => osd).sort((a, b) => a - b);
}

function flagOf(name: string): ClusterFlag {
  const flag = name.replace(/-/g, '_');
  if (isClusterFlag(flag)) return flag;
  if (flag === 'noout') throw invalid('noout is a setting of single OSDs: use modify-osd --noout true ID');
  throw invalid(`${name} is not a flag${didYouMean(flag, clusterFlags()) || `: flags are ${clusterFlags().join(', ')}`}`);
}

function changeText(flag: ClusterFlag, on: boolean, changed: boolean): string {
  if (!changed) return `${flag} ${on ? 'was set already' : 'was not set'}`;
  const when = isOnlineFlag(flag) ? '' : '; OSDs that run take it over when they are restarted';
  return `${flag} is ${on ? `set: ${CLUSTER_FLAGS[flag]}` : 'cleared'}${when}`;
}

function invalid(text: string): VitastorError {
  return new VitastorError('ERR_INVALID_ARGUMENT', text);
}
