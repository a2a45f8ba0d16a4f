// SPDX-License-Identifier: GPL-2.0-or-later
// vitastor-disk: from the words of a command line to an exit code, 0 or 1. Source: tools 3.2.

import { basename } from 'node:path';
import {
  errorText,
  isParameter,
  parseBoolean,
  parseCommandLine,
  stringifyJson,
  VitastorError,
  type CommandLine,
} from '@vitastor/core';
import { formatTable } from '../table.js';
import { DISK_CATALOG, findDiskCommand, type DiskCatalogEntry } from './catalog.js';
import type { DiskEnvironment } from './environment.js';

/** Options without a value. */
const FLAGS = new Set(['json', 'force', 'all', 'help', 'no_data', 'dry_run']);

/** Commands of Vitastor that are not here, and what to do instead. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  prepare: 'make partitions by hand, write-sb with the parameters, and start the OSD: it formats an empty area',
  'upgrade-simple': 'write-sb with the parameters of the unit',
  'write-meta': 'metadata are written by the OSD alone',
  'write-journal': 'metadata are written by the OSD alone',
};

export async function runDisk(
  programPath: string,
  words: readonly string[],
  environment: DiskEnvironment,
): Promise<number> {
  const json = words.includes('--json');
  try {
    const line = parseCommandLine(words, { flags: FLAGS, short: { h: 'help', f: 'force' } });
    if (basename(programPath) === 'vitastor-dump-journal') line.args.unshift('dump-journal');
    if (line.options['help'] !== undefined || line.args.length === 0 || line.args[0] === 'help') {
      environment.stdout(
        await helpText(line.args[0] === 'help' ? line.args.slice(1) : line.args, line.options['all'] !== undefined),
      );
      return 0;
    }
    const name = line.args[0] ?? '';
    const entry = findDiskCommand(name);
    if (entry) return await runCommand(entry, line, environment);
    const instead = ELSEWHERE[name];
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      instead === undefined ? `unknown command: ${name}; see --help` : `${name} is not available: ${instead}`,
    );
  } catch (error) {
    const known = error instanceof VitastorError || (error instanceof Error && 'oclif' in error);
    const text = known
      ? errorText(error)
      : `internal error, please report it: ${error instanceof Error ? (error.stack ?? errorText(error)) : String(error)}`;
    if (json)
      environment.stdout(
        `${stringifyJson({ error_code: error instanceof VitastorError ? error.exitCode : 1, error_text: text })}\n`,
      );
    else environment.stderr(`${text}\n`);
    return 1;
  }
}

async function runCommand(entry: DiskCatalogEntry, line: CommandLine, environment: DiskEnvironment): Promise<number> {
  const { Config } = await import('@oclif/core/config');
  const [{ default: command }, config] = await Promise.all([
    entry.load(),
    Config.load({ root: new URL('../../../', import.meta.url).pathname }),
  ]);
  const flags = new Map(Object.entries(command.flags).map(([name, flag]) => [name.replace(/-/g, '_'), { name, flag }]));
  const own: string[] = [];
  const parameters: Record<string, string> = {};
  for (const [option, value] of Object.entries(line.options)) {
    const known = flags.get(option);
    if (known?.flag.type === 'boolean') {
      if (parseBoolean(value) ?? true) own.push(`--${known.name}`);
    } else if (known) {
      own.push(`--${known.name}=${value}`);
    } else if (option !== 'json') {
      if (!isParameter(option) && !['io', 'osd_num', 'meta_size'].includes(option))
        environment.stderr(`warning: option --${option} means nothing to ${entry.name}\n`);
      parameters[option] = value;
    }
  }
  const json = parseBoolean(line.options['json'] ?? '0') ?? true;
  return await new command([...own, '--', ...line.args.slice(1)], config)
    .attach({ environment, json, parameters })
    .run();
}

async function helpText(words: readonly string[], all: boolean): Promise<string> {
  const entry = findDiskCommand(words[0] ?? '');
  if (entry && !all) return commandHelp(entry);
  const [, ...lines] = formatTable(
    [{ title: '' }, { title: '' }],
    DISK_CATALOG.map((one) => [`  ${one.name}`, one.summary]),
    { color: false },
  ).split('\n');
  const list =
    `vitastor-disk: work on the disks of stopped OSDs\n\nUSAGE: vitastor-disk COMMAND [OPTIONS] DEVICE\n\nCOMMANDS\n${lines.map((text) => text.trimEnd()).join('\n')}\n\n` +
    'DEVICE is a device or file with a superblock, or the data device of an OSD without one; then the parameters of the OSD\n' +
    '(--data_offset, --meta_device...) say where its areas are. --io cached turns O_DIRECT off. Exit code: 0, or 1 after an error.\n' +
    'vitastor-disk --help COMMAND shows the options of a command, --help --all those of all.\n';
  return all ? `${list}\n${(await Promise.all(DISK_CATALOG.map(commandHelp))).join('\n')}` : list;
}

async function commandHelp(entry: DiskCatalogEntry): Promise<string> {
  const { default: command } = await entry.load();
  const rows = Object.entries(command.flags).map(([name, flag]) => [
    `  --${name}${flag.type === 'boolean' ? '' : ` ${flag.helpValue ?? 'VALUE'}`}`,
    flag.summary ?? '',
  ]);
  const [, ...lines] = formatTable([{ title: '' }, { title: '' }], rows, { color: false }).split('\n');
  const options = rows.length ? `\nOPTIONS\n${lines.map((line) => line.trimEnd()).join('\n')}\n` : '';
  return `vitastor-disk ${entry.usage}\n\n${entry.summary}.${command.description ? `\n${command.description}` : ''}\n${options}`;
}
