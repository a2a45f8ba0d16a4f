// SPDX-License-Identifier: GPL-2.0-or-later
// Options of `npm start`.

import { resolve } from 'node:path';
import { parseArgs } from 'node:util';

export const HELP = `npm start [-- OPTIONS]

Starts a cluster on this machine: etcd, a monitor and OSDs on sparse files; creates a pool and an image, writes and
verifies real data through fio, and stays up until Ctrl-C. The next start finds the data again.

  --osds N               how many OSDs (3); more than last time adds some
  --copies N             copies of each object (2)
  --pgs N                placement groups of the pool (32)
  --size SIZE            size of the image (1G)
  --disk-size SIZE       size of each OSD's file (4G; sparse, only written parts take space)
  --data DIR             data directory (data, in the repository)
  --immediate-commit X   none: flushes go down to the disks; all: the disks' caches are trusted, quicker (none)
  --once                 do the whole job, stop everything, exit 0 or 1
  --fresh                forget what is in the data directory (only if it was made by npm start)
  --no-figures           leave the short benchmark out
  -h, --help             this text
`;

export interface StartOptions {
  osds: number;
  copies: number;
  pgs: number;
  size: string;
  diskBytes: number;
  dir: string;
  immediateCommit: 'all' | 'none';
  once: boolean;
  fresh: boolean;
  figures: boolean;
}

/** An explained mistake of the user's. */
export class UsageError extends Error {}

const UNITS: Record<string, number> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

function bytes(name: string, text: string): number {
  const match = /^(\d+)([kmgt]?)$/i.exec(text);
  const unit = UNITS[match?.[2]?.toLowerCase() ?? 'x'];
  if (!match || unit === undefined) throw new UsageError(`--${name} ${text}: give a whole number with k, m, g or t, such as 4G`);
  return Number(match[1]) * unit;
}

function count(name: string, text: string, most: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > most) throw new UsageError(`--${name} ${text}: give a whole number from 1 to ${most}`);
  return value;
}

/** null: help is wanted. root: the repository. */
export function parseOptions(args: readonly string[], root: string): StartOptions | null {
  let values;
  try {
    ({ values } = parseArgs({
      args: [...args],
      strict: true,
      allowPositionals: false,
      options: {
        osds: { type: 'string', default: '3' },
        copies: { type: 'string', default: '2' },
        pgs: { type: 'string', default: '32' },
        size: { type: 'string', default: '1G' },
        'disk-size': { type: 'string', default: '4G' },
        data: { type: 'string' },
        'immediate-commit': { type: 'string', default: 'none' },
        once: { type: 'boolean', default: false },
        fresh: { type: 'boolean', default: false },
        'no-figures': { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }));
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
  if (values.help) return null;
  const commit = values['immediate-commit'];
  if (commit !== 'all' && commit !== 'none') throw new UsageError(`--immediate-commit ${commit}: give all or none`);
  const options: StartOptions = {
    osds: count('osds', values.osds, 100),
    copies: count('copies', values.copies, 16),
    pgs: count('pgs', values.pgs, 65535),
    size: values.size,
    diskBytes: bytes('disk-size', values['disk-size']),
    dir: values.data === undefined ? resolve(root, 'data') : resolve(process.env['INIT_CWD'] ?? '.', values.data),
    immediateCommit: commit,
    once: values.once,
    fresh: values.fresh,
    figures: !values['no-figures'],
  };
  if (options.copies > options.osds) {
    throw new UsageError(`--copies ${options.copies} needs as many hosts, and every OSD here is a host of its own: give --osds ${options.copies} or more`);
  }
  if (bytes('size', options.size) < 256 * 2 ** 20) throw new UsageError(`--size ${options.size}: the check needs at least 256M`);
  if (options.diskBytes < 2 ** 30) throw new UsageError('--disk-size: at least 1G');
  return options;
}
