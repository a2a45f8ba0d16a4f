// SPDX-License-Identifier: GPL-2.0-or-later

import { formatSize, type JsonObject, VitastorError } from '@vitastor/core';
import { flag } from '../../list-flags.js';
import { damageText } from '../damage.js';
import { atMostOneDevice } from '../devices.js';
import { DiskCommand } from '../environment.js';
import { jsonLine, withoutKind } from '../native.js';

export default class Check extends DiskCommand {
  static override description =
    'Reads superblocks, checkpoints, the metadata log, and with checksums all data. Changes nothing. Exit code 1 if anything is damaged.';
  static override flags = { 'no-data': flag({ summary: 'Metadata only' }) };
  static override strict = false;

  async run(): Promise<number> {
    const { flags, argv } = await this.parse(Check);
    const parameters = await this.osdParameters(atMostOneDevice(argv));
    const { json, environment } = this.context;
    let result: JsonObject | null = null;
    let damages = 0;
    let failure: VitastorError | null = null;
    if (json) this.print('{"damages":[');
    try {
      await this.job({ kind: 'check', verifyData: !flags['no-data'], ...this.place(parameters) }, (line) => {
        if (line.startsWith('{"kind":"damage"')) {
          this.print(json ? `${damages > 0 ? ',' : ''}\n${withoutKind(line)}` : `${damageText(jsonLine(line))}\n`);
          damages++;
        } else if (line.startsWith('{"kind":"progress"')) {
          const at = jsonLine(line);
          if (!json)
            environment.stderr(
              `checked ${formatSize(Number(at['checked_bytes']))}, ${String(at['objects'])} of ${String(at['of_objects'])} objects\n`,
            );
        } else if (line.startsWith('{"kind":"result"')) {
          result = jsonLine(line);
        }
      });
    } catch (error) {
      if (!(error instanceof VitastorError)) throw error;
      failure = error;
    }
    if (json) {
      this.print(
        `],"result":${result === null ? 'null' : withoutKind(JSON.stringify(result))}${failure ? `,"error_text":${JSON.stringify(failure.message)}` : ''}}\n`,
      );
      return failure !== null || damages > 0 ? 1 : 0;
    }
    if (failure) throw failure;
    this.print(
      `${damages === 0 ? 'no damage' : `${damages} ${damages === 1 ? 'damage' : 'damages'}`}: ${summary(result ?? {})}\n`,
    );
    return damages > 0 ? 1 : 0;
  }
}

function summary(result: JsonObject): string {
  const n = (name: string): string => String(result[name] ?? 0);
  return (
    `${n('objects')} objects, ${n('used_blocks')} blocks used, ${n('free_blocks')} free, ${n('log_pages')} pages of the metadata log, ` +
    `${formatSize(Number(result['checked_bytes'] ?? 0))} of data checked`
  );
}
