// SPDX-License-Identifier: GPL-2.0-or-later
// A lease that is kept alive, and known to be lost as soon as our own clock says so, whatever etcd
// or its client say.

import { errorText, VitastorError, type Cancel, type Clock, type Etcd } from '@vitastor/core';
import type { Log } from './log.js';

export interface LeaseOptions {
  etcd: Etcd;
  clock: Clock;
  log: Log;
  ttlSeconds: number;
  refreshMs: number;
  timeoutMs: number;
  retries: number;
  /** Called once; the lease must not be used afterwards. */
  onLost: (error: VitastorError) => void;
}

/**
 * The local end of the lease comes this much before etcd's, at most: answers and clocks are not
 * that exact.
 */
const MARGIN_MS = 500;

/** Granted by grant(), ended by revoke() or, once, by onLost. */
export class Lease {
  readonly id: bigint;
  readonly #options: LeaseOptions;
  #validUntilMs: number;
  #timer: Cancel | null = null;
  #deadline: Cancel | null = null;
  #ended = false;

  private constructor(id: bigint, validUntilMs: number, options: LeaseOptions) {
    this.id = id;
    this.#options = options;
    this.#validUntilMs = validUntilMs;
    this.#watchDeadline();
    this.#next();
  }

  /** One attempt. Rejects with ERR_ETCD_UNAVAILABLE. */
  static async grant(options: LeaseOptions): Promise<Lease> {
    const sentMs = options.clock.nowMs();
    const id = await options.etcd.leaseGrant(options.ttlSeconds, options.timeoutMs);
    return new Lease(id, validUntil(sentMs, options.ttlSeconds), options);
  }

  get isValid(): boolean {
    return !this.#ended && this.#options.clock.nowMs() < this.#validUntilMs;
  }

  /** Gives the lease back, so that its keys vanish at once. Never rejects. */
  async revoke(): Promise<void> {
    if (!this.#end()) return;
    try {
      await this.#options.etcd.leaseRevoke(this.id, this.#options.timeoutMs);
    } catch (error) {
      this.#options.log.warn(
        `cannot revoke lease ${this.id}: ${errorText(error)}; its keys vanish within ${this.#options.ttlSeconds} s`,
      );
    }
  }

  /** False if it had ended before. */
  #end(): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    this.#timer?.();
    this.#deadline?.();
    return true;
  }

  #lose(reason: string): void {
    if (this.#end())
      this.#options.onLost(
        new VitastorError('ERR_LEASE_LOST', `lease ${this.id} is lost: ${reason}`),
      );
  }

  #watchDeadline(): void {
    this.#deadline?.();
    const left = this.#validUntilMs - this.#options.clock.nowMs();
    this.#deadline = this.#options.clock.after(Math.max(0, left), () => {
      if (this.#options.clock.nowMs() < this.#validUntilMs) this.#watchDeadline();
      else this.#lose('etcd has confirmed no keepalive in time');
    });
  }

  #next(): void {
    this.#timer = this.#options.clock.after(this.#options.refreshMs, () => void this.#refresh());
  }

  async #refresh(): Promise<void> {
    const { etcd, clock, log, retries, timeoutMs } = this.#options;
    for (let attempt = 1; attempt <= retries && !this.#ended; attempt++) {
      const sentMs = clock.nowMs();
      try {
        const ttl = await etcd.leaseKeepalive(this.id, timeoutMs);
        if (this.#ended) return;
        if (ttl <= 0) {
          this.#lose('etcd does not know it any more');
          return;
        }
        this.#validUntilMs = Math.max(this.#validUntilMs, validUntil(sentMs, ttl));
        this.#watchDeadline();
        this.#next();
        return;
      } catch (error) {
        if (this.#ended) return;
        log.warn(
          `keepalive of lease ${this.id} failed: ${errorText(error)}; attempt ${attempt} of ${retries}`,
        );
        // An answer that fails at once must not use up all attempts in one moment.
        const wait = Math.max(0, timeoutMs - (clock.nowMs() - sentMs));
        if (wait > 0)
          await new Promise<void>((resolve) => void (this.#timer = clock.after(wait, resolve)));
      }
    }
    this.#lose(`${retries} keepalives in a row failed`);
  }
}

function validUntil(sentMs: number, ttlSeconds: number): number {
  return sentMs + ttlSeconds * 1000 - Math.min(MARGIN_MS, ttlSeconds * 100);
}
