// SPDX-License-Identifier: GPL-2.0-or-later
// A client process: the real client on a node of its own, fed with etcd's contents; it can be killed and started again.

import type { Etcd, KeySpace, Watch } from '@vitastor/core';
import type { MemoryEtcd, MemoryEtcdClient } from '@vitastor/core/testing';
import type { SimClock } from './driver.js';
import type { NativePair, SimClient, SimWorld } from './native.js';

export interface ClientDeps {
  world: SimWorld;
  clock: SimClock;
  etcd: MemoryEtcd;
  keys: KeySpace;
  etcdDelayMs: number;
  options: Record<string, string>;
}

export class ClientProcess {
  readonly num: number;
  readonly node: number;
  readonly #deps: ClientDeps;
  #native: SimClient | null = null;
  #etcd: MemoryEtcdClient | null = null;
  #watch: Watch | null = null;
  /** Counts starts: what an earlier one began gets no answer. */
  generation = 0;
  /** Of etcd, as far as the client knows. */
  seenRevision = 0n;
  /** Images that the running process has open. */
  readonly #open = new Set<number>();
  /** Images that it is opening, and who waits for that. */
  readonly #opening = new Map<number, ((result: number) => void)[]>();

  constructor(num: number, deps: ClientDeps) {
    this.num = num;
    this.#deps = deps;
    this.node = deps.world.addNode(`client${num}`, `10.0.0.${100 + num}`);
  }

  /** Null while it is dead. */
  get native(): SimClient | null {
    return this.#native;
  }

  get isRunning(): boolean {
    return this.#native !== null;
  }

  isOpen(image: number): boolean {
    return this.#open.has(image);
  }

  start(): void {
    if (this.#native) return;
    const { world, etcd, etcdDelayMs } = this.#deps;
    world.restart(this.node);
    this.generation++;
    this.#native = world.createClient(this.node, { etcd_address: 'simulated', ...this.#deps.options });
    this.#etcd = etcd.client();
    this.#etcd.delayMs = etcdDelayMs;
    this.#feed(this.#native, this.#etcd);
  }

  /**
   * Once a process, however often it is asked. A second handle would be a second client to the image: what the first one has not flushed
   * it sends again after a lost connection, over newer writes of the second (docs/reliability.md).
   */
  open(image: number, name: string, done: (result: number) => void): void {
    if (!this.#native) return;
    if (this.#open.has(image)) return done(0);
    const others = this.#opening.get(image);
    if (others) return void others.push(done);
    const waiting = [done];
    this.#opening.set(image, waiting);
    this.#native.openImage(image, name, (result) => {
      this.#opening.delete(image);
      if (result === 0) this.#open.add(image);
      for (const answer of waiting) answer(result);
    });
  }

  /** As kill -9 would end it. */
  kill(): void {
    if (!this.#native) return;
    this.#deps.world.crash(this.node, false);
    this.#native.destroy();
    this.#native = null;
    this.#open.clear();
    this.#opening.clear();
    this.#watch?.close();
    this.#etcd?.close();
  }

  set etcdConnected(isConnected: boolean) {
    if (this.#etcd) this.#etcd.connected = isConnected;
  }

  /** News of etcd come so much later. */
  set newsLagMs(lagMs: number) {
    if (this.#etcd) this.#etcd.watchLagMs = lagMs;
  }

  #feed(native: SimClient, client: Etcd): void {
    if (this.#native !== native) return;
    const { etcd, keys, clock } = this.#deps;
    const prefixes = ['config/', 'osd/state/', 'pg/'].map((path) => ({ prefix: keys.at(path) }));
    const pairs = etcd.pairs().filter((kv) => prefixes.some(({ prefix }) => kv.key.startsWith(prefix)));
    native.load(pairs.map(({ key, value, modRevision }): NativePair => ({ key, value, modRevision })), etcd.revision);
    this.seenRevision = etcd.revision;
    this.#watch = client.watch(prefixes, etcd.revision + 1n, {
      onEvents: (events, revision) => {
        if (this.#native !== native) return;
        native.apply(events.map(({ key, value, modRevision }) => ({ key, value, modRevision })), revision);
        this.seenRevision = revision;
      },
      onEnd: () => clock.after(10, () => this.#reconnect(native, client)),
    });
  }

  /** A full load, as soon as etcd is there. */
  #reconnect(native: SimClient, client: Etcd): void {
    if (this.#native !== native) return;
    if (this.#etcd?.connected === true) this.#feed(native, client);
    else this.#deps.clock.after(200, () => this.#reconnect(native, client));
  }
}
