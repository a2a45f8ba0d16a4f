// SPDX-License-Identifier: GPL-2.0-or-later
// The effective configuration: command line over etcd over file over default, and where each value came from. Source:
// configuration 1.

import { readFile } from 'node:fs/promises';
import { errorText, isVitastorError, VitastorError } from '../errors.js';
import { isJsonObject, parseJson, stringifyJson, type JsonObject, type JsonValue } from '../json.js';
import { parseEtcdAddress, splitAddresses } from '../seams/etcd-address.js';
import { readEtcdCredentials, type EtcdTlsFiles } from '../seams/etcd-tls.js';
import { isParameter, parameter, parameterNames, PARAMETERS, type ParameterName, type Reader } from './parameters.js';
import { parseParameter, type ParameterValue } from './values.js';

export type ConfigSource = 'command line' | 'etcd' | 'file' | 'default';

export interface ConfigSources {
  commandLine?: Readonly<Record<string, JsonValue>>;
  /** /config/global. */
  etcd?: JsonObject;
  file?: JsonObject;
  /** Of `file`, for messages. */
  filePath?: string;
}

interface Found {
  source: ConfigSource;
  /** The spelling that was used. */
  name: string;
  value: JsonValue;
}

/** Immutable; withEtcd() makes the next one when /config/global changes. */
export class Config {
  readonly #sources: ConfigSources;

  constructor(sources: ConfigSources) {
    this.#sources = sources;
  }

  withEtcd(global: JsonObject): Config {
    return new Config({ ...this.#sources, etcd: global });
  }

  get filePath(): string | null {
    return this.#sources.filePath ?? null;
  }

  boolean(name: ParameterName): boolean {
    return this.value(name) === true;
  }

  /** null where the parameter has no default and is not set (or is 0). */
  numberOrNull(name: ParameterName): number | null {
    const value = this.value(name);
    return typeof value === 'number' ? value : null;
  }

  /** For parameters with a default. */
  number(name: ParameterName): number {
    return this.numberOrNull(name) ?? 0;
  }

  /** '' = not set. */
  string(name: ParameterName): string {
    const value = this.value(name);
    return typeof value === 'string' ? value : '';
  }

  list(name: ParameterName): string[] {
    const value = this.value(name);
    return Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : [];
  }

  object(name: ParameterName): JsonObject {
    const value = this.value(name);
    return value !== null && typeof value === 'object' && isJsonObject(value) ? value : {};
  }

  /** The value that counts: the strongest source whose value makes sense, else the default; null = none. */
  value(name: ParameterName): ParameterValue {
    return this.#effective(name).value;
  }

  source(name: ParameterName): ConfigSource {
    return this.#effective(name).source;
  }

  /** As written in the strongest source, also for names that are no parameters; undefined = nowhere. */
  raw(name: string): JsonValue | undefined {
    return this.#find(name)?.value;
  }

  /** All that is set anywhere, merged, as text: what libvitastor takes. Arrays are joined with commas. */
  asText(): Record<string, string> {
    const names = new Set(
      [this.#sources.file, this.#sources.etcd, this.#sources.commandLine].flatMap((source) =>
        Object.keys(source ?? {}),
      ),
    );
    const result: Record<string, string> = {};
    for (const name of names) {
      const value = this.raw(name);
      if (value === undefined || value === null) continue;
      result[name] =
        typeof value === 'string' ? value : Array.isArray(value) ? value.map(String).join(',') : stringifyJson(value);
    }
    return result;
  }

  /** Values that were not understood, with what is used instead. */
  problems(): string[] {
    const result: string[] = [];
    for (const name of parameterNames()) {
      const found = this.#find(name);
      if (!found || parseParameter(parameter(name), found.value) !== null) continue;
      if (found.value === 0 || found.value === '0') continue; // Means the default.
      result.push(
        `${found.name} = ${stringifyJson(found.value)} (${this.#sourceText(found.source)}) is not ${kindText(name)}: using ${shown(this.value(name))}`,
      );
    }
    return result;
  }

  /**
   * Lines for the log at start: every etcd address, every setting that is not a default with its source, then the
   * defaults of the
   * parameters that `reader` reads.
   */
  describeSources(reader: Reader): string[] {
    const lines: string[] = [];
    const mine = parameterNames().filter((name) => PARAMETERS[name].readers.includes(reader));
    for (const address of this.list('etcd_address'))
      lines.push(`etcd address ${address} (${this.#sourceText(this.source('etcd_address'))})`);
    const defaults: string[] = [];
    for (const name of mine) {
      if (name === 'etcd_address') continue;
      const { value, source } = this.#effective(name);
      if (source === 'default') defaults.push(`${name}=${shown(value)}`);
      else lines.push(`${name} = ${shown(value)} (${this.#sourceText(source)})`);
    }
    if (defaults.length) lines.push(`defaults: ${defaults.join(' ')}`);
    return [...lines, ...this.problems()];
  }

  #effective(name: ParameterName): { value: ParameterValue; source: ConfigSource } {
    const spec = parameter(name);
    for (const found of this.#all(name)) {
      const value = parseParameter(spec, found.value);
      if (value !== null) return { value, source: found.source };
      if (found.value === 0 || found.value === '0') break;
    }
    return { value: spec.default === null ? null : parseParameter(spec, spec.default), source: 'default' };
  }

  #find(name: string): Found | undefined {
    return this.#all(name)[0];
  }

  /** Strongest first. */
  #all(name: string): Found[] {
    const spellings = isParameter(name) ? [name, ...(parameter(name).aliases ?? [])] : [name];
    const fromEtcd = !isParameter(name) || parameter(name).notFromEtcd !== true;
    const levels: [ConfigSource, Readonly<Record<string, JsonValue>> | undefined][] = [
      ['command line', this.#sources.commandLine],
      ['etcd', fromEtcd ? this.#sources.etcd : undefined],
      ['file', this.#sources.file],
    ];
    const result: Found[] = [];
    for (const [source, values] of levels) {
      for (const spelling of spellings) {
        const value = values && Object.hasOwn(values, spelling) ? values[spelling] : undefined;
        if (value !== undefined && value !== null && value !== '') result.push({ source, name: spelling, value });
      }
    }
    return result;
  }

  #sourceText(source: ConfigSource): string {
    return source === 'file' && this.#sources.filePath ? `file ${this.#sources.filePath}` : source;
  }
}

function shown(value: ParameterValue): string {
  if (value === null) return 'none';
  if (Array.isArray(value)) return value.map(String).join(',');
  return typeof value === 'string' ? value : stringifyJson(value);
}

function kindText(name: ParameterName): string {
  const spec = parameter(name);
  switch (spec.type) {
    case 'boolean': return 'true or false';
    case 'word': return `one of ${(spec.words ?? []).join(', ')}`;
    case 'size': return 'a size such as 4096 or 128k';
    case 'duration': return 'a time such as 30d';
    case 'integer': return 'a whole number';
    case 'json': return 'a JSON object';
    case 'list': case 'addresses': return 'a list of strings';
    default: return `a ${spec.type}`;
  }
}

const DEFAULT_PATH = PARAMETERS.config_path.default;

/** Reads the configuration file. `path` '' = the default one, which may be absent. Throws ERR_CONFIG_FILE. */
export async function readConfigFile(path = ''): Promise<{ file: JsonObject; filePath?: string }> {
  const filePath = path || DEFAULT_PATH;
  let text: string;
  try {
    text = await readFile(filePath, 'utf8');
  } catch (error) {
    const absent = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    if (absent && path === '') return { file: {} };
    throw new VitastorError(
      'ERR_CONFIG_FILE',
      absent
        ? `configuration file ${filePath} does not exist: correct config_path, or create the file`
        : `configuration file ${filePath} cannot be read (${errorText(error)}): check its permissions`,
      { cause: error, data: { path: filePath } },
    );
  }
  return { file: parseConfigFile(filePath, text), filePath };
}

/** Throws ERR_CONFIG_FILE that names file, line, column and the next step. */
export function parseConfigFile(filePath: string, text: string): JsonObject {
  try {
    const value = parseJson(text);
    if (isJsonObject(value)) return value;
  } catch (error) {
    if (!isVitastorError(error, 'ERR_BAD_VALUE')) throw error;
    throw new VitastorError(
      'ERR_CONFIG_FILE',
      `configuration file ${filePath} is ${error.message}. Correct it there; it must be one JSON object, such as {"etcd_address":"192.0.2.1:2379"}`,
      { cause: error, data: { ...error.data, path: filePath } },
    );
  }
  throw new VitastorError(
    'ERR_CONFIG_FILE',
    `configuration file ${filePath} must be one JSON object, such as {"etcd_address":"192.0.2.1:2379"}`,
    { data: { path: filePath } },
  );
}

/** File and command line together: what is known before etcd is reached. Throws ERR_CONFIG_FILE. */
export async function loadLocalConfig(commandLine: Readonly<Record<string, JsonValue>>): Promise<Config> {
  const path = commandLine['config_path'];
  return new Config({ commandLine, ...(await readConfigFile(typeof path === 'string' ? path : '')) });
}

/** The addresses of etcd. Throws ERR_INVALID_ARGUMENT that says where to put them. */
export function requireEtcdAddresses(config: Config): string[] {
  const addresses = splitAddresses(config.list('etcd_address'));
  if (addresses.length) return addresses;
  throw new VitastorError(
    'ERR_INVALID_ARGUMENT',
    `etcd_address is not set: give --etcd_address HOST:PORT, or put {"etcd_address":"HOST:PORT"} into ${config.filePath ?? DEFAULT_PATH}`,
  );
}

/** How to reach etcd: addresses, and what https ones need. */
export interface EtcdTarget {
  addresses: string[];
  tls: EtcdTlsFiles;
}

/**
 * From what is known before etcd is reached. Throws ERR_INVALID_ARGUMENT that names the setting; files for TLS are read
 * where any is given or needed.
 */
export async function etcdTarget(config: Config): Promise<EtcdTarget> {
  const addresses = requireEtcdAddresses(config);
  const tls = { ca: config.string('etcd_ca'), cert: config.string('etcd_cert'), key: config.string('etcd_key') };
  if (tls.ca !== '' || tls.cert !== '' || tls.key !== '' || addresses.some((text) => parseEtcdAddress(text).https))
    await readEtcdCredentials(tls);
  return { addresses, tls };
}
