// SPDX-License-Identifier: GPL-2.0-or-later
// The native client: declarations of the addon (one-to-one with core/include/vitastor.h) and its loader.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { VitastorError, errorText } from '../errors.js';

declare const clusterBrand: unique symbol;
declare const contextBrand: unique symbol;
declare const imageBrand: unique symbol;
/** Opaque, type-tagged in native code: anything else throws a TypeError. */
export interface ClusterHandle { readonly [clusterBrand]: true }
export interface ContextHandle { readonly [contextBrand]: true }
export interface ImageHandle { readonly [imageBrand]: true }

/**
 * result: bytes, 0, or a negative errno. version: of the object for single-object reads and writes, else 0n. Runs once.
 */
export type DoneFn = (result: number, version: bigint) => void;
/** level: 0 error, 1 warning, 2 info, 3 debug. */
export type LogFn = (level: number, text: string) => void;

export interface NativeImageOptions {
  image: string | null;
  pool: number;
  inode: bigint;
  sizeBytes: bigint;
  readOnly: boolean;
  skipParents: boolean;
}

export interface NativePurgeOptions {
  pool: number;
  inode: bigint;
  minOffset: bigint;
  /** Exclusive; 0n = no bound. */
  maxOffset: bigint;
  iodepth: number;
  parallelOsds: number;
  waitList: boolean;
  downOk: boolean;
  /** The object that minOffset lies in reads as zeroes from there on. */
  cut: boolean;
}

export interface NativeMergeOptions {
  /** Full numbers, lowest first. */
  layers: readonly bigint[];
  /** Index into layers. */
  target: number;
  /** 1 others may write to the target, -1 they do not, 0 look at the metadata. */
  cas: number;
  iodepth: number;
  parallelOsds: number;
  fsyncInterval: number;
}

export interface NativeMapOptions {
  /** Full numbers. */
  layers: readonly bigint[];
  minOffset: bigint;
  /** Exclusive; 0n = no bound. */
  maxOffset: bigint;
  /** 0n: 2^20. */
  maxExtents: bigint;
  iodepth: number;
  parallelOsds: number;
}

/** Numbers returned by calls: 0 accepted (done runs later), negative errno refused (done does not run). */
export interface NativeClient {
  version(): string;
  /** Uninitialised memory that begins at a multiple of 4096: for O_DIRECT. */
  alignedBuffer(bytes: number): Buffer;
  /** CRC-32C (Castagnoli) of the data; previous: the result for what came before it, 0 for a fresh start. */
  crc32c(data: Buffer, previous: number): number;
  /** options: pairs that override file and etcd. A number is a negative errno; the message went to log. */
  clusterOpen(
    configPath: string | null,
    options: readonly (readonly [string, string])[],
    failFast: boolean,
    log: LogFn | null,
  ): ClusterHandle | number;
  clusterClose(cluster: ClusterHandle): void;
  /** With a thread of its own. */
  contextOpen(cluster: ClusterHandle, spinUs: number): ContextHandle | number;
  /** Ends what is under way with -ECANCELED; done runs when the thread is gone. */
  contextClose(context: ContextHandle, done: (error: Error | null) => void): void;
  imageOpen(
    context: ContextHandle,
    options: NativeImageOptions,
    changed: ((sizeBytes: bigint, readOnly: boolean) => void) | null,
    done: DoneFn,
  ): ImageHandle | number;
  /** Its operations must be done. */
  imageClose(image: ImageHandle): void;
  imageSize(image: ImageHandle): bigint;
  /** Full number, pool in the top 16 bits. */
  imageInode(image: ImageHandle): bigint;
  /** Bytes of one object. */
  imageBlockSize(image: ImageHandle): number;
  imageGranularity(image: ImageHandle): number;
  imageReadOnly(image: ImageHandle): number;
  imageImmediateCommit(image: ImageHandle): number;
  /** The buffer is filled (or read) by another thread until done has run. */
  read(image: ImageHandle, context: ContextHandle, offset: bigint, buffer: Buffer, done: DoneFn): number;
  write(image: ImageHandle, context: ContextHandle, offset: bigint, buffer: Buffer, done: DoneFn): number;
  compareWrite(
    image: ImageHandle,
    context: ContextHandle,
    offset: bigint,
    buffer: Buffer,
    expectedVersion: bigint,
    done: DoneFn,
  ): number;
  flush(image: ImageHandle, context: ContextHandle, done: DoneFn): number;
  discard(image: ImageHandle, context: ContextHandle, offset: bigint, length: bigint, done: DoneFn): number;
  /** expectedVersion 2^64-1: unconditional. */
  deleteObject(
    image: ImageHandle,
    context: ContextHandle,
    offset: bigint,
    expectedVersion: bigint,
    done: DoneFn,
  ): number;
  purge(
    context: ContextHandle,
    options: NativePurgeOptions,
    progress: ((done: bigint, total: bigint, unlistedPgs: bigint) => void) | null,
    done: (result: number, json: string) => void,
  ): number;
  merge(
    context: ContextHandle,
    options: NativeMergeOptions,
    progress: ((done: bigint, total: bigint, bytes: bigint) => void) | null,
    done: (result: number, json: string) => void,
  ): number;
  /** extents: 64-bit numbers in the machine's order: offset, length, offset, ... nextOffset 2^64-1: that is all. */
  mapLayers(
    context: ContextHandle,
    options: NativeMapOptions,
    progress: ((done: bigint, total: bigint) => void) | null,
    done: (result: number, extents: Buffer, nextOffset: bigint, error: string) => void,
  ): number;
}

const NAME = 'vitastor_core.node';

function candidates(buildDir: string | undefined): string[] {
  const root = fileURLToPath(new URL('../../../..', import.meta.url));
  return [
    ...(buildDir === undefined ? [] : [join(buildDir, NAME)]),
    fileURLToPath(new URL(`../../../${NAME}`, import.meta.url)),
    join(root, 'build', 'release', NAME),
    join(root, 'build', 'dev', NAME),
  ];
}

let loaded: NativeClient | undefined;

/**
 * Installed beside the package, in `buildDir`, or in the repository's build directories. Throws ERR_UNSUPPORTED that
 * says where it was looked for.
 */
export function loadNativeClient(buildDir?: string): NativeClient {
  if (loaded !== undefined) return loaded;
  const places = candidates(buildDir ?? process.env['VITASTOR_BUILD_DIR']);
  const path = places.find((place) => existsSync(place));
  if (path === undefined) {
    throw new VitastorError(
      'ERR_UNSUPPORTED',
      `the native client ${NAME} was not found (looked at ${places.join(', ')}): run \`npm run build\``,
    );
  }
  try {
    loaded = createRequire(import.meta.url)(path) as NativeClient;
    return loaded;
  } catch (error) {
    throw new VitastorError(
      'ERR_UNSUPPORTED',
      `the native client ${path} could not be loaded (${errorText(error)}): run \`npm run build\``,
      { cause: error },
    );
  }
}
