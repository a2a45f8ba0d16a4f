// SPDX-License-Identifier: GPL-2.0-or-later
// One process of TypeScript in the simulation: it can be killed, and its thread can stall. While it stalls, timers, answers of etcd and
// events of the engine wait; the engine goes on.

import type { Cancel, Clock, Etcd, KeyRange, MemberStatus, Txn, TxnResult, Watch, WatchHandlers } from '@vitastor/core';

/** What wants to run on the thread of the process. */
export class Gate {
  #isAlive = true;
  #isOpen = true;
  #waiting: (() => void)[] = [];

  run(work: () => void): void {
    if (!this.#isAlive) return;
    if (this.#isOpen) work();
    else this.#waiting.push(work);
  }

  /** Resolves or rejects as `work` does, when the thread has time. Never, when the process is dead by then. */
  async pass<T>(work: Promise<T>): Promise<T> {
    return await new Promise<T>((resolve, reject) => {
      work.then(
        (value) => this.run(() => resolve(value)),
        (error: unknown) => this.run(() => reject(error instanceof Error ? error : new Error(String(error)))),
      );
    });
  }

  get isStalled(): boolean {
    return !this.#isOpen;
  }

  stall(): void {
    this.#isOpen = false;
  }

  resume(): void {
    if (this.#isOpen) return;
    this.#isOpen = true;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const work of waiting) this.run(work);
  }

  kill(): void {
    this.#isAlive = false;
    this.#waiting = [];
  }
}

/** The clock of one process. */
export class ProcessClock implements Clock {
  readonly #clock: Clock;
  readonly #gate: Gate;
  /** Added to the time of day, milliseconds. */
  wallJumpMs = 0;

  constructor(clock: Clock, gate: Gate) {
    this.#clock = clock;
    this.#gate = gate;
  }

  nowMs(): number {
    return this.#clock.nowMs();
  }

  wallMs(): number {
    return this.#clock.wallMs() + this.wallJumpMs;
  }

  after(delayMs: number, fire: () => void): Cancel {
    let isCancelled = false;
    const cancel = this.#clock.after(delayMs, () =>
      this.#gate.run(() => {
        if (!isCancelled) fire();
      }),
    );
    return () => {
      isCancelled = true;
      cancel();
    };
  }
}

/** etcd as a process sees it. */
export class ProcessEtcd implements Etcd {
  readonly #etcd: Etcd;
  readonly #gate: Gate;

  constructor(etcd: Etcd, gate: Gate) {
    this.#etcd = etcd;
    this.#gate = gate;
  }

  txn(txn: Txn, timeoutMs: number): Promise<TxnResult> {
    return this.#gate.pass(this.#etcd.txn(txn, timeoutMs));
  }

  leaseGrant(ttlSeconds: number, timeoutMs: number): Promise<bigint> {
    return this.#gate.pass(this.#etcd.leaseGrant(ttlSeconds, timeoutMs));
  }

  leaseKeepalive(lease: bigint, timeoutMs: number): Promise<number> {
    return this.#gate.pass(this.#etcd.leaseKeepalive(lease, timeoutMs));
  }

  leaseRevoke(lease: bigint, timeoutMs: number): Promise<void> {
    return this.#gate.pass(this.#etcd.leaseRevoke(lease, timeoutMs));
  }

  status(timeoutMs: number): Promise<MemberStatus[]> {
    return this.#gate.pass(this.#etcd.status(timeoutMs));
  }

  setAddresses(addresses: readonly string[]): void {
    this.#etcd.setAddresses(addresses);
  }

  watch(ranges: readonly KeyRange[], startRevision: bigint, handlers: WatchHandlers): Watch {
    let isOpen = true;
    const gate = this.#gate;
    const pass = (work: () => void): void => gate.run(() => void (isOpen && work()));
    const watch = this.#etcd.watch(ranges, startRevision, {
      onEvents: (events, revision) => pass(() => handlers.onEvents(events, revision)),
      onEnd: (reason) => pass(() => handlers.onEnd(reason)),
    });
    return {
      close: () => {
        isOpen = false;
        watch.close();
      },
    };
  }

  close(): void {
    this.#etcd.close();
  }
}
