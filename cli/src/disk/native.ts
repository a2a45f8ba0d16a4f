// SPDX-License-Identifier: GPL-2.0-or-later
// The native side of vitastor-disk: one request in, batches of JSON lines out. One-to-one with
// osd/binding/disk_addon.cpp.

import { errorText, isJsonObject, parseJson, VitastorError, type ErrorCode, type JsonObject } from '@vitastor/core';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export type JobKind =
  | 'read_superblock'
  | 'write_superblock'
  | 'clear_superblock'
  | 'dump_objects'
  | 'dump_log'
  | 'check'
  | 'layout'
  | 'resize';

/** Bytes where nothing else is said. Sizes 0n: to the end of the device. */
export interface JobRequest {
  kind: JobKind;
  dataDevice: string;
  dataOffset: bigint;
  dataSize: bigint;
  /** '': on dataDevice, in one area with the data. */
  metaDevice: string;
  metaOffset: bigint;
  metaSize: bigint;
  io: 'direct' | 'cached' | 'direct_sync';
  /** disable_device_lock: OSDs on other areas of the devices may run. */
  isSharedDevice: boolean;
  /** Superblocks: although the device is in use or holds something else. */
  force: boolean;
  /** write_superblock: the parameters. */
  json: string;
  /** write_superblock: bytes before the first area on this device. */
  roomBytes: bigint;
  /** dump_log. */
  form: 'entries' | 'pages';
  /** check: read the data, too. */
  verifyData: boolean;
  /** layout: of the store that would be made. */
  blockSize: number;
  bitmapGranularity: number;
  checksums: boolean;
  /** layout: 0n = ask the device. */
  deviceSize: bigint;
  /** resize: where the store is to be. newMetaDevice '': on dataDevice. */
  newDataSize: bigint;
  newMetaDevice: string;
  newMetaOffset: bigint;
  newMetaSize: bigint;
  dryRun: boolean;
}

export interface Job {
  /** The next lines (each ends with \n), null after the last. One call at a time. */
  next(): Promise<string | null>;
  /** The job ends soon; next() goes on to null. */
  stop(): void;
}

export type StartJob = (request: JobRequest) => Job;

export const NO_REQUEST: Omit<JobRequest, 'kind' | 'dataDevice'> = {
  dataOffset: 0n,
  dataSize: 0n,
  metaDevice: '',
  metaOffset: 0n,
  metaSize: 0n,
  io: 'direct',
  isSharedDevice: false,
  force: false,
  json: '',
  roomBytes: 4096n,
  form: 'entries',
  verifyData: true,
  blockSize: 131072,
  bitmapGranularity: 4096,
  checksums: true,
  deviceSize: 0n,
  newDataSize: 0n,
  newMetaDevice: '',
  newMetaOffset: 0n,
  newMetaSize: 0n,
  dryRun: false,
};

const NAME = 'vitastor_disk.node';

/** Throws ERR_UNSUPPORTED that says where it was looked for. */
export function loadStartJob(buildDir: string | undefined): StartJob {
  const root = fileURLToPath(new URL('../../../..', import.meta.url));
  const places = [
    ...(buildDir === undefined ? [] : [join(buildDir, NAME)]),
    fileURLToPath(new URL(`../../../${NAME}`, import.meta.url)),
    join(root, 'build', 'release', NAME),
    join(root, 'build', 'dev', NAME),
  ];
  const path = places.find((place) => existsSync(place));
  if (path === undefined)
    throw new VitastorError(
      'ERR_UNSUPPORTED',
      `${NAME} was not found (looked at ${places.join(', ')}): run \`npm run build\``,
    );
  try {
    const addon = createRequire(import.meta.url)(path) as { startJob: StartJob };
    return addon.startJob;
  } catch (error) {
    throw new VitastorError(
      'ERR_UNSUPPORTED',
      `${path} could not be loaded (${errorText(error)}): run \`npm run build\``,
      { cause: error },
    );
  }
}

const CODES: Readonly<Record<number, ErrorCode>> = {
  2: 'ERR_NOT_FOUND',
  16: 'ERR_BUSY',
  17: 'ERR_EXISTS',
  22: 'ERR_INVALID_ARGUMENT',
};

/**
 * Runs a job. onLine gets every line but the last as text without \n (`{"kind":"...",...}`); it may return a promise to
 * slow the job down.
 * Rejects with what the job says when it fails.
 */
export async function runJob(
  start: StartJob,
  request: JobRequest,
  onLine: (line: string) => void | Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  const job = start(request);
  const stop = (): void => job.stop();
  signal?.addEventListener('abort', stop);
  try {
    let end: JsonObject | null = null;
    for (let batch = await job.next(); batch !== null; batch = await job.next()) {
      for (const line of batch.split('\n')) {
        if (line.startsWith('{"kind":"end"')) end = jsonLine(line);
        else if (line !== '') await onLine(line);
      }
    }
    if (signal?.aborted) throw new VitastorError('ERR_ABORTED', 'interrupted');
    const code = Number(end?.['code'] ?? -5);
    if (code < 0)
      throw new VitastorError(
        CODES[-code] ?? 'ERR_IO',
        String(end?.['text'] ?? `${request.dataDevice}: the job ended without an answer`),
      );
  } finally {
    signal?.removeEventListener('abort', stop);
    job.stop();
  }
}

export function jsonLine(line: string): JsonObject {
  const value = parseJson(line);
  return isJsonObject(value) ? value : {};
}

/** The line without its first field, for what is passed on as it is. */
export function withoutKind(line: string): string {
  return line.replace(/^\{"kind":"[^"]*",?/, '{');
}
