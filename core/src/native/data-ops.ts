// SPDX-License-Identifier: GPL-2.0-or-later
// DataOps over the native client.

import type {
  DataOps,
  MergeLayersProgress,
  MergeLayersRequest,
  MergeLayersResult,
  OpenDataOps,
  RemoveDataProgress,
  RemoveDataRequest,
  RemoveDataResult,
} from '../data-ops.js';
import { VitastorError } from '../errors.js';
import { Client } from '../image.js';

class NativeDataOps implements DataOps {
  readonly #config: Readonly<Record<string, string>>;
  readonly #clients = new Set<Client>();

  constructor(config: Readonly<Record<string, string>>) {
    this.#config = config;
  }

  async deleteInodeData(
    request: RemoveDataRequest,
    onProgress?: (progress: RemoveDataProgress) => void,
    signal?: AbortSignal,
  ): Promise<RemoveDataResult> {
    const outcome = await this.#run(request.waitUpTimeoutMs, signal, (client) =>
      client.purge({
        pool: request.pool,
        inode: request.inode,
        minOffset: request.minOffset,
        maxOffset: request.maxOffset,
        iodepth: request.iodepth,
        parallelOsds: request.parallelOsds,
        waitList: request.waitList,
        downOk: request.downOk,
        cut: request.cut ?? false,
        onProgress: (removedObjects, totalObjects, unlistedPgs) => onProgress?.({ removedObjects, totalObjects, unlistedPgs }),
      }),
    );
    if (outcome.result === -11) {
      throw new VitastorError(
        'ERR_CONFLICT',
        `the PG count of pool ${String(request.pool)} changed meanwhile: repeat the command`,
        { retryable: true },
      );
    }
    const { removedObjects, totalObjects, errorCount, inactiveOsds, inactivePgs } = outcome;
    return { removedObjects, totalObjects, errorCount, inactiveOsds, inactivePgs };
  }

  mergeLayers(
    request: MergeLayersRequest,
    onProgress?: (progress: MergeLayersProgress) => void,
    signal?: AbortSignal,
  ): Promise<MergeLayersResult> {
    const { layers, target, cas, iodepth, parallelOsds, fsyncInterval } = request;
    return this.#run(request.waitUpTimeoutMs, signal, (client) =>
      client.merge({
        layers, target, cas, iodepth, parallelOsds, fsyncInterval,
        onProgress: (doneObjects, totalObjects, writtenBytes) => onProgress?.({ doneObjects, totalObjects, writtenBytes }),
      }),
    );
  }

  /** With a client of its own: aborting it ends nothing else. */
  async #run<T>(waitUpTimeoutMs: number, signal: AbortSignal | undefined, run: (client: Client) => Promise<T>): Promise<T> {
    if (signal?.aborted === true) throw new VitastorError('ERR_ABORTED', 'interrupted');
    const waitSeconds = Math.max(1, Math.ceil(waitUpTimeoutMs / 1000));
    const client = new Client({ config: { ...this.#config, client_wait_up_timeout: String(waitSeconds) } });
    this.#clients.add(client);
    const abort = (): void => {
      void client.close();
    };
    signal?.addEventListener('abort', abort, { once: true });
    try {
      return await run(client);
    } finally {
      signal?.removeEventListener('abort', abort);
      this.#clients.delete(client);
      await client.close();
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#clients].map((client) => client.close()));
  }
}

/** config: effective settings as text (etcd_address at least). Nothing is contacted before the first call. */
export const openNativeDataOps: OpenDataOps = (config) => Promise.resolve(new NativeDataOps(config));
