// SPDX-License-Identifier: GPL-2.0-or-later
// Our lease in etcd: granted, kept alive, and counted down on our own clock. The engine's fence gets every confirmed
// deadline
// (safety.md 1); this class declares the lease lost as soon as that deadline has passed, whatever etcd or a library
// says.

import { errorText, isVitastorError, type Cancel, type Clock, type Etcd } from '@vitastor/core';

export interface LeaseTiming {
  ttlSeconds: number;
  keepaliveMs: number;
  /** Of one request. */
  timeoutMs: number;
}

export interface LeaseDeps {
  etcd: Etcd;
  clock: Clock;
  /** The engine's clock in nanoseconds. */
  bootTimeNs: () => bigint;
  /** A deadline was confirmed; 0n: there is no lease. */
  onDeadline: (deadlineNs: bigint) => void;
  /** Once per grant: expired by our clock, or gone in etcd. */
  onLost: (reason: string) => void;
  log: (text: string) => void;
}

/** Part of the TTL that we do not use, for clocks that run at slightly different speeds. */
const MARGIN_SHARE = 10n;
/** After a keepalive that failed: an etcd that starts again shall find the lease before it runs out. */
const RETRY_MS = 250;

export class LeaseKeeper {
  readonly #timing: LeaseTiming;
  readonly #deps: LeaseDeps;
  #id = 0n;
  #timer: Cancel | null = null;
  #expiry: Cancel | null = null;
  #stopped = false;

  constructor(timing: LeaseTiming, deps: LeaseDeps) {
    this.#timing = timing;
    this.#deps = deps;
  }

  /** 0n: none. */
  get id(): bigint {
    return this.#id;
  }

  /**
   * Asks until etcd grants one (or stop()). A former lease of ours is revoked first, so that what it holds goes away.
   * Resolves false after stop().
   */
  async acquire(former: bigint): Promise<boolean> {
    let pending = former;
    while (!this.#stopped) {
      const sentNs = this.#deps.bootTimeNs();
      try {
        if (pending !== 0n) await this.#revoke(pending);
        pending = 0n;
        const grantedNs = this.#deps.bootTimeNs();
        const id = await this.#deps.etcd.leaseGrant(this.#timing.ttlSeconds, this.#timing.timeoutMs);
        if (this.#stopped) return false;
        this.#id = id;
        this.#confirmed(grantedNs, this.#timing.ttlSeconds);
        this.#schedule(this.#timing.keepaliveMs);
        return true;
      } catch (error) {
        this.#deps.log(`etcd grants no lease: ${errorText(error)}; trying again every ${this.#timing.timeoutMs} ms`);
        await this.#pause(sentNs);
      }
    }
    return false;
  }

  /** Ends keeping; the lease itself stays until it is revoked or expires. */
  stop(): void {
    this.#stopped = true;
    this.#clear();
  }

  /** For the orderly end: everything that hangs on the lease vanishes from etcd. */
  async revoke(): Promise<void> {
    const id = this.#id;
    this.#clear();
    this.#id = 0n;
    if (id !== 0n) await this.#revoke(id);
  }

  async #revoke(id: bigint): Promise<void> {
    try {
      await this.#deps.etcd.leaseRevoke(id, this.#timing.timeoutMs);
    } catch (error) {
      // Gone already: just what was wanted.
      if (isVitastorError(error, 'ERR_ETCD_UNAVAILABLE')) throw error;
    }
  }

  #confirmed(sentNs: bigint, ttlSeconds: number): void {
    const ttlNs = BigInt(Math.floor(ttlSeconds * 1e9));
    const deadlineNs = sentNs + ttlNs - ttlNs / MARGIN_SHARE;
    this.#deps.onDeadline(deadlineNs);
    this.#expiry?.();
    const leftMs = Number((deadlineNs - this.#deps.bootTimeNs()) / 1_000_000n);
    this.#expiry = this.#deps.clock.after(Math.max(0, leftMs), () =>
      this.#lost('it was not confirmed by etcd in time'),
    );
  }

  #schedule(delayMs: number): void {
    this.#timer = this.#deps.clock.after(delayMs, () => void this.#keepalive(this.#id));
  }

  async #keepalive(id: bigint): Promise<void> {
    const sentNs = this.#deps.bootTimeNs();
    let delayMs = this.#timing.keepaliveMs;
    try {
      const ttl = await this.#deps.etcd.leaseKeepalive(id, this.#timing.timeoutMs);
      if (this.#id !== id || this.#stopped) return;
      if (ttl <= 0) return this.#lost('etcd no longer knows it');
      this.#confirmed(sentNs, Math.min(ttl, this.#timing.ttlSeconds));
    } catch (error) {
      if (this.#id !== id || this.#stopped) return;
      this.#deps.log(`keeping the lease alive failed: ${errorText(error)}`);
      delayMs = Math.min(delayMs, RETRY_MS);
    }
    this.#schedule(delayMs);
  }

  #lost(reason: string): void {
    if (this.#id === 0n) return;
    this.#clear();
    this.#id = 0n;
    this.#deps.onDeadline(0n);
    this.#deps.onLost(reason);
  }

  #clear(): void {
    this.#timer?.();
    this.#timer = null;
    this.#expiry?.();
    this.#expiry = null;
  }

  /** Waits so that attempts are at least one timeout apart. */
  #pause(sinceNs: bigint): Promise<void> {
    const spentMs = Number((this.#deps.bootTimeNs() - sinceNs) / 1_000_000n);
    return new Promise((resolve) => {
      this.#deps.clock.after(Math.max(50, this.#timing.timeoutMs - spentMs), resolve);
    });
  }
}
