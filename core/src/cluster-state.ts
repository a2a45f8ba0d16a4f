// SPDX-License-Identifier: GPL-2.0-or-later
// A ClusterView kept equal to etcd: full load, then a watch; a full reload after compaction or cancellation, never
// guessing.
// Used by the monitor (everything), OSD control (config/, osd/state/, pg/) and the command line (load only).

import type { Problem } from './decode.js';
import { ClusterView, type StateChange } from './cluster-view.js';
import { VitastorError } from './errors.js';
import type { KeySpace } from './schema/keys.js';
import type { Cancel, Clock } from './seams/clock.js';
import type { Compare, Etcd, KeyRange, KeyValue, Watch, WatchEvent } from './seams/etcd.js';

/** Everything under the prefix (monitor). */
export const PATHS_ALL: readonly string[] = [''];
/** What an OSD or a client needs. */
export const PATHS_OSD: readonly string[] = ['config/', 'osd/state/', 'pg/'];

export interface ChangeSet {
  /** The last change of each key. */
  changes: readonly StateChange[];
  /** A full load is behind these changes. */
  reloaded: boolean;
  revision: bigint;
}

export interface ClusterStateOptions {
  etcd: Etcd;
  clock: Clock;
  keys: KeySpace;
  /** Relative to the prefix; a trailing slash (or '') = everything below. */
  paths: readonly string[];
  /** Timeout of one load attempt (etcd_slow_timeout). */
  loadTimeoutMs?: number;
  /** Pause after a failed load, and before a watch is set up again that ended at once. */
  retryPauseMs?: number;
  /** Shortest distance of two full reloads (etcd_min_reload_interval). */
  minReloadIntervalMs?: number;
  /** Compared in every load; a failure ends everything with onFatal(ERR_LEASE_LOST). */
  guard?: () => readonly Compare[];
  /** Called in a turn of its own, with all that changed since the last call. */
  onChange?: (changes: ChangeSet) => void;
  /** A value that was left out. */
  onProblem?: (problem: Problem) => void;
  /** etcd did not answer a load, or a watch ended: for the log. It goes on by itself. */
  onTrouble?: (text: string) => void;
  /** The guard failed, or etcd refused a load: nothing more will come. */
  onFatal?: (error: VitastorError) => void;
}

export interface LoadOptions {
  attempts: number;
  timeoutMs: number;
  /** Pause between attempts. */
  pauseMs?: number;
}

/** One view, loaded or following etcd until stop(). */
export class ClusterState {
  readonly view: ClusterView;
  readonly #options: ClusterStateOptions;
  readonly #ranges: KeyRange[];
  #watch: Watch | null = null;
  #timer: Cancel | null = null;
  /** Ends a pause between load attempts. */
  #wake: (() => void) | null = null;
  #notify: Cancel | null = null;
  #pending = new Map<string, StateChange>();
  #pendingReload = false;
  #lastLoadMs = Number.NEGATIVE_INFINITY;
  #watchStartedMs = 0;
  /** A new watch starts behind this: everything up to here has been seen on every range. */
  #resume = 0n;
  /** Per range the newest event applied: a resumed watch repeats what other ranges had seen already. */
  #seen: bigint[] = [];
  #stopped = false;

  constructor(options: ClusterStateOptions) {
    this.#options = options;
    this.view = new ClusterView(options.keys, options.onProblem);
    this.#ranges = options.paths.map((path) =>
      path === '' || path.endsWith('/') ? { prefix: options.keys.at(path) } : { key: options.keys.at(path) });
  }

  /**
   * One full load with bounded retries. Rejects with ERR_ETCD_UNAVAILABLE, ERR_ETCD_REQUEST or (guard) ERR_LEASE_LOST.
   */
  async load(options: LoadOptions): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#loadOnce(options.timeoutMs);
      } catch (error) {
        if (!(error instanceof VitastorError) || !error.retryable || attempt >= options.attempts || this.#stopped)
          throw error;
        this.#options.onTrouble?.(`${error.message}; attempt ${attempt} of ${options.attempts}`);
        await this.#pause(options.pauseMs ?? 0);
        if (this.#stopped) throw stopped();
      }
    }
  }

  /**
   * Loads (repeating for ever, with pauses) and then follows. Resolves after the first load; rejects if the guard fails
   * or stop() is called.
   */
  async start(): Promise<void> {
    await this.load({
      attempts: Number.POSITIVE_INFINITY,
      timeoutMs: this.#loadTimeoutMs(),
      pauseMs: this.#retryPauseMs(),
    });
    if (this.#stopped) throw stopped();
    this.#startWatch();
  }

  /** Nothing is called afterwards. */
  stop(): void {
    this.#stopped = true;
    this.#watch?.close();
    this.#watch = null;
    this.#timer?.();
    this.#timer = null;
    this.#notify?.();
    this.#notify = null;
    this.#wake?.();
  }

  #loadTimeoutMs(): number {
    return this.#options.loadTimeoutMs ?? 5000;
  }

  #retryPauseMs(): number {
    return this.#options.retryPauseMs ?? 1000;
  }

  async #loadOnce(timeoutMs: number): Promise<void> {
    const result = await this.#options.etcd.txn({
      compare: this.#options.guard?.() ?? [],
      success: this.#ranges.map((range) => ({ op: 'range', range })),
    }, timeoutMs);
    if (this.#stopped) throw stopped();
    if (!result.succeeded)
      throw new VitastorError(
        'ERR_LEASE_LOST',
        'etcd no longer holds our state under our lease: it has expired or was revoked',
      );
    this.#lastLoadMs = this.#options.clock.nowMs();
    const pairs = new Map<string, KeyValue>();
    for (const kv of result.responses.flat()) pairs.set(kv.key, kv);
    this.#resume = result.revision;
    this.#seen = this.#ranges.map(() => result.revision);
    this.#changed(this.view.replaceAll([...pairs.values()], result.revision), true);
  }

  #startWatch(): void {
    this.#watchStartedMs = this.#options.clock.nowMs();
    this.#watch = this.#options.etcd.watch(this.#ranges, this.#resume + 1n, {
      onEvents: (events, revision) => this.#onEvents(events, revision),
      onEnd: (reason) => this.#onEnd(reason),
    });
  }

  #onEvents(events: readonly WatchEvent[], revision: bigint): void {
    if (this.#stopped) return;
    const last = new Map<string, WatchEvent>();
    for (const event of events) if (this.#isNew(event)) last.set(event.key, event);
    const changes: StateChange[] = [];
    for (const event of last.values()) {
      const change = this.view.apply({
        key: event.key,
        value: event.type === 'put' ? event.value : '',
        createRevision: 0n,
        modRevision: event.modRevision,
        version: 0n,
        lease: event.lease,
      });
      if (change) changes.push(change);
    }
    if (revision > this.#resume) this.#resume = revision;
    const newest = events.reduce((max, event) => (event.modRevision > max ? event.modRevision : max), revision);
    if (newest > this.view.revision) this.view.revision = newest;
    this.#changed(changes, false);
  }

  #isNew(event: WatchEvent): boolean {
    const i = this.#ranges.findIndex((range) =>
      'key' in range ? event.key === range.key : event.key.startsWith(range.prefix),
    );
    const seen = this.#seen[i];
    if (seen === undefined || event.modRevision < seen) return false;
    this.#seen[i] = event.modRevision;
    return true;
  }

  #onEnd(reason: 'compacted' | 'cancelled' | 'lost'): void {
    this.#watch = null;
    if (this.#stopped) return;
    const now = this.#options.clock.nowMs();
    if (reason === 'lost') {
      // A watch that ended at once would otherwise spin.
      const wait = now - this.#watchStartedMs >= this.#retryPauseMs() ? 0 : this.#retryPauseMs();
      this.#options.onTrouble?.('the watch on etcd was lost: resuming it');
      this.#later(wait, () => this.#startWatch());
      return;
    }
    this.#options.onTrouble?.(`the watch on etcd was ${reason}: loading everything again`);
    this.#later(Math.max(0, this.#lastLoadMs + (this.#options.minReloadIntervalMs ?? 50) - now), () => this.#reload());
  }

  #reload(): void {
    this.start().catch((error: unknown) => {
      if (this.#stopped) return;
      const fatal =
        error instanceof VitastorError
          ? error
          : new VitastorError('ERR_ETCD_REQUEST', 'loading the cluster state failed', { cause: error });
      this.stop();
      this.#options.onFatal?.(fatal);
    });
  }

  #changed(changes: readonly StateChange[], reloaded: boolean): void {
    for (const change of changes) {
      this.#pending.delete(change.key);
      this.#pending.set(change.key, change);
    }
    this.#pendingReload ||= reloaded;
    if ((this.#pending.size === 0 && !this.#pendingReload) || this.#notify || !this.#options.onChange) return;
    this.#notify = this.#options.clock.after(0, () => {
      this.#notify = null;
      const set = { changes: [...this.#pending.values()], reloaded: this.#pendingReload, revision: this.view.revision };
      this.#pending = new Map();
      this.#pendingReload = false;
      this.#options.onChange?.(set);
    });
  }

  #later(delayMs: number, run: () => void): void {
    this.#timer?.();
    this.#timer = this.#options.clock.after(delayMs, () => {
      this.#timer = null;
      run();
    });
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = null;
        resolve();
      };
      this.#later(delayMs, this.#wake);
    });
  }
}

function stopped(): VitastorError {
  return new VitastorError('ERR_ABORTED', 'stopped');
}
