// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { formatSize, requireSize, stringifyJson, VitastorError, type JsonObject } from '@vitastor/core';
import { oneDevice } from '../devices.js';
import { DiskCommand } from '../environment.js';
import { jsonLine } from '../native.js';

const size = (summary: string) => string({ summary, helpValue: 'SIZE' });

export default class SimpleOffsets extends DiskCommand {
  static override description =
    'Metadata log and data lie in one area here, so that the three offsets are the same; an OSD takes them as they are printed.';
  static override flags = {
    object_size: size('Size of a block (default 128k); also --block_size'),
    block_size: size('Size of a block'),
    bitmap_granularity: size('Smallest write (default 4k)'),
    journal_size: size('Accepted; there is no journal'),
    journal_offset: size('Where the area begins (default 0)'),
    device_block_size: size('Accepted; everything is aligned to 4 KB'),
    device_size: size('Instead of the real size of the device'),
    data_csum_type: string({ summary: 'none or crc32c (default)', helpValue: 'TYPE' }),
    csum_block_size: size('Accepted; every 4 KB have a checksum'),
    meta_format: string({ summary: 'Accepted; the store has one format' }),
    meta_reserve: string({ summary: 'Accepted; the metadata log sizes itself' }),
    format: string({ summary: 'json, options, env or text (default)', helpValue: 'FORMAT' }),
  };
  static override strict = false;

  async run(): Promise<number> {
    const { flags, argv } = await this.parse(SimpleOffsets);
    const device = oneDevice(argv);
    const format = this.context.json ? 'json' : (flags.format ?? 'text');
    if (!['json', 'options', 'env', 'text'].includes(format))
      throw new VitastorError('ERR_INVALID_ARGUMENT', `format: "${format}" is not json, options, env or text`);
    const csum = flags.data_csum_type ?? 'crc32c';
    if (csum !== 'none' && csum !== 'crc32c')
      throw new VitastorError('ERR_INVALID_ARGUMENT', `data_csum_type: "${csum}" is not none or crc32c`);
    const offset = requireSize('journal_offset', flags.journal_offset ?? '0');
    let layout: JsonObject = {};
    await this.job(
      {
        kind: 'layout',
        dataDevice: device,
        dataOffset: offset,
        blockSize: Number(requireSize('object_size', flags.object_size ?? flags.block_size ?? '128k')),
        bitmapGranularity: Number(requireSize('bitmap_granularity', flags.bitmap_granularity ?? '4k')),
        checksums: csum === 'crc32c',
        deviceSize: requireSize('device_size', flags.device_size ?? '0'),
      },
      (line) => (layout = jsonLine(line)),
    );
    const offsets = { journal_offset: Number(offset), meta_offset: Number(offset), data_offset: Number(offset) };
    if (format === 'json') this.print(`${stringifyJson({ data_device: device, ...offsets })}\n`);
    else if (format === 'env')
      this.print(
        Object.entries({ data_device: device, ...offsets })
          .map(([name, value]) => `${name}=${value}\n`)
          .join(''),
      );
    else if (format === 'options')
      this.print(
        `${Object.entries({ data_device: device, ...offsets })
          .map(([name, value]) => `--${name} ${value}`)
          .join(' ')}\n`,
      );
    else this.print(describe(device, offset, layout));
    return 0;
  }
}

function describe(device: string, offset: bigint, layout: JsonObject): string {
  const bytes = (name: string): string => formatSize(BigInt(String(layout[name] ?? 0)));
  return (
    `${device}: one area from byte ${offset} on\n` +
    `  metadata log  ${bytes('log_size')} at byte ${String(layout['log_offset'])}\n` +
    `  data          ${bytes('data_bytes')} at byte ${String(layout['data_offset'])}, ${String(layout['block_count'])} blocks\n` +
    `Start the OSD with --data_device ${device}${offset === 0n ? '' : ` --data_offset ${offset}`}\n`
  );
}
