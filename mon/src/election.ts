// SPDX-License-Identifier: GPL-2.0-or-later
// Becoming master: the first transaction that finds /mon/master absent wins; the role ends with the
// lease. Source: etcd schema 8.2.

import {
  encodeMonMember,
  errorText,
  stringifyJson,
  VitastorError,
  type Cancel,
  type Clock,
  type Etcd,
  type KeySpace,
  type Watch,
} from '@vitastor/core';
import type { Log } from './log.js';

export interface Candidate {
  etcd: Etcd;
  clock: Clock;
  keys: KeySpace;
  log: Log;
  leaseId: bigint;
  hostname: string;
  ips: readonly string[];
  /** Timeout of an attempt and longest distance of two. */
  periodMs: number;
}

/** Resolves when this monitor is master. Rejects with ERR_ABORTED after stop(). */
export class Election {
  readonly #candidate: Candidate;
  #watch: Watch | null = null;
  #timer: Cancel | null = null;
  #wake: (() => void) | null = null;
  #stopped = false;
  #standby = false;

  constructor(candidate: Candidate) {
    this.#candidate = candidate;
  }

  async win(): Promise<void> {
    const { clock, log, periodMs } = this.#candidate;
    for (;;) {
      try {
        const revision = await this.#attempt();
        if (revision === null) return;
        this.#follow(revision);
      } catch (error) {
        if (this.#stopped) throw aborted();
        if (!(error instanceof VitastorError) || !error.retryable) throw error;
        log.warn(`election: ${errorText(error)}`);
      }
      if (this.#stopped) throw aborted();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        this.#timer = clock.after(periodMs, resolve);
      });
      this.#timer?.();
      this.#wake = null;
      if (this.#stopped) throw aborted();
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#watch?.close();
    this.#watch = null;
    this.#timer?.();
    this.#wake?.();
  }

  /** null: we are master; else the revision at which somebody else was. */
  async #attempt(): Promise<bigint | null> {
    const { etcd, keys, leaseId, hostname, ips, periodMs, log } = this.#candidate;
    const key = keys.monMaster;
    const value = stringifyJson(
      encodeMonMember({ ip: [...ips], hostname, id: leaseId.toString() }),
    );
    const result = await etcd.txn(
      {
        compare: [{ target: 'createRevision', key, result: 'equal', value: 0n }],
        success: [{ op: 'put', key, value, lease: leaseId }],
        failure: [{ op: 'range', range: { key } }],
      },
      periodMs,
    );
    // The key may be ours already: an earlier reply was lost.
    const holder = result.responses[0]?.[0];
    if (result.succeeded || holder?.lease === leaseId) {
      this.#watch?.close();
      this.#watch = null;
      return null;
    }
    if (!this.#standby) log.info(`standing by: the master is ${holder?.value ?? 'somebody else'}`);
    this.#standby = true;
    return result.revision;
  }

  /** Tries again as soon as the master's key goes; the period is only a second line. */
  #follow(revision: bigint): void {
    if (this.#watch !== null || this.#stopped) return;
    this.#watch = this.#candidate.etcd.watch(
      [{ key: this.#candidate.keys.monMaster }],
      revision + 1n,
      {
        onEvents: (events) => {
          if (events.some((event) => event.type === 'delete')) this.#wake?.();
        },
        onEnd: () => {
          this.#watch = null;
        },
      },
    );
  }
}

function aborted(): VitastorError {
  return new VitastorError('ERR_ABORTED', 'the election was stopped');
}
