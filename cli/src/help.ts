// SPDX-License-Identifier: GPL-2.0-or-later
// --help: the list, one command, or everything.

import { CATALOG, examplesOf, findCommand, type CatalogEntry } from './catalog.js';
import { formatTable } from './table.js';

const GLOBAL = [
  '  --config_path FILE     configuration file (default /etc/vitastor/vitastor.conf)',
  '  --etcd_address URL     etcd addresses, separated by commas',
  '  --etcd_prefix PREFIX   prefix of keys in etcd (default /vitastor)',
  '  --json                 JSON on stdout',
  '  --progress 1|0         report progress (default 1)',
  '  --color 1|0            colours (default: on a terminal)',
  '  --iodepth N            parallel operations per OSD (default 32)',
  '  --parallel_osds M      OSDs worked on at once (default 4)',
].join('\n');

export function helpList(): string {
  const rows = CATALOG.map((entry) => [`  ${entry.name}`, entry.summary]);
  const [, ...lines] = formatTable([{ title: '' }, { title: '' }], rows, { color: false }).split('\n');
  return (
    `vitastor-cli: command-line tool of Vitastor\n\nUSAGE: vitastor-cli COMMAND [OPTIONS]\n\nCOMMANDS\n${lines.map((line) => line.trimEnd()).join('\n')}\n\n` +
    `OPTIONS OF EVERY COMMAND\n${GLOBAL}\n\nEvery configuration parameter can be given as --name value. Dashes and underscores in option names are the same.\n` +
    'vitastor-cli --help COMMAND shows the options of a command, --help --all those of all.\n'
  );
}

async function commandHelp(entry: CatalogEntry): Promise<string> {
  const { default: command } = await entry.load();
  const rows = Object.entries(command.flags).filter(([, flag]) => flag.hidden !== true).map(([name, flag]) => {
    const char = flag.char ? `-${flag.char}, ` : '';
    return [
      `  ${char}--${name.replace(/-/g, '_')}${flag.type === 'boolean' ? '' : ` ${flag.helpValue ?? 'VALUE'}`}`,
      flag.summary ?? flag.description ?? '',
    ];
  });
  const [, ...lines] = formatTable([{ title: '' }, { title: '' }], rows, { color: false }).split('\n');
  const names = entry.aliases.length ? `\nOther names: ${entry.aliases.join(', ')}\n` : '';
  const options = rows.length ? `\nOPTIONS\n${lines.map((line) => line.trimEnd()).join('\n')}\n` : '';
  const typed = examplesOf(entry).map((line) => `  vitastor-cli ${line}\n`).join('');
  const examples = typed === '' ? '' : `\nEXAMPLES\n${typed}`;
  return `vitastor-cli ${entry.usage}\n\n${entry.summary}.${command.description ? `\n${command.description}` : ''}\n${names}${options}${examples}`;
}

/** Text for --help with these words behind it. */
export async function helpText(words: readonly string[], all: boolean): Promise<string> {
  if (all) return `${helpList()}\n${(await Promise.all(CATALOG.map(commandHelp))).join('\n')}`;
  const entry = findCommand(words[0] ?? '');
  return entry ? commandHelp(entry) : helpList();
}
