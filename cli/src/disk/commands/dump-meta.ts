// SPDX-License-Identifier: GPL-2.0-or-later

import { stringifyJson } from '@vitastor/core';
import { damageText } from '../damage.js';
import { atMostOneDevice } from '../devices.js';
import { DiskCommand } from '../environment.js';
import { jsonLine, withoutKind } from '../native.js';

export default class DumpMeta extends DiskCommand {
  static override description =
    'One object a line. Exit code 1 if the metadata are damaged (named on standard error); what could be read is printed.';
  static override strict = false;

  async run(): Promise<number> {
    const { argv } = await this.parse(DumpMeta);
    const parameters = await this.osdParameters(atMostOneDevice(argv));
    let begun = false;
    let first = true;
    let damages = 0;
    await this.job({ kind: 'dump_objects', ...this.place(parameters) }, (line) => {
      if (line.startsWith('{"kind":"object"')) {
        this.print(`${first ? '' : ',\n'}${withoutKind(line)}`);
        first = false;
      } else if (line.startsWith('{"kind":"store"')) {
        const { kind: _kind, format, ...store } = jsonLine(line);
        this.print(`${stringifyJson({ version: `store-${String(format)}`, ...store }).slice(0, -1)},"entries":[\n`);
        begun = true;
      } else if (line.startsWith('{"kind":"damage"')) {
        damages++;
        this.context.environment.stderr(`${damageText(jsonLine(line))}\n`);
      }
    });
    if (begun) this.print('\n]}\n');
    return damages > 0 ? 1 : 0;
  }
}
