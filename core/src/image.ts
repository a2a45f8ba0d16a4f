// SPDX-License-Identifier: GPL-2.0-or-later
// Images for TypeScript: promises over the native client. User data moves in native threads; buffers are not copied.

import { errnoText, VitastorError, type ErrorCode } from './errors.js';
import {
  loadNativeClient,
  type ClusterHandle,
  type ContextHandle,
  type DoneFn,
  type ImageHandle,
  type LogFn,
  type NativeClient,
} from './native/addon.js';

/** Negative errno of the C ABI to our codes; what is not listed is ERR_IO. */
const ERRNO_CODES: Readonly<Record<number, ErrorCode>> = {
  2: 'ERR_NOT_FOUND', 4: 'ERR_CONFLICT', 11: 'ERR_CONFLICT', 22: 'ERR_INVALID_ARGUMENT', 30: 'ERR_UNSUPPORTED',
  40: 'ERR_PARENT_LOOP', 110: 'ERR_ETCD_UNAVAILABLE', 125: 'ERR_ABORTED',
};

/** what: names the thing and the action. The last message of the library is appended when there is one. */
function failure(result: number, what: string, message: string): VitastorError {
  const code = ERRNO_CODES[-result] ?? 'ERR_IO';
  const text = message === '' ? `${what}: ${errnoText(-result)}` : `${what}: ${message}`;
  return new VitastorError(code, text, {
    retryable: code === 'ERR_CONFLICT' || code === 'ERR_ETCD_UNAVAILABLE',
    data: { errno: -result },
  });
}

export interface ClientOptions {
  /** Overrides of file and etcd, as text. */
  config: Readonly<Record<string, string>>;
  /** Default: /etc/vitastor/vitastor.conf if it exists. */
  configPath?: string;
  /** Give the first contact with etcd up instead of waiting for ever. Default true. */
  failFast?: boolean;
  log?: LogFn;
  /** Where the addon is looked for first. */
  buildDir?: string;
}

export interface ImageOpenOptions {
  /** By name, or by pool and inode. */
  image?: string;
  pool?: number;
  /** Without the pool. */
  inode?: bigint;
  /** For inodes without metadata. */
  sizeBytes?: bigint;
  readOnly?: boolean;
  /** Read this layer alone. */
  skipParents?: boolean;
  /** The name has moved to another inode, or size or read-only flag have changed. */
  onChange?: (sizeBytes: bigint, readOnly: boolean) => void;
}

export interface PurgeRequest {
  pool: number;
  inode: bigint;
  minOffset?: bigint;
  maxOffset?: bigint | null;
  iodepth?: number;
  parallelOsds?: number;
  waitList?: boolean;
  downOk?: boolean;
  /** The object that minOffset lies in reads as zeroes from there on. */
  cut?: boolean;
  /** total: objects of the PGs listed so far. */
  onProgress?: (removed: bigint, total: bigint, unlistedPgs: bigint) => void;
}
export interface PurgeOutcome {
  /** 0, or the negative errno of the C ABI. */
  result: number;
  removedObjects: bigint;
  totalObjects: bigint;
  errorCount: bigint;
  inactiveOsds: number[];
  inactivePgs: number[];
}

export interface MergeRequest {
  /** Full inode numbers, lowest first. */
  layers: readonly bigint[];
  /** Index into layers: where everything goes. */
  target: number;
  /** Whether others may write to the target meanwhile; absent: as the metadata says. */
  cas?: boolean | null;
  iodepth?: number;
  parallelOsds?: number;
  fsyncInterval?: number;
  onProgress?: (doneObjects: bigint, totalObjects: bigint, writtenBytes: bigint) => void;
}
export interface MergeOutcome {
  mergedObjects: bigint;
  writtenBytes: bigint;
}

/** Bytes of an image. */
export interface Extent {
  offset: bigint;
  length: bigint;
}
export interface MapRequest {
  /** Full inode numbers, in any order. */
  layers: readonly bigint[];
  /** What is looked at; default: everything. */
  minOffset?: bigint;
  maxOffset?: bigint;
  iodepth?: number;
  parallelOsds?: number;
  /** Extents in one yield, about. Default: 2^20. */
  maxExtents?: number;
  /** Objects of this part of the image. */
  onProgress?: (doneObjects: bigint, totalObjects: bigint) => void;
}

/**
 * What copies and backups need of an image; Image is one.
 * read: offset and length are multiples of the granularity, the whole target is filled.
 */
export interface ImageIo {
  readonly sizeBytes: bigint;
  readonly granularity: number;
  read(offset: bigint, target: Buffer): Promise<{ data: Buffer; version: bigint }>;
  write(offset: bigint, data: Buffer): Promise<void>;
  discard(offset: bigint, lengthBytes: bigint): Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
}
/** Client is one. */
export interface ImageClient {
  open(options: ImageOpenOptions): Promise<ImageIo>;
  mapLayers(request: MapRequest): AsyncIterable<Extent[]>;
  close(): Promise<void>;
}
/** config: effective settings as text (etcd_address at least). */
export type OpenImageClient = (config: Readonly<Record<string, string>>) => ImageClient;
export const openNativeImageClient: OpenImageClient = (config) => new Client({ config });

const U64_MAX = 0xffff_ffff_ffff_ffffn;

/**
 * A connection to a cluster with one I/O thread. close() it, or the process stays up while requests are pending only.
 */
export class Client {
  readonly #native: NativeClient;
  readonly #cluster: ClusterHandle;
  readonly #context: ContextHandle;
  readonly #images = new Set<Image>();
  #lastError = '';
  #closed = false;

  /**
   * Throws ERR_INVALID_ARGUMENT (settings), ERR_NOT_FOUND (no etcd_address), ERR_UNSUPPORTED (no native part). Does not
   * wait for etcd.
   */
  constructor(options: ClientOptions) {
    this.#native = loadNativeClient(options.buildDir);
    const log: LogFn = (level, text) => {
      if (level === 0) this.#lastError = text;
      if (options.log !== undefined) options.log(level, text);
      else if (level <= 1) process.stderr.write(`vitastor: ${text}\n`);
    };
    const cluster = this.#native.clusterOpen(
      options.configPath ?? null,
      Object.entries(options.config),
      options.failFast ?? true,
      log,
    );
    if (typeof cluster === 'number')
      throw failure(
        cluster,
        'the cluster cannot be joined',
        cluster === -2 ? 'no etcd_address is known' : 'a setting is wrong, see the messages',
      );
    const context = this.#native.contextOpen(cluster, 0);
    if (typeof context === 'number') {
      this.#native.clusterClose(cluster);
      throw failure(context, 'the client cannot be started', '');
    }
    this.#cluster = cluster;
    this.#context = context;
  }

  /** Rejects with ERR_NOT_FOUND, ERR_ETCD_UNAVAILABLE or ERR_INVALID_ARGUMENT. */
  async open(options: ImageOpenOptions): Promise<Image> {
    this.#check();
    const shown = options.image ?? `inode ${String(options.inode)} of pool ${String(options.pool)}`;
    let handle: ImageHandle | number = -22;
    this.#lastError = '';
    const result = await new Promise<number>((resolve) => {
      handle = this.#native.imageOpen(
        this.#context,
        {
          image: options.image ?? null,
          pool: options.pool ?? 0,
          inode: options.inode ?? 0n,
          sizeBytes: options.sizeBytes ?? 0n,
          readOnly: options.readOnly ?? false,
          skipParents: options.skipParents ?? false,
        },
        options.onChange ?? null,
        resolve,
      );
      if (typeof handle === 'number') resolve(handle);
    });
    if (result < 0 || typeof handle === 'number') {
      if (typeof handle !== 'number') this.#native.imageClose(handle);
      throw failure(result, `cannot open ${shown}`, this.#lastError);
    }
    const image = new Image(this.#native, this.#context, handle, shown, () => this.#images.delete(image));
    this.#images.add(image);
    return image;
  }

  /**
   * Deletes an inode's data. Resolves also when something stayed behind; rejects with ERR_NOT_FOUND,
   * ERR_ETCD_UNAVAILABLE, ERR_ABORTED.
   */
  async purge(request: PurgeRequest): Promise<PurgeOutcome> {
    this.#check();
    const [result, json] = await new Promise<[number, string]>((resolve) => {
      const refused = this.#native.purge(
        this.#context,
        {
          pool: request.pool,
          inode: request.inode,
          minOffset: request.minOffset ?? 0n,
          maxOffset: request.maxOffset ?? 0n,
          iodepth: request.iodepth ?? 0,
          parallelOsds: request.parallelOsds ?? 0,
          waitList: request.waitList ?? false,
          downOk: request.downOk ?? false,
          cut: request.cut ?? false,
        },
        request.onProgress ?? null,
        (code, text) => resolve([code, text]),
      );
      if (refused !== 0) resolve([refused, '']);
    });
    if (json === '' || result === -2 || result === -110 || result === -125) {
      throw failure(
        result,
        `cannot remove the data of inode ${String(request.inode)} in pool ${String(request.pool)}`,
        result === -2 ? 'no such pool' : '',
      );
    }
    // Written by our own native code; counts fit a double by far.
    const counts = JSON.parse(json) as {
      removed_objects: number;
      total_objects: number;
      error_count: number;
      inactive_osds: number[];
      inactive_pgs: number[];
    };
    return {
      result, removedObjects: BigInt(counts.removed_objects), totalObjects: BigInt(counts.total_objects),
      errorCount: BigInt(counts.error_count), inactiveOsds: counts.inactive_osds, inactivePgs: counts.inactive_pgs,
    };
  }

  /**
   * Copies into one layer of a chain what the view of the topmost one takes from the others (vitastor_merge). Durable on
   * return. Rejects with ERR_INVALID_ARGUMENT, ERR_NOT_FOUND, ERR_CONFLICT, ERR_IO, ERR_ABORTED; may be repeated.
   */
  async merge(request: MergeRequest): Promise<MergeOutcome> {
    this.#check();
    const { cas } = request;
    const [result, json] = await new Promise<[number, string]>((resolve) => {
      const refused = this.#native.merge(
        this.#context,
        {
          layers: request.layers,
          target: request.target,
          cas: cas === undefined || cas === null ? 0 : cas ? 1 : -1,
          iodepth: request.iodepth ?? 0,
          parallelOsds: request.parallelOsds ?? 0,
          fsyncInterval: request.fsyncInterval ?? 0,
        },
        request.onProgress ?? null,
        (code, text) => resolve([code, text]),
      );
      if (refused !== 0) resolve([refused, '']);
    });
    // Written by our own native code; counts fit a double by far.
    const counts = (json === '' ? { error: '' } : JSON.parse(json)) as {
      merged_objects: number;
      written_bytes: number;
      error: string;
    };
    if (result !== 0) {
      const error = failure(result, 'layers cannot be merged', counts.error);
      // Here it is a PG that does not come, not etcd.
      throw result === -110 && counts.error !== '' ? new VitastorError('ERR_IO', error.message, { retryable: true }) : error;
    }
    return { mergedObjects: BigInt(counts.merged_objects), writtenBytes: BigInt(counts.written_bytes) };
  }

  /**
   * Where any of these layers holds data, in order, from bitmaps alone (vitastor_map_layers). A part at a time; extents of one part
   * do not touch. Throws ERR_INVALID_ARGUMENT, ERR_NOT_FOUND (no such pool), ERR_CONFLICT (repeat), ERR_IO, ERR_ABORTED.
   */
  async *mapLayers(request: MapRequest): AsyncGenerator<Extent[]> {
    let minOffset = request.minOffset ?? 0n;
    while (minOffset !== U64_MAX) {
      this.#check();
      const from = minOffset;
      const [result, extents, next, error] = await new Promise<[number, Buffer, bigint, string]>((resolve) => {
        const refused = this.#native.mapLayers(
          this.#context,
          {
            layers: request.layers, minOffset: from, maxOffset: request.maxOffset ?? 0n, maxExtents: BigInt(request.maxExtents ?? 0),
            iodepth: request.iodepth ?? 0, parallelOsds: request.parallelOsds ?? 0,
          },
          request.onProgress ?? null,
          (...answer) => resolve(answer),
        );
        if (refused !== 0) resolve([refused, Buffer.alloc(0), 0n, '']);
      });
      if (result !== 0) {
        const problem = failure(result, 'layers cannot be compared', error);
        // Here it is a PG that does not come, not etcd.
        throw result === -110 && error !== '' ? new VitastorError('ERR_IO', problem.message, { retryable: true }) : problem;
      }
      const numbers = new BigUint64Array(extents.buffer, extents.byteOffset, extents.length / 8);
      const list: Extent[] = [];
      for (let i = 0; i + 1 < numbers.length; i += 2) list.push({ offset: numbers[i] ?? 0n, length: numbers[i + 1] ?? 0n });
      yield list;
      minOffset = next;
    }
  }

  /** Ends what is under way with ERR_ABORTED. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await new Promise<void>((resolve) => this.#native.contextClose(this.#context, () => resolve()));
    for (const image of [...this.#images]) await image.close();
    this.#native.clusterClose(this.#cluster);
  }

  #check(): void {
    if (this.#closed) throw new VitastorError('ERR_ABORTED', 'the client is closed');
  }
}

/** An open image. Offsets and lengths are multiples of `granularity`; several operations may be under way at once. */
export class Image {
  readonly #native: NativeClient;
  readonly #context: ContextHandle;
  readonly #handle: ImageHandle;
  readonly #name: string;
  readonly #onClose: () => void;
  #pending = 0;
  #idle: (() => void) | undefined;
  #closed = false;

  constructor(native: NativeClient, context: ContextHandle, handle: ImageHandle, name: string, onClose: () => void) {
    this.#native = native;
    this.#context = context;
    this.#handle = handle;
    this.#name = name;
    this.#onClose = onClose;
  }

  get sizeBytes(): bigint { return this.#native.imageSize(this.#handle); }
  get inode(): bigint { return this.#native.imageInode(this.#handle); }
  get objectSizeBytes(): number { return this.#native.imageBlockSize(this.#handle); }
  get granularity(): number { return this.#native.imageGranularity(this.#handle); }
  get readOnly(): boolean { return this.#native.imageReadOnly(this.#handle) !== 0; }
  /** Acknowledged writes are durable: flush() is free. */
  get immediateCommit(): boolean { return this.#native.imageImmediateCommit(this.#handle) !== 0; }

  /**
   * Fills the buffer, or a new one of `length` bytes. Resolves with the buffer and the object's version (0n over
   * several objects).
   */
  async read(offset: bigint, target: Buffer | number): Promise<{ data: Buffer; version: bigint }> {
    const data = typeof target === 'number' ? Buffer.allocUnsafeSlow(target) : target;
    const version = await this.#run('read', (done) =>
      this.#native.read(this.#handle, this.#context, offset, data, done),
    );
    return { data, version };
  }
  async write(offset: bigint, data: Buffer): Promise<void> {
    await this.#run('write', (done) => this.#native.write(this.#handle, this.#context, offset, data, done));
  }
  /**
   * Rejects with ERR_CONFLICT when the object has another version, or the outcome is unknown. Resolves with the new
   * version.
   */
  async compareWrite(offset: bigint, data: Buffer, expectedVersion: bigint): Promise<bigint> {
    return this.#run('write', (done) =>
      this.#native.compareWrite(this.#handle, this.#context, offset, data, expectedVersion, done),
    );
  }
  /** Durable on return: every write that had completed before. */
  async flush(): Promise<void> {
    await this.#run('flush', (done) => this.#native.flush(this.#handle, this.#context, done));
  }
  /** The range reads as zeroes afterwards. */
  async discard(offset: bigint, lengthBytes: bigint): Promise<void> {
    await this.#run('discard', (done) => this.#native.discard(this.#handle, this.#context, offset, lengthBytes, done));
  }
  async deleteObject(offset: bigint, expectedVersion = 0xffff_ffff_ffff_ffffn): Promise<void> {
    await this.#run('delete', (done) =>
      this.#native.deleteObject(this.#handle, this.#context, offset, expectedVersion, done),
    );
  }
  /** Waits for what is under way. Does not flush. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#pending > 0) await new Promise<void>((resolve) => { this.#idle = resolve; });
    this.#native.imageClose(this.#handle);
    this.#onClose();
  }

  async #run(what: string, call: (done: DoneFn) => number): Promise<bigint> {
    if (this.#closed) throw new VitastorError('ERR_ABORTED', `${this.#name} is closed`);
    this.#pending++;
    try {
      const [result, version] = await new Promise<[number, bigint]>((resolve) => {
        const refused = call((code, seen) => resolve([code, seen]));
        if (refused !== 0) resolve([refused, 0n]);
      });
      if (result < 0) throw failure(result, `${what} of ${this.#name}`, '');
      return version;
    } finally {
      this.#pending--;
      if (this.#pending === 0) this.#idle?.();
    }
  }
}
