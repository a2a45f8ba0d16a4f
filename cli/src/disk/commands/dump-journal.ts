// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { type JsonObject, VitastorError } from '@vitastor/core';
import { flag } from '../../list-flags.js';
import { damageText } from '../damage.js';
import { atMostOneDevice } from '../devices.js';
import { DiskCommand } from '../environment.js';
import { jsonLine, withoutKind } from '../native.js';

export default class DumpJournal extends DiskCommand {
  static override description =
    'There is no journal here: small writes go to the metadata log, which is what is printed, from its start to its end.';
  static override flags = {
    format: string({ summary: 'entries (default; also data) or blocks: the pages of the log', helpValue: 'FORMAT' }),
    all: flag({ summary: 'Accepted; the whole log is printed anyway' }),
  };
  static override strict = false;

  async run(): Promise<number> {
    const { flags, argv } = await this.parse(DumpJournal);
    const format = flags.format ?? 'entries';
    if (!['entries', 'data', 'blocks'].includes(format))
      throw new VitastorError('ERR_INVALID_ARGUMENT', `format: "${format}" is not entries, data or blocks`);
    const parameters = await this.osdParameters(atMostOneDevice(argv));
    const { json } = this.context;
    let first = true;
    let damages = 0;
    if (json) this.print('[\n');
    await this.job(
      { kind: 'dump_log', form: format === 'blocks' ? 'pages' : 'entries', ...this.place(parameters) },
      (line) => {
        if (line.startsWith('{"kind":"entry"') || line.startsWith('{"kind":"page"')) {
          this.print(json ? `${first ? '' : ',\n'}${withoutKind(line)}` : `${lineText(jsonLine(line))}\n`);
          first = false;
        } else if (line.startsWith('{"kind":"damage"')) {
          damages++;
          this.context.environment.stderr(`${damageText(jsonLine(line))}\n`);
        }
      },
    );
    if (json) this.print('\n]\n');
    return damages > 0 ? 1 : 0;
  }
}

function lineText(entry: JsonObject): string {
  const { kind: _kind, writes, ...fields } = entry;
  const words = Object.entries(fields).map(([name, value]) => `${name}=${String(value)}`);
  return [...words, ...(Array.isArray(writes) ? [`versions=${writes.length}`] : [])].join(' ');
}
