// SPDX-License-Identifier: GPL-2.0-or-later
// What a run of vitastor-disk stands on, and what its commands share.

import { Command } from '@oclif/core/command';
import type { FlagInput } from '@oclif/core/interfaces';
import { type JsonObject, parseBoolean, parseSize, stringifyJson, VitastorError } from '@vitastor/core';
import { requireOwnDevice, roleOf, roomBefore } from './devices.js';
import { jsonLine, NO_REQUEST, runJob, type JobRequest, type StartJob } from './native.js';

export interface DiskEnvironment {
  startJob(): StartJob;
  stdout(text: string): void;
  stderr(text: string): void;
  stdin(): Promise<string>;
  /** Ctrl-C. */
  signal: AbortSignal;
}

export type StorePlace = Pick<
  JobRequest,
  'dataDevice' | 'dataOffset' | 'dataSize' | 'metaDevice' | 'metaOffset' | 'metaSize' | 'isSharedDevice'
>;

/**
 * Which parameters place the metadata, as the OSD takes them: those of meta_device, or of a journal_device alone; null: one area with
 * the data.
 */
export function metadataPrefix(parameters: JsonObject): 'meta' | 'journal' | null {
  const isElsewhere = (name: string): boolean => {
    const device = parameters[name];
    return typeof device === 'string' && device !== '' && device !== parameters['data_device'];
  };
  return isElsewhere('meta_device') ? 'meta' : isElsewhere('journal_device') ? 'journal' : null;
}

export interface DiskContext {
  environment: DiskEnvironment;
  json: boolean;
  /** OSD parameters of the command line, names with underscores. */
  parameters: Readonly<Record<string, string>>;
}

export abstract class DiskCommand extends Command {
  static override flags: FlagInput = {};
  #context: DiskContext | null = null;

  attach(context: DiskContext): this {
    this.#context = context;
    return this;
  }

  get context(): DiskContext {
    if (!this.#context) throw new Error('a command runs only through run.ts');
    return this.#context;
  }

  /** The exit code. Output goes through the environment as it arises. */
  abstract override run(): Promise<number>;

  /** Writes the record of vitastor-disk at the head of a device that it refers to; force: of any device. */
  protected async writeSuperblock(device: string, parameters: JsonObject, force: boolean): Promise<void> {
    const role = force ? ((await roleOf(device, parameters)) ?? 'data') : await requireOwnDevice(device, parameters);
    const roomBytes = roomBefore(role, parameters);
    const json = stringifyJson(parameters);
    await this.job({ kind: 'write_superblock', dataDevice: device, json, roomBytes, force }, () => undefined);
  }

  protected print(text: string): void {
    this.context.environment.stdout(text);
  }

  /** Runs a job; warnings and errors of its log go to stderr. */
  protected async job(
    request: Partial<JobRequest> & Pick<JobRequest, 'kind' | 'dataDevice'>,
    onLine: (line: string) => void,
  ): Promise<void> {
    const { environment } = this.context;
    await runJob(
      environment.startJob(),
      { ...NO_REQUEST, io: this.#io(), ...request },
      (line) => {
        if (line.startsWith('{"kind":"log"')) environment.stderr(`${String(jsonLine(line)['text'])}\n`);
        else onLine(line);
      },
      environment.signal,
    );
  }

  #io(): JobRequest['io'] {
    const word = this.context.parameters['io'] ?? this.context.parameters['data_io'] ?? 'direct';
    if (word === 'direct' || word === 'cached') return word;
    if (word === 'directsync') return 'direct_sync';
    throw new VitastorError('ERR_INVALID_ARGUMENT', `io: "${word}" is not direct, cached or directsync`);
  }

  /** The parameters in the superblock of a device, null if it has none. */
  protected async superblock(device: string): Promise<JsonObject | null> {
    let json: string | null = null;
    try {
      await this.job({ kind: 'read_superblock', dataDevice: device }, (line) => {
        json = String(jsonLine(line)['json']);
      });
    } catch (error) {
      if (error instanceof VitastorError && error.code === 'ERR_NOT_FOUND' && error.message.includes('no superblock'))
        return null;
      throw error;
    }
    return json === null ? null : jsonLine(json);
  }

  /**
   * Parameters of the OSD that a word of the command line names: those of the superblock if the device has one, with
   * what the command
   * line says on top. Without a word: the command line's alone (`data_device` is required).
   */
  protected async osdParameters(device: string | undefined): Promise<JsonObject> {
    const { parameters } = this.context;
    if (device === undefined) {
      if (parameters['data_device'] === undefined)
        throw new VitastorError(
          'ERR_INVALID_ARGUMENT',
          'name a device, or give --data_device and what else the OSD is started with',
        );
      return { ...parameters };
    }
    const stored = await this.superblock(device);
    return { ...(stored ?? { data_device: device }), ...parameters };
  }

  /** Where a store is, from the parameters of its OSD. */
  protected place(parameters: JsonObject): StorePlace {
    const size = (name: string): bigint => {
      const value = parameters[name];
      if (value === undefined || value === null || value === '') return 0n;
      const bytes = parseSize(value);
      if (bytes === null) throw new VitastorError('ERR_INVALID_ARGUMENT', `${name}: "${String(value)}" is not a size`);
      return bytes;
    };
    const text = (name: string): string => (typeof parameters[name] === 'string' ? parameters[name] : '');
    const dataDevice = text('data_device');
    if (dataDevice === '') throw new VitastorError('ERR_INVALID_ARGUMENT', 'data_device is missing');
    const separate = metadataPrefix(parameters);
    return {
      dataDevice,
      dataOffset: size('data_offset'),
      dataSize: size('data_size'),
      isSharedDevice: parseBoolean(parameters['disable_device_lock'] ?? false) ?? false,
      metaDevice: separate === null ? '' : text(`${separate}_device`),
      metaOffset: separate === null ? 0n : size(`${separate}_offset`),
      metaSize: separate === null ? 0n : size(`${separate}_size`),
    };
  }
}
