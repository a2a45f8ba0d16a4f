// SPDX-License-Identifier: GPL-2.0-or-later
// Words of a command line → options and arguments, in the way all our programs take them. Source: tools 1 and 2.1.

import { VitastorError } from '../errors.js';

export interface CommandLine {
  /** Names with underscores. A flag without value is '1'. Given twice: the last one counts. */
  options: Record<string, string>;
  args: string[];
}

export interface CommandLineRules {
  /** Options that take no value, names with underscores. */
  flags: ReadonlySet<string>;
  /** One-letter forms: letter → name. */
  short?: Readonly<Record<string, string>>;
}

export const normalizeOptionName = (name: string): string => name.replace(/-/g, '_');

/** `--name value`, `--name=value`, flags, `-x value`, `--` ends the options. Throws ERR_INVALID_ARGUMENT. */
export function parseCommandLine(words: readonly string[], rules: CommandLineRules): CommandLine {
  const options: Record<string, string> = {};
  const args: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? '';
    if (word === '--') {
      args.push(...words.slice(i + 1));
      break;
    }
    const long = /^--([^=]+)(?:=([\s\S]*))?$/.exec(word);
    const short = rules.short?.[/^-([a-zA-Z])$/.exec(word)?.[1] ?? ''];
    if (!long && short === undefined) {
      if (/^-[a-zA-Z]$/.test(word))
        throw new VitastorError('ERR_INVALID_ARGUMENT', `unknown option ${word}; see --help`);
      args.push(word);
      continue;
    }
    const name = short ?? normalizeOptionName(long?.[1] ?? '');
    const inline = long?.[2];
    if (inline !== undefined) {
      options[name] = inline;
    } else if (rules.flags.has(name)) {
      options[name] = '1';
    } else {
      const value = words[++i];
      if (value === undefined) throw new VitastorError('ERR_INVALID_ARGUMENT', `option ${word} needs a value`);
      options[name] = value;
    }
  }
  return { options, args };
}
