// SPDX-License-Identifier: GPL-2.0-or-later
// Runs vitastor-cli in this process, on etcd in memory.

import {
  SystemClock, VitastorError, type DataOps, type DescribeItem, type DescribeRequest, type MergeLayersProgress, type MergeLayersRequest, type MergeLayersResult, type ObjectName, type OsdAdmin, type RemoveDataProgress, type RemoveDataRequest, type RemoveDataResult,
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
    onProgress?.({ removedObjects: 1n, totalObjects: 2n, listed: false });
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

export class CliRig {
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
      readStdin: async () => this.stdin,
      stdout: (text) => { stdout += text; },
      stderr: (text) => { stderr += text; },
      stdoutIsTerminal: false,
      stderrIsTerminal: false,
      signal: new AbortController().signal,
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
