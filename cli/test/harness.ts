// SPDX-License-Identifier: GPL-2.0-or-later
// Runs vitastor-cli in this process, on etcd in memory.

import {
  SystemClock, VitastorError, type DataOps, type DescribeItem, type DescribeRequest, type Extent, type ImageClient, type ImageIo, type ImageOpenOptions, type MapRequest, type MergeLayersProgress, type MergeLayersRequest, type MergeLayersResult, type ObjectName, type OsdAdmin, type RemoveDataProgress, type RemoveDataRequest, type RemoveDataResult,
} from '@vitastor/core';
import { MemoryEtcd, type MemoryEtcdClient } from '@vitastor/core/testing';
import { runCli } from '../src/run.js';

export interface CliResult {
  exit: number;
  stdout: string;
  stderr: string;
}

/** Removes nothing, remembers what it was asked, and answers as told. */
export class FakeDataOps implements DataOps {
  readonly requests: RemoveDataRequest[] = [];
  result: Partial<RemoveDataResult> = {};
  onRequest: (request: RemoveDataRequest) => void = () => undefined;
  closed = 0;

  async deleteInodeData(request: RemoveDataRequest, onProgress?: (progress: RemoveDataProgress) => void): Promise<RemoveDataResult> {
    this.requests.push(request);
    this.onRequest(request);
    onProgress?.({ removedObjects: 1n, totalObjects: 2n, unlistedPgs: 2n });
    return { removedObjects: 2n, totalObjects: 2n, errorCount: 0n, inactiveOsds: [], inactivePgs: [], ...this.result };
  }

  readonly merges: MergeLayersRequest[] = [];
  onMerge: (request: MergeLayersRequest) => void = () => undefined;

  async mergeLayers(request: MergeLayersRequest, onProgress?: (progress: MergeLayersProgress) => void): Promise<MergeLayersResult> {
    this.merges.push(request);
    this.onMerge(request);
    onProgress?.({ doneObjects: 2n, totalObjects: 2n, writtenBytes: 8192n });
    return { mergedObjects: 2n, writtenBytes: 8192n };
  }

  async close(): Promise<void> {
    this.closed++;
  }
}

/** Primaries that know `items`, and do with a deleted copy what ours do. */
export class FakeOsdAdmin implements OsdAdmin {
  /** By primary. */
  readonly items = new Map<number, DescribeItem[]>();
  readonly requests: string[] = [];
  readonly described: DescribeRequest[] = [];
  /** Answers of deleteCopy and scrub. */
  deleteResult = 0;
  scrubResult = 0;

  async describe(osd: number, request: DescribeRequest): Promise<DescribeItem[]> {
    this.described.push(request);
    const items = this.items.get(osd);
    if (!items) throw new VitastorError('ERR_IO', `OSD ${osd} is down`);
    if (request.maxInode === 0n) return items;
    return items.filter((item) => item.inode === request.minInode && item.stripe === request.minOffset);
  }

  async scrub(osd: number, object: ObjectName): Promise<number> {
    this.requests.push(`scrub at ${osd}: ${object.inode}:${object.stripe}`);
    return this.scrubResult;
  }

  async deleteCopy(osd: number, object: ObjectName, part: number): Promise<number> {
    this.requests.push(`delete at ${osd}: ${object.inode}:${object.stripe} part ${part}`);
    return this.deleteResult;
  }

  close(): void {}
}

/** Layers in memory, by the metadata in etcd. Granules of 4096 bytes. */
export class FakeImages {
  readonly #rig: CliRig;
  /** Full inode number → offset → granule. */
  readonly layers = new Map<bigint, Map<bigint, Buffer>>();
  /** Operations wait for ever, as where no OSD leads a PG. */
  hangs = false;
  /** Reads of these granules of an image fail. */
  bad = new Set<bigint>();
  /** Throws where a write is to fail. */
  onWrite: (offset: bigint) => void = () => undefined;
  opened = 0;
  closed = 0;
  flushes = 0;
  readonly maps: MapRequest[] = [];

  constructor(rig: CliRig) {
    this.#rig = rig;
  }
  #config(inode: bigint): { size: number; readonly?: boolean; parent_id?: number; parent_pool?: number } | undefined {
    return this.#rig.get(`config/inode/${inode >> 48n}/${inode & 0xffffffffffffn}`) as { size: number } | undefined;
  }
  inodeOf(name: string): bigint {
    const index = this.#rig.get(`index/image/${name}`) as { id: number; pool_id: number } | undefined;
    if (!index) throw new VitastorError('ERR_NOT_FOUND', `cannot open ${name}`);
    return (BigInt(index.pool_id) << 48n) | BigInt(index.id);
  }
  layer(inode: bigint): Map<bigint, Buffer> {
    const layer = this.layers.get(inode) ?? new Map<bigint, Buffer>();
    this.layers.set(inode, layer);
    return layer;
  }
  /** What a reader sees. */
  content(name: string): Buffer {
    const inode = this.inodeOf(name);
    const whole = Buffer.alloc(this.#config(inode)?.size ?? 0);
    for (let at = 0; at < whole.length; at += 4096) this.#granule(inode, BigInt(at))?.copy(whole, at);
    return whole;
  }
  fill(name: string, offset: number, data: Buffer): void {
    const layer = this.layer(this.inodeOf(name));
    for (let at = 0; at < data.length; at += 4096) layer.set(BigInt(offset + at), Buffer.from(data.subarray(at, at + 4096)));
  }
  #granule(inode: bigint, offset: bigint): Buffer | undefined {
    for (let [layer, depth] = [inode, 0]; depth < 100; depth++) {
      const found = this.layers.get(layer)?.get(offset);
      const config = this.#config(layer);
      if (found || !config?.parent_id) return found;
      layer = (BigInt(config.parent_pool ?? Number(layer >> 48n)) << 48n) | BigInt(config.parent_id);
    }
    return undefined;
  }

  client(): ImageClient {
    const cut: (() => void)[] = [];
    const waits = async (): Promise<void> => {
      if (this.hangs) await new Promise<void>((_, reject) => cut.push(() => reject(new VitastorError('ERR_ABORTED', 'error 125'))));
      else await Promise.resolve();
    };
    const open = async (options: ImageOpenOptions): Promise<ImageIo> => {
      const inode = this.inodeOf(options.image ?? '');
      this.opened++;
      const check = (offset: bigint, length: number): void => {
        if (offset % 4096n !== 0n || length % 4096 !== 0 || length === 0) throw new VitastorError('ERR_INVALID_ARGUMENT', `misaligned: ${offset} + ${length}`);
      };
      return {
        sizeBytes: BigInt(this.#config(inode)?.size ?? 0),
        granularity: 4096,
        read: async (offset, target) => {
          check(offset, target.length);
          await waits();
          for (let at = 0; at < target.length; at += 4096) {
            const place = offset + BigInt(at);
            if (this.bad.has(place)) throw new VitastorError('ERR_IO', `read of ${options.image}: error 5`);
            (this.#granule(inode, place) ?? Buffer.alloc(4096)).copy(target, at);
          }
          return { data: target, version: 0n };
        },
        write: async (offset, data) => {
          check(offset, data.length);
          this.onWrite(offset);
          const copy = Buffer.from(data);
          await waits();
          for (let at = 0; at < copy.length; at += 4096) this.layer(inode).set(offset + BigInt(at), copy.subarray(at, at + 4096));
        },
        discard: async (offset, length) => {
          check(offset, Number(length));
          await waits();
          for (let at = offset; at < offset + length; at += 4096n) this.layer(inode).set(at, Buffer.alloc(4096));
        },
        flush: async () => {
          await waits();
          this.flushes++;
        },
        close: async () => { this.opened--; },
      };
    };
    const isDown = (): boolean => this.hangs;
    const layers = this.layers;
    const maps = this.maps;
    return {
      open,
      async *mapLayers(request: MapRequest): AsyncGenerator<Extent[]> {
        maps.push(request);
        if (isDown()) throw new VitastorError('ERR_IO', 'layers cannot be compared: PG 1 of pool 1 is inactive: its objects cannot be listed', { retryable: true });
        const found = new Set<bigint>();
        for (const layer of request.layers) for (const at of layers.get(layer)?.keys() ?? []) found.add(at);
        let part: Extent[] = [];
        for (const offset of [...found].sort((a, b) => (a < b ? -1 : 1))) {
          if (offset < (request.minOffset ?? 0n) || (request.maxOffset && offset >= request.maxOffset)) continue;
          const last = part[part.length - 1];
          if (last && last.offset + last.length === offset) last.length += 4096n;
          else part.push({ offset, length: 4096n });
          if (part.length > (request.maxExtents ?? 1 << 20)) {
            yield part.splice(0, part.length - 1);
            part = [...part];
          }
        }
        yield part;
      },
      close: async () => {
        this.closed++;
        for (const end of cut.splice(0)) end();
      },
    };
  }
}

export class CliRig {
  readonly images = new FakeImages(this);
  /** What stdin gives as bytes, in pieces; a piece of null: nothing more comes, and no end. */
  stdinPieces: (Buffer | null)[] = [];
  /** What went to stdout as bytes. */
  bytesOut: Buffer[] = [];
  signal = new AbortController();
  readonly osdAdmin = new FakeOsdAdmin();
  stdin = '';
  readonly clock = new SystemClock();
  readonly server = new MemoryEtcd(this.clock);
  readonly dataOps = new FakeDataOps();
  readonly clients: MemoryEtcdClient[] = [];
  dbSizeBytes = 0;
  /** Changes each new client. */
  onClient: (client: MemoryEtcdClient) => void = () => undefined;

  put(path: string, value: unknown): void {
    this.server.put(`/vitastor/${path}`, typeof value === 'string' ? value : JSON.stringify(value));
  }

  get(path: string): unknown {
    const text = this.server.get(`/vitastor/${path}`);
    return text === undefined ? undefined : JSON.parse(text);
  }

  keys(prefix: string): string[] {
    return this.server.pairs().map((kv) => kv.key.slice('/vitastor/'.length)).filter((key) => key.startsWith(prefix));
  }

  async run(words: readonly string[], program = '/usr/bin/vitastor-cli'): Promise<CliResult> {
    let [stdout, stderr] = ['', ''];
    const exit = await runCli(program, ['--etcd_address', 'memory:1', ...words], {
      clock: this.clock,
      openEtcd: () => {
        const client = this.server.client();
        client.dbSizeBytes = this.dbSizeBytes;
        this.clients.push(client);
        this.onClient(client);
        return client;
      },
      openDataOps: async () => this.dataOps,
      openOsdAdmin: () => this.osdAdmin,
      openImageClient: () => this.images.client(),
      stdin: () => {
        let destroyed = (): void => undefined;
        const gone = new Promise<void>((resolve) => { destroyed = resolve; });
        const pieces = this.stdinPieces;
        async function* chunks(): AsyncGenerator<Buffer> {
          for (const piece of pieces) {
            if (piece === null) await gone;
            else yield piece;
          }
        }
        return Object.assign(chunks(), { destroy: () => destroyed() });
      },
      writeStdout: async (data) => {
        await Promise.resolve();
        if (typeof data === 'string') stdout += data;
        else this.bytesOut.push(Buffer.from(data));
      },
      readStdin: async () => this.stdin,
      stdout: (text) => { stdout += text; },
      stderr: (text) => { stderr += text; },
      stdoutIsTerminal: false,
      stderrIsTerminal: false,
      signal: this.signal.signal,
    });
    return { exit, stdout, stderr };
  }

  async json(words: readonly string[]): Promise<{ exit: number; json: unknown }> {
    const result = await this.run([...words, '--json']);
    try {
      return { exit: result.exit, json: JSON.parse(result.stdout) as unknown };
    } catch (error) {
      throw new VitastorError('ERR_BAD_VALUE', `stdout of ${words.join(' ')} is no JSON: ${result.stdout}${result.stderr}`, { cause: error });
    }
  }

  stop(): void {
    for (const client of this.clients) client.close();
    this.server.stop();
  }
}
