// SPDX-License-Identifier: GPL-2.0-or-later
// Carries PG writes to etcd: one transaction in flight, several PGs in each. Source: etcd schema 5.8.

import { errorText, type Clock, type Compare, type Etcd, type KeySpace, type TxnOp } from '@vitastor/core';
import type { PgControl, PgWrite } from './pg-control.js';

/** Every PG costs at most two operations; etcd allows 128 in a transaction unless it was told otherwise. */
const PGS_PER_TXN = 60;
const RETRY_MS = 500;

export interface PgReporterDeps {
  etcd: Etcd;
  clock: Clock;
  keys: KeySpace;
  /** Our present lease, 0n = none (nothing is written then). */
  lease: () => bigint;
  timeoutMs: number;
  /** Conditions failed: the owner feeds these PGs fresh facts. */
  onConflict: (controls: readonly PgControl[]) => void;
  /** All that was dirty is in etcd. */
  onIdle: () => void;
  log: (text: string) => void;
}

export class PgReporter {
  readonly #deps: PgReporterDeps;
  readonly #dirty = new Set<PgControl>();
  #inFlight = false;
  #scheduled = false;
  #stopped = false;
  /** After a conflict PGs go one by one, so that a stubborn one does not hold the others. */
  #batch = PGS_PER_TXN;

  constructor(deps: PgReporterDeps) {
    this.#deps = deps;
  }

  add(control: PgControl): void {
    this.#dirty.add(control);
    this.#schedule(0);
  }

  /** Forgets everything; nothing is called afterwards. */
  stop(): void {
    this.#stopped = true;
    this.#dirty.clear();
  }

  #schedule(delayMs: number): void {
    if (this.#scheduled || this.#inFlight || this.#stopped) return;
    this.#scheduled = true;
    this.#deps.clock.after(delayMs, () => {
      this.#scheduled = false;
      void this.#flush();
    });
  }

  async #flush(): Promise<void> {
    if (this.#inFlight || this.#stopped) return;
    const lease = this.#deps.lease();
    if (lease === 0n) return;
    const writes: PgWrite[] = [];
    for (const control of this.#dirty) {
      if (writes.length >= this.#batch) break;
      this.#dirty.delete(control);
      const write = control.nextWrite();
      if (write) writes.push(write);
    }
    if (writes.length === 0) return;
    this.#inFlight = true;
    const delayMs = await this.#run(writes, lease);
    this.#inFlight = false;
    if (this.#dirty.size > 0) this.#schedule(delayMs);
    else if (delayMs === 0 && !this.#stopped) this.#deps.onIdle();
  }

  /** Returns the pause before the next one. */
  async #run(writes: readonly PgWrite[], lease: bigint): Promise<number> {
    const { keys } = this.#deps;
    const compare: Compare[] = [];
    const success: TxnOp[] = [];
    for (const { control, state, history } of writes) {
      const stateKey = keys.pgState(control.id.pool, control.id.pg);
      if (state?.kind === 'lock') compare.push({ target: 'version', key: stateKey, result: 'equal', value: 0n });
      else compare.push({ target: 'lease', key: stateKey, result: 'equal', value: lease });
      if (state?.kind === 'unlock') success.push({ op: 'delete', range: { key: stateKey } });
      else if (state) success.push({ op: 'put', key: stateKey, value: state.value, lease });
      if (history) {
        const historyKey = keys.pgHistory(control.id.pool, control.id.pg);
        compare.push({ target: 'modRevision', key: historyKey, result: 'less', value: history.seenRevision + 1n });
        success.push({ op: 'put', key: historyKey, value: history.value });
      }
    }
    try {
      const result = await this.#deps.etcd.txn({ compare, success }, this.#deps.timeoutMs);
      if (this.#stopped) return 0;
      if (result.succeeded) {
        this.#batch = PGS_PER_TXN;
        for (const write of writes) write.done(result.revision);
        return 0;
      }
    } catch (error) {
      // Whether it was applied is not known: the watch, or the next conflict, will tell.
      if (this.#stopped) return 0;
      this.#deps.log(`reporting PG states to etcd failed: ${errorText(error)}; repeating`);
    }
    this.#batch = 1;
    const controls = writes.map((write) => write.control);
    for (const control of controls) control.onConflict();
    for (const control of controls) this.#dirty.add(control);
    this.#deps.onConflict(controls);
    return RETRY_MS;
  }
}
