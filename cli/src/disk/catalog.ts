// SPDX-License-Identifier: GPL-2.0-or-later
// All commands of vitastor-disk: names, one line of help, and where the code is (loaded when it is run). Source: tools 3.2.

import type { Config } from '@oclif/core/config';
import type { FlagInput } from '@oclif/core/interfaces';
import type { DiskCommand } from './environment.js';

export interface DiskCommandClass {
  new (argv: string[], config: Config): DiskCommand;
  description?: string | undefined;
  flags: FlagInput;
}

export interface DiskCatalogEntry {
  name: string;
  usage: string;
  summary: string;
  load(): Promise<{ default: DiskCommandClass }>;
}

export const DISK_CATALOG: readonly DiskCatalogEntry[] = [
  { name: 'read-sb', usage: 'read-sb [--force] DEVICE', summary: 'Print the parameters in the superblock of a device as JSON', load: () => import('./commands/read-sb.js') },
  { name: 'write-sb', usage: 'write-sb DEVICE', summary: 'Write a superblock with the JSON parameters from standard input', load: () => import('./commands/write-sb.js') },
  { name: 'update-sb', usage: 'update-sb DEVICE [--force] --PARAM VALUE...', summary: 'Change parameters in the superblock of a device', load: () => import('./commands/update-sb.js') },
  { name: 'udev', usage: 'udev DEVICE', summary: 'Print what a udev rule wants to know of a device', load: () => import('./commands/udev.js') },
  { name: 'simple-offsets', usage: 'simple-offsets DEVICE', summary: 'Calculate the layout of an OSD without superblock', load: () => import('./commands/simple-offsets.js') },
  { name: 'dump-meta', usage: 'dump-meta DEVICE | OSD OPTIONS', summary: 'Print the objects of a stopped OSD as JSON', load: () => import('./commands/dump-meta.js') },
  { name: 'dump-journal', usage: 'dump-journal [--json] [--format entries|blocks] DEVICE | OSD OPTIONS', summary: 'Print what the metadata log of a stopped OSD holds', load: () => import('./commands/dump-journal.js') },
  { name: 'check', usage: 'check [--no-data] [--json] DEVICE | OSD OPTIONS', summary: 'Check the store of a stopped OSD and name every damage', load: () => import('./commands/check.js') },
  {
    name: 'resize', usage: 'resize [--data-size S] [--move-meta T] [--new-meta-size S] [--dry-run] DEVICE',
    summary: 'Resize the areas of a stopped OSD, or move its metadata', load: () => import('./commands/resize.js'),
  },
  {
    name: 'raw-resize', usage: 'raw-resize OSD OPTIONS --new_data_len S --new_meta_device T --new_meta_offset S --new_meta_len S',
    summary: 'The same, with all places said one by one', load: () => import('./commands/raw-resize.js'),
  },
];

export function findDiskCommand(name: string): DiskCatalogEntry | undefined {
  return DISK_CATALOG.find((entry) => entry.name === name);
}
