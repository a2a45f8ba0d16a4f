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
  /** Names of files are arguments, too. */
  files?: true;
  /** Its arguments are key=value, these keys: of images, of files, of something else. */
  assigns?: { images: readonly string[]; files: readonly string[]; others: readonly string[] };
  /** It destroys: an option that is misspelled is an error, not a warning. */
  destroys?: true;
}

const POOL_SHORT = { size: 'pg_size', count: 'pg_count' } as const;

const DD_WORDS = {
  images: ['iimg', 'oimg'], files: ['if', 'of'],
  others: ['bs', 'count', 'skip', 'seek', 'iodepth', 'status', 'size', 'conv', 'iflag', 'oflag'],
} as const;

export const CATALOG: readonly CatalogEntry[] = [
  { name: 'status', aliases: [], usage: 'status', summary: 'Show the state of the cluster', load: () => import('./commands/status.js') },
  { name: 'df', aliases: [], usage: 'df [-l]', summary: 'Show space of the pools', load: () => import('./commands/df.js') },
  { name: 'ls', aliases: [], usage: 'ls [-l] [-p POOL] [--tree] [GLOB...]', summary: 'List images', load: () => import('./commands/ls.js'), takes: 'images' },
  { name: 'create', aliases: [], usage: 'create -s SIZE [-p POOL] [--parent PARENT[@SNAP]] NAME', summary: 'Create an image, a clone or a snapshot', load: () => import('./commands/create.js'), takes: 'images' },
  { name: 'snap-create', aliases: [], usage: 'snap-create IMAGE@SNAPSHOT', summary: 'Create a snapshot', load: () => import('./commands/snap-create.js'), takes: 'images' },
  { name: 'modify', aliases: [], usage: 'modify NAME [--rename NEW] [--resize SIZE] [--readonly|--readwrite]', summary: 'Rename or resize an image, change its flags or limits', load: () => import('./commands/modify.js'), takes: 'images' },
  { name: 'rm', aliases: ['snap-rm'], usage: 'rm FROM [TO] | rm --exact|--matching NAME...', summary: 'Remove images and their data', load: () => import('./commands/rm.js'), takes: 'images', destroys: true },
  { name: 'rm-data', aliases: [], usage: 'rm-data --pool POOL --inode INODE', summary: 'Remove the data of an inode, not its metadata', load: () => import('./commands/rm-data.js'), destroys: true },
  { name: 'flatten', aliases: [], usage: 'flatten LAYER', summary: 'Copy what an image reads of its parents into it, and detach it', load: () => import('./commands/flatten.js'), takes: 'images' },
  { name: 'merge-data', aliases: ['merge'], usage: 'merge-data FROM TO [--target TARGET]', summary: 'Merge the data of layers, without changing metadata', load: () => import('./commands/merge-data.js'), takes: 'images', destroys: true },
  { name: 'diff', aliases: [], usage: 'diff IMAGE --from SNAP [--to SNAP]', summary: 'List what has changed since a snapshot', load: () => import('./commands/diff.js'), takes: 'images' },
  { name: 'export', aliases: [], usage: 'export IMAGE[@SNAP] [--from SNAP] [--format stream|raw] [FILE|-]', summary: 'Write an image, or what has changed since a snapshot, to a file or pipe', load: () => import('./commands/export.js'), takes: 'images', files: true, destroys: true },
  { name: 'import', aliases: [], usage: 'import [FILE|-] IMAGE [-p POOL] [--format stream|raw]', summary: 'Make an image of what export wrote, or bring one forward', load: () => import('./commands/import.js'), takes: 'images', files: true, destroys: true },
  { name: 'dd', aliases: [], usage: 'dd [if=FILE|iimg=IMAGE] [of=FILE|oimg=IMAGE] [bs=1M] [count=N] [skip=N] [seek=N] ...', summary: 'Copy between images, files and pipes', load: () => import('./commands/dd.js'), assigns: DD_WORDS, destroys: true },
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
  ['simple-offsets', 'use vitastor-disk simple-offsets'],
]);

/** Lines that can be typed as they stand behind the program's name. */
const EXAMPLES: Readonly<Record<string, readonly string[]>> = {
  df: ['df --detail'],
  ls: [`ls -l 'web/*'`, 'ls -l --sort used_size -r -n 10  # the ten largest', 'ls --tree'],
  create: ['create -s 10G -p fast vm1', 'create --parent vm1@monday vm2  # a clone', 'create --snapshot monday vm1'],
  'snap-create': ['snap-create vm1@monday'],
  modify: ['modify vm1 --resize 20G', 'modify vm1 --rename vm2', 'modify vm1 --readonly', 'modify vm1 --limit-iops 2000 --limit-bandwidth 100M'],
  rm: ['rm vm2', 'rm vm1@monday  # a snapshot: images above read the same as before', 'rm vm1@monday vm1  # the chain from the snapshot to the image', `rm --matching 'tmp-*'`],
  flatten: ['flatten vm2  # a clone that shall not need its parent any more'],
  'merge-data': ['merge-data vm1@monday vm1@friday --target vm1@friday'],
  diff: ['diff vm1 --from monday', 'diff vm1 --from monday --to tuesday --json', 'diff vm2 --from vm1@monday  # a clone of vm1@monday'],
  export: ['export vm1@monday monday.vita', 'export vm1@tuesday --from monday tuesday.vita', 'export vm1@monday --format raw disk.img'],
  import: ['import monday.vita vm1 -p fast', 'import tuesday.vita vm1  # onto vm1@monday', 'import --dry-run monday.vita  # is it whole?'],
  dd: ['dd if=disk.img oimg=vm1 status=progress  # makes vm1', 'dd iimg=vm1@monday of=disk.img iodepth=16', 'dd iimg=vm1@monday bs=4M > disk.img', 'dd iimg=vm1 oimg=vm2 bs=4M skip=100 count=10 seek=50 conv=nocreat'],
  'rm-data': ['rm-data --pool fast --inode 5'],
  describe: ['describe --object-state degraded,inconsistent --pool fast', 'describe --osds 1,2 --json'],
  fix: ['describe --object-state inconsistent --json | vitastor-cli fix --bad-osds 2', 'fix --objects 0x1000000000001:0x20000 --bad-osds 2'],
  'rm-osd': ['rm-osd --dry-run 3  # what would be lost?', 'rm-osd 3 4'],
  'modify-osd': ['modify-osd --reweight 0 3  # take all data away', 'modify-osd --tags ssd,fast 3', 'modify-osd --noout true 3'],
  'pg-list': ['pg-list ^active  # all that do not serve', 'pg-list --pool fast degraded has_degraded', 'pg-list --osd 3'],
  'create-pool': ['create-pool fast -s 3 -n 64 --osd_tags ssd --wait', 'create-pool cold --ec 4+2 -n 64 --failure_domain host'],
  'modify-pool': ['modify-pool fast -n 128', 'modify-pool fast --name faster', 'modify-pool fast --osd_tags nvme'],
  'ls-pools': ['ls-pools -l', `ls-pools --detail 'f*'`],
  flags: ['flags', 'flags set no_rebalance', 'flags unset no_rebalance'],
  completion: ['completion bash > /etc/bash_completion.d/vitastor-cli'],
};

export function examplesOf(entry: CatalogEntry): readonly string[] {
  return EXAMPLES[entry.name] ?? [];
}

export function findCommand(name: string): CatalogEntry | undefined {
  return CATALOG.find((entry) => entry.name === name || entry.aliases.includes(name));
}
