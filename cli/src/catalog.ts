// SPDX-License-Identifier: GPL-2.0-or-later
// All commands: names, other names, one line of help, and where the code is (loaded when it is run).

import type { Config } from '@oclif/core/config';
import type { FlagInput } from '@oclif/core/interfaces';
import { clusterFlags } from '@vitastor/core';
import type { VitastorCommand } from './base-command.js';

export interface CommandClass {
  new (argv: string[], config: Config): VitastorCommand;
  summary?: string | undefined;
  description?: string | undefined;
  usage?: string | string[] | undefined;
  flags: FlagInput;
}

export interface CatalogEntry {
  name: string;
  aliases: readonly string[];
  usage: string;
  summary: string;
  load(): Promise<{ default: CommandClass }>;
  /** Options that have another name in this command: short forms mostly. */
  rename?: Readonly<Record<string, string>>;
  /** What its arguments are, for completion. */
  takes?: 'images' | 'pools' | 'osds' | readonly string[];
  /** It destroys: an option that is misspelled is an error, not a warning. */
  destroys?: true;
}

const POOL_SHORT = { size: 'pg_size', count: 'pg_count' } as const;

export const CATALOG: readonly CatalogEntry[] = [
  { name: 'status', aliases: [], usage: 'status', summary: 'Show the state of the cluster', load: () => import('./commands/status.js') },
  { name: 'df', aliases: [], usage: 'df [-l]', summary: 'Show space of the pools', load: () => import('./commands/df.js') },
  { name: 'ls', aliases: [], usage: 'ls [-l] [-p POOL] [--tree] [GLOB...]', summary: 'List images', load: () => import('./commands/ls.js'), takes: 'images' },
  { name: 'create', aliases: [], usage: 'create -s SIZE [-p POOL] [--parent PARENT[@SNAP]] NAME', summary: 'Create an image, a clone or a snapshot', load: () => import('./commands/create.js'), takes: 'images' },
  { name: 'snap-create', aliases: [], usage: 'snap-create IMAGE@SNAPSHOT', summary: 'Create a snapshot', load: () => import('./commands/snap-create.js'), takes: 'images' },
  { name: 'modify', aliases: [], usage: 'modify NAME [--rename NEW] [--resize SIZE] [--readonly|--readwrite]', summary: 'Rename or resize an image, change its flags', load: () => import('./commands/modify.js'), takes: 'images' },
  { name: 'rm', aliases: [], usage: 'rm FROM [TO] | rm --exact|--matching NAME...', summary: 'Remove images and their data', load: () => import('./commands/rm.js'), takes: 'images', destroys: true },
  { name: 'rm-data', aliases: [], usage: 'rm-data --pool POOL --inode INODE', summary: 'Remove the data of an inode, not its metadata', load: () => import('./commands/rm-data.js'), destroys: true },
  { name: 'describe', aliases: [], usage: 'describe [--osds 1,2] [--object-state LIST] [--pool POOL] ...', summary: 'List unclean objects and where they lie', load: () => import('./commands/describe.js') },
  { name: 'fix', aliases: [], usage: 'fix [--objects LIST] --bad-osds 1,2 [--part N] [--check no]', summary: 'Delete wrong copies of inconsistent objects', load: () => import('./commands/fix.js'), destroys: true },
  { name: 'alloc-osd', aliases: [], usage: 'alloc-osd', summary: 'Reserve a new OSD number and print it', load: () => import('./commands/alloc-osd.js') },
  { name: 'rm-osd', aliases: [], usage: 'rm-osd [-f] [--allow-data-loss] [--allow-up] [--dry-run] ID...', summary: 'Forget OSDs that are gone for good', load: () => import('./commands/rm-osd.js'), takes: 'osds', destroys: true },
  { name: 'modify-osd', aliases: [], usage: 'modify-osd [--tags A,B] [--reweight W] [--noout true|false] [-f] ID', summary: 'Set weight, tags and noout of an OSD', load: () => import('./commands/modify-osd.js'), takes: 'osds' },
  { name: 'osd-tree', aliases: [], usage: 'osd-tree [-l]', summary: 'Show the placement tree', load: () => import('./commands/osd-tree.js') },
  { name: 'osds', aliases: ['ls-osd', 'ls-osds', 'osd-ls'], usage: 'osds [-l]', summary: 'List OSDs', load: () => import('./commands/osds.js') },
  { name: 'pg-list', aliases: ['pg-ls', 'list-pg', 'ls-pg', 'ls-pgs', 'pgs'], usage: 'pg-list [--pool POOL] [--osd 1,2] [STATE...]', summary: 'List placement groups', load: () => import('./commands/pg-list.js') },
  { name: 'create-pool', aliases: ['pool-create'], usage: 'create-pool NAME (-s COPIES | --ec N+K) -n PGS', summary: 'Create a pool', load: () => import('./commands/create-pool.js'), rename: POOL_SHORT },
  { name: 'modify-pool', aliases: ['pool-modify'], usage: 'modify-pool ID|NAME [--name NEW] ...', summary: 'Change a pool', load: () => import('./commands/modify-pool.js'), rename: POOL_SHORT, takes: 'pools' },
  { name: 'rm-pool', aliases: ['pool-rm'], usage: 'rm-pool [-f] ID|NAME', summary: 'Remove a pool', load: () => import('./commands/rm-pool.js'), takes: 'pools', destroys: true },
  { name: 'ls-pools', aliases: ['ls-pool', 'pool-ls', 'pools'], usage: 'ls-pools [-l] [--detail] [GLOB...]', summary: 'List pools', load: () => import('./commands/ls-pools.js'), takes: 'pools' },
  { name: 'flags', aliases: [], usage: 'flags [set|unset FLAG...]', summary: 'Show, set or clear switches of the whole cluster', load: () => import('./commands/flags.js'), takes: ['set', 'unset', ...clusterFlags()] },
  { name: 'completion', aliases: [], usage: 'completion bash|zsh', summary: 'Print a script that completes words in your shell', load: () => import('./commands/completion.js'), takes: ['bash', 'zsh'] },
];

/** Commands of Vitastor that people will look for, and what there is instead. */
export const NOT_HERE: ReadonlyMap<string, string> = new Map([
  ['flatten', 'merging layers is not built yet'],
  ['merge', 'merging layers is not built yet'],
  ['merge-data', 'merging layers is not built yet'],
  ['dd', 'copying is not built yet; use fio or qemu-img'],
  ['snap-rm', 'use vitastor-cli rm IMAGE@SNAPSHOT'],
  ['simple-offsets', 'use vitastor-disk simple-offsets'],
]);

export function findCommand(name: string): CatalogEntry | undefined {
  return CATALOG.find((entry) => entry.name === name || entry.aliases.includes(name));
}
