// SPDX-License-Identifier: GPL-2.0-or-later
// From the words of a command line to output and exit code. Source: tools 2.1.

import { basename } from 'node:path';
import {
  errorText,
  isParameter,
  parameterNames,
  parseBoolean,
  parseCommandLine,
  stringifyJson,
  VitastorError,
  type CommandLine,
  type JsonValue,
} from '@vitastor/core';
import type { Outcome, VitastorCommand } from './base-command.js';
import { CATALOG, findCommand, NOT_HERE, type CatalogEntry, type CommandClass } from './catalog.js';
import type { Environment } from './environment.js';
import { RULES } from './rules.js';
import { Session } from './session.js';
import { didYouMean } from './suggest.js';

/** Taken here, and by nobody else. */
const OWN_OPTIONS = new Set(['json', 'color', 'no_color', 'progress', 'help', 'all']);

/** Not of the configuration, but of whatever works on data. */
const DATA_OPTIONS = new Set(['iodepth', 'parallel_osds', 'cas']);

/** errno of what is not a VitastorError: our bug. */
const EXIT_BUG = 70;

/**
 * Runs one command. programPath: argv[1], whose name may be vitastor-rm. Returns the exit code; prints through the
 * environment only.
 */
export async function runCli(programPath: string, words: readonly string[], environment: Environment): Promise<number> {
  const json = words.includes('--json');
  try {
    const line = parseCommandLine(words, RULES);
    if (line.args.length === 0 && line.options['help'] === undefined && basename(programPath).startsWith('vitastor-rm'))
      line.args.push('rm-data');
    const wantsAll = line.options['all'] !== undefined && line.options['help'] !== undefined;
    if (line.options['help'] !== undefined || line.args.length === 0 || line.args[0] === 'help') {
      const { helpText } = await import('./help.js');
      environment.stdout(await helpText(line.args[0] === 'help' ? line.args.slice(1) : line.args, wantsAll));
      return 0;
    }
    const name = line.args[0] ?? '';
    const entry = findCommand(name);
    if (!entry) throw unknownCommand(name);
    return await runCommand(entry, line, environment);
  } catch (error) {
    return fail(environment, json, error);
  }
}

function unknownCommand(name: string): VitastorError {
  const instead = NOT_HERE.get(name);
  if (instead !== undefined) return new VitastorError('ERR_UNSUPPORTED', `${name} is not here: ${instead}`);
  const guess = didYouMean(name, CATALOG.flatMap((entry) => [entry.name, ...entry.aliases]));
  return new VitastorError('ERR_INVALID_ARGUMENT', `unknown command: ${name}${guess}`);
}

async function runCommand(entry: CatalogEntry, line: CommandLine, environment: Environment): Promise<number> {
  const [{ default: command }, config] = await Promise.all([entry.load(), oclifConfig()]);
  const { own, parameters } = splitOptions(entry, command, line.options, environment);
  const color =
    line.options['no_color'] === undefined &&
    (parseBoolean(line.options['color'] ?? null) ?? environment.stdoutIsTerminal);
  const session = new Session(environment, {
    json: parseBoolean(line.options['json'] ?? '0') ?? true,
    color,
    progress: parseBoolean(line.options['progress'] ?? '1') ?? true,
    parameters,
  });
  try {
    const instance: VitastorCommand = new command([...own, '--', ...line.args.slice(1)], config).attach(session);
    return print(environment, session.options.json, await instance.run());
  } catch (error) {
    return fail(environment, session.options.json, error);
  } finally {
    await session.close();
  }
}

/** oclif wants to know the package around its commands. */
async function oclifConfig() {
  const { Config } = await import('@oclif/core/config');
  return Config.load({ root: new URL('../../', import.meta.url).pathname });
}

/** The command's own options in oclif's spelling; all others are configuration parameters. */
function splitOptions(
  entry: CatalogEntry,
  command: CommandClass,
  options: Readonly<Record<string, string>>,
  environment: Environment,
) {
  const flags = new Map(Object.entries(command.flags).map(([name, flag]) => [name.replace(/-/g, '_'), { name, flag }]));
  const own: string[] = [];
  const parameters: Record<string, string> = {};
  for (const [given, value] of Object.entries(options)) {
    const option = entry.rename?.[given] ?? given;
    const known = flags.get(option);
    if (known?.flag.type === 'boolean') {
      if (parseBoolean(value) ?? true) own.push(`--${known.name}`);
    } else if (known) {
      own.push(`--${known.name}=${value}`);
    } else if (!OWN_OPTIONS.has(option)) {
      if (!isParameter(option) && !DATA_OPTIONS.has(option)) unknownOption(entry, given, [...flags].filter(([, { flag }]) => flag.hidden !== true).map(([name]) => name), environment);
      parameters[option] = value;
    }
  }
  return { own, parameters };
}

/** A warning, since it may be meant for another version; an error where a misspelled --dry-run would be paid for with data. */
function unknownOption(entry: CatalogEntry, given: string, own: readonly string[], environment: Environment): void {
  const guess = didYouMean(given, [...own, ...Object.keys(entry.rename ?? {})], '--');
  const text = `option --${given} means nothing to ${entry.name}`;
  if (guess !== '' && entry.destroys) throw new VitastorError('ERR_INVALID_ARGUMENT', text + guess);
  environment.stderr(`warning: ${text}${guess || didYouMean(given, [...OWN_OPTIONS, ...DATA_OPTIONS, ...parameterNames()], '--')}\n`);
}

function print(environment: Environment, json: boolean, outcome: Outcome): number {
  if (outcome.printed) return outcome.error ? (json ? outcome.error.exitCode : fail(environment, json, outcome.error)) : 0;
  if (json && outcome.plain) environment.stdout(`${stringifyJson({ error_code: 0, error_text: outcome.text })}\n`);
  else if (json && outcome.json !== undefined) environment.stdout(`${stringifyJson(outcome.json)}\n`);
  else if (json && !outcome.error) environment.stdout('{}\n');
  else if (!json && outcome.text !== '' && !outcome.error) environment.stdout(`${outcome.text}\n`);
  if (!outcome.error) return 0;
  if (json && outcome.json !== undefined) return outcome.error.exitCode;
  return fail(environment, json, outcome.error);
}

/** --json: on stdout; else the text on stderr. */
function fail(environment: Environment, json: boolean, error: unknown): number {
  const { code, text } = describe(error);
  const value: JsonValue = { error_code: code, error_text: text };
  if (json) environment.stdout(`${stringifyJson(value)}\n`);
  else environment.stderr(`${text}\n`);
  return code;
}

function describe(error: unknown): { code: number; text: string } {
  if (error instanceof VitastorError) return { code: error.exitCode, text: error.message };
  // oclif's complaints about options.
  if (error instanceof Error && 'oclif' in error) return { code: 22, text: error.message };
  return {
    code: EXIT_BUG,
    text: `internal error, please report it: ${error instanceof Error ? (error.stack ?? errorText(error)) : String(error)}`,
  };
}
