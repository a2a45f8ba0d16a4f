// SPDX-License-Identifier: GPL-2.0-or-later
// Images as commands read and write them: opened through one client, and given up when no OSD answers, where a virtual machine would wait for ever.

import {
  changedExtents, findPool, inodeKeyOf, parentChain, VitastorError,
  type Clock, type ClusterView, type ImageClient, type ImageIo, type InodeConfig,
} from '@vitastor/core';
import { isWithoutData } from '../removal.js';
import type { Session } from '../session.js';
import type { BlockSink, BlockSource } from './endpoints.js';

/** What requirePlaced() reads besides config/. */
export const IMAGE_PATHS = ['index/', 'pg/config', 'pgstats/'];

/** Throws where the image cannot be read or written now for a reason that the view knows. */
export function requirePlaced(view: ClusterView, image: InodeConfig): void {
  for (const layer of [image, ...parentChain(view, image)]) requireLayerPlaced(view, layer);
}

/** What nobody has written to, by the statistics (IMAGE_PATHS and inode/stats/ are loaded), which may be some seconds behind. */
export function seemsEmpty(view: ClusterView, layers: readonly InodeConfig[]): boolean {
  return layers.every((layer) => (view.inodeStats.get(inodeKeyOf(layer))?.rawUsedBytes ?? 0n) === 0n);
}

/** The same for a layer without those below it. */
export function requireLayerPlaced(view: ClusterView, layer: InodeConfig): void {
  if (layer.deleted) throw new VitastorError('ERR_BUSY', `${layer.name} is being removed, and some of its data may be gone already: vitastor-cli rm ${layer.name} ends that`);
  const pool = findPool(view, String(layer.pool));
  // Throws where there is data and nobody can say where.
  isWithoutData(view, layer.pool);
  if ((view.pgConfig?.items.get(layer.pool)?.length ?? 0) > 0) return;
  throw new VitastorError('ERR_IO', `Pool ${pool.name} of ${layer.name} has no placement groups yet: start a monitor and OSDs, see vitastor-cli status`, {
    retryable: true,
  });
}

export function findImage(view: ClusterView, name: string): InodeConfig {
  const image = view.imageByName(name);
  if (!image) throw new VitastorError('ERR_NOT_FOUND', `Image ${name} does not exist`, { data: { image: name } });
  return image;
}

/** Closes the client when operations are under way and none has ended for a while; they all fail with one clear error then. */
class Patience {
  readonly #clock: Clock;
  readonly #limitMs: number;
  readonly #giveUp: () => void;
  #pending = 0;
  #lastMs = 0;
  #cancel: (() => void) | null = null;
  #error: VitastorError | null = null;

  constructor(clock: Clock, limitMs: number, giveUp: () => void) {
    this.#clock = clock;
    this.#limitMs = limitMs;
    this.#giveUp = giveUp;
  }

  async run<T>(what: string, operation: () => Promise<T>): Promise<T> {
    if (this.#error) throw this.#error;
    if (this.#pending++ === 0) this.#lastMs = this.#clock.nowMs();
    this.#watch(what);
    try {
      return await operation();
    } catch (error) {
      throw this.#error ?? error;
    } finally {
      this.#pending--;
      this.#lastMs = this.#clock.nowMs();
    }
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = null;
  }

  #watch(what: string): void {
    this.#cancel ??= this.#clock.after(this.#limitMs / 8, () => {
      this.#cancel = null;
      if (this.#pending === 0 || this.#error) return;
      if (this.#clock.nowMs() - this.#lastMs < this.#limitMs) return this.#watch(what);
      const seconds = Math.round(this.#limitMs / 1000);
      this.#error = new VitastorError('ERR_IO',
        `no answer from the OSDs of ${what} for ${seconds} s (client_wait_up_timeout): vitastor-cli pg-list ^active shows PGs that do not serve`, { retryable: true });
      this.#giveUp();
    });
  }
}

export class CommandImages {
  readonly #client: ImageClient;
  readonly #patience: Patience;
  readonly #onAbort: () => void;
  readonly #signal: AbortSignal;
  #closed: Promise<void> | null = null;

  private constructor(client: ImageClient, clock: Clock, limitMs: number, signal: AbortSignal) {
    this.#client = client;
    this.#patience = new Patience(clock, limitMs, () => void this.close());
    this.#signal = signal;
    this.#onAbort = () => void this.close();
    signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** parameters: of this client alone. The session has loaded its view. */
  static async start(session: Session, parameters: Readonly<Record<string, string>> = {}): Promise<CommandImages> {
    const { environment } = session;
    if (environment.signal.aborted) throw new VitastorError('ERR_ABORTED', 'interrupted');
    const config = await session.config();
    const client = environment.openImageClient({ ...config.asText(), client_writeback_allowed: 'false', ...parameters });
    return new CommandImages(client, environment.clock, config.number('client_wait_up_timeout') * 1000, environment.signal);
  }

  get client(): ImageClient {
    return this.#client;
  }

  /** Any of these layers has been written to. */
  async isWritten(layers: readonly InodeConfig[]): Promise<boolean> {
    const [to] = layers;
    if (to) for await (const part of changedExtents(this.#client, { to, from: null, layers }, { maxExtents: 1 })) if (part.length) return true;
    return false;
  }

  async open(image: string, readOnly: boolean): Promise<OpenImage> {
    const io = await this.#client.open({ image, readOnly });
    return new OpenImage(`image ${image}`, io, this.#patience);
  }

  /** Ends what is under way. Idempotent. */
  close(): Promise<void> {
    this.#patience.stop();
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#closed ??= this.#client.close();
    return this.#closed;
  }
}

export class OpenImage {
  readonly name: string;
  readonly io: ImageIo;
  readonly #patience: Patience;

  constructor(name: string, io: ImageIo, patience: Patience) {
    this.name = name;
    this.io = io;
    this.#patience = patience;
  }

  read(offset: bigint, target: Buffer): Promise<unknown> {
    return this.#patience.run(this.name, () => this.io.read(offset, target));
  }
  write(offset: bigint, data: Buffer): Promise<void> {
    return this.#patience.run(this.name, () => this.io.write(offset, data));
  }
  discard(offset: bigint, length: bigint): Promise<void> {
    return this.#patience.run(this.name, () => this.io.discard(offset, length));
  }
  flush(): Promise<void> {
    return this.#patience.run(this.name, () => this.io.flush());
  }

  source(): BlockSource {
    const { sizeBytes, granularity } = this.io;
    return {
      name: this.name, sizeBytes, alignment: granularity, sequential: false,
      read: async (offset, target) => {
        const whole = Math.ceil(target.length / granularity) * granularity;
        const memory = whole === target.length ? target : Buffer.allocUnsafeSlow(whole);
        await this.read(offset, memory);
        if (memory !== target) memory.copy(target);
        return target.length;
      },
      close: () => this.io.close(),
    };
  }

  /** blank: nothing has been written to it yet. */
  sink(blank: boolean): BlockSink {
    const { sizeBytes, granularity } = this.io;
    return {
      name: this.name, sizeBytes, alignment: granularity, sequential: false, blankFrom: blank ? 0n : null,
      write: (offset, data) => this.write(offset, data),
      read: async (offset, target) => {
        await this.read(offset, target);
        return target.length;
      },
      finish: async (_end, sync) => {
        if (sync) await this.flush();
      },
      close: () => this.io.close(),
    };
  }
}
