// SPDX-License-Identifier: GPL-2.0-or-later

import { VitastorError, type ClusterView } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { completionScript, SHELLS } from '../completion.js';
import { words } from '../list-flags.js';
import { didYouMean } from '../suggest.js';

/** What the scripts ask for: names, one a line. */
const NAMES: Readonly<Record<string, (view: ClusterView) => string[]>> = {
  images: (view) => [...view.inodes.values()].map((image) => image.name),
  pools: (view) => [...view.pools.values()].map((pool) => pool.name),
  osds: (view) => [...new Set([...view.osdStats.keys(), ...view.osdStates.keys()])].sort((a, b) => a - b).map(String),
};

export default class Completion extends VitastorCommand {
  static override strict = false;
  static override summary = 'Print a script that completes words in your shell';
  static override description = 'Use it by: source <(vitastor-cli completion bash)';

  async run(): Promise<Outcome> {
    const { argv } = await this.parse(Completion);
    const [what = ''] = words(argv);
    const shell = SHELLS.find((name) => name === what);
    if (shell !== undefined) {
      const script = await completionScript(shell);
      return { text: script.trimEnd(), json: script };
    }
    const names = Object.hasOwn(NAMES, what) ? NAMES[what] : undefined;
    if (!names) throw new VitastorError('ERR_INVALID_ARGUMENT', `Which shell? ${SHELLS.join(' or ')}${didYouMean(what, SHELLS)}`);
    const found = names(await this.session.load(what === 'osds' ? ['osd/state/', 'osd/stats/'] : [])).filter((name) => name !== '');
    if (what !== 'osds') found.sort();
    return { text: found.join('\n'), json: found };
  }
}
