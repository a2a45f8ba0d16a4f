// SPDX-License-Identifier: GPL-2.0-or-later
// The life of one OSD in etcd: open the store, hold a lease, announce itself, follow the cluster, lead PGs, report,
// stop.
// Source: semantics.md 5 to 7, etcd schema 7, safety.md 1.
//
// A lost lease does not end the process: the engine has fenced itself, the PGs are dropped, and the OSD registers again
// with its
// index still loaded.

import {
  ClusterState,
  encodeOsdState,
  errorText,
  fullInode,
  isPaused,
  PATHS_OSD,
  problemText,
  stringifyJson,
  VitastorError,
  EMPTY_PG_HISTORY,
  decodeOsdState,
  decodeText,
  type Cancel,
  type Clock,
  type ClusterView,
  type Compare,
  type Etcd,
  type KeySpace,
  type ParsedKey,
  type PoolConfig as CorePool,
  type JsonObject,
  type StateChange,
} from '@vitastor/core';
import type { CreateEngine, EngineApi, EngineEvent, PoolConfig, Statistics, StoreStats } from './engine.js';
import { LeaseKeeper, type LeaseTiming } from './lease.js';
import { PgControl, poolSignature, type PgActions, type PgFacts, type ScrubPlan } from './pg-control.js';
import { PgReporter } from './pg-reporter.js';
import { StatisticsReport } from './statistics.js';
import type { OsdOptions } from './options.js';
import { PG_BITS } from './pg-bits.js';
import { namedBy, newerThan } from './fresh-disk.js';

export interface OsdControlDeps {
  etcd: Etcd;
  clock: Clock;
  keys: KeySpace;
  createEngine: CreateEngine;
  options: OsdOptions;
  /** Addresses to publish for what the engine listens on (a wildcard becomes the machine's addresses). */
  publishedAddresses: (bound: readonly string[]) => string[];
  /** Settings of the engine after config/global has changed. */
  settingsFor: (global: JsonObject) => Record<string, string>;
  /** auto_scrub, scrub_interval, no_scrub after config/global has changed. */
  scrubPlanFor: (global: JsonObject) => ScrubPlan;
  /** /config/global as it is now: what concerns control itself (addresses of etcd). */
  onGlobal?: (global: JsonObject) => void;
  /** A lease was granted, before anything hangs on it; 0n: given back. For a supervisor. */
  onLease?: (lease: bigint, ttlSeconds: number) => void;
  log: (level: 'error' | 'warning' | 'info' | 'debug', text: string) => void;
}

/** Why run() ended. exitCode: what the process should say. */
export interface OsdEnd {
  exitCode: number;
  reason: string;
}

const STATS_AFTER_CHANGE_MS = 200;
const STOP_LIMIT_MS = 10_000;
/** A PG that peers for longer is reported as peering. */
const TELL_PEERING_MS = 200;
/** PGs are looked at for a due scrub when something changes, when one is due, and at least this often. */
const SCRUB_CHECK_MAX_S = 3600;
const SCRUB_CHECK_MIN_MS = 1000;

export class OsdControl {
  readonly #deps: OsdControlDeps;
  readonly #timing: LeaseTiming;
  readonly #pgs = new Map<string, PgControl>();
  readonly #statistics: StatisticsReport;
  readonly #refused = new Set<string>();
  readonly #pushed = new Map<string, string>();
  #engine: EngineApi | null = null;
  #lease: LeaseKeeper | null = null;
  #announcing = false;
  #state: ClusterState | null = null;
  #reporter: PgReporter | null = null;
  #published: { addresses: string[]; port: number } = { addresses: [], port: 0 };
  #interval = 0n;
  #statsTimer: Cancel | null = null;
  #statsSoon: Cancel | null = null;
  #scrubTimer: Cancel | null = null;
  #scrubPlan: ScrubPlan = { automatic: false, intervalS: 30 * 86400, suspended: false };
  #settingNames: readonly string[] = [];
  #statsInFlight = false;
  #wasLease = 0n;
  #stopping = false;
  #end: ((end: OsdEnd) => void) | null = null;
  #onReady: (() => void) | null = null;
  #onStopped: (() => void) | null = null;
  /** Who still counts on the disk of this number; null: nobody, an empty one is welcome. */
  #named: string | null = null;
  /** As it was opened. */
  #store: StoreStats | null = null;

  constructor(deps: OsdControlDeps) {
    this.#deps = deps;
    const { options } = deps;
    this.#timing = options.lease;
    this.#statistics = new StatisticsReport(options.identity, options.inodeVanishMs);
  }

  /** Runs until stop(), a fatal error, or another live instance of this number is found. Never rejects. */
  run(): Promise<OsdEnd> {
    return new Promise((resolve) => {
      this.#end = (end) => {
        this.#end = null;
        this.#dropCluster();
        this.#lease?.stop();
        resolve(end);
      };
      this.#start().catch((error: unknown) => this.#fail(`OSD ${this.#osd} could not start: ${errorText(error)}`));
    });
  }

  /** Orderly: PGs drain and go offline, the lease is revoked. Twice: at once. */
  async stop(): Promise<void> {
    if (this.#stopping) {
      this.#end?.({ exitCode: 0, reason: 'stopped at once' });
      return;
    }
    this.#stopping = true;
    if (this.#engine && this.#onReady === null) {
      const stopped = new Promise<void>((resolve) => (this.#onStopped = resolve));
      this.#engine.post({ kind: 'stop' });
      let limit: Cancel | null = null;
      await Promise.race([
        stopped,
        new Promise<void>((resolve) => (limit = this.#deps.clock.after(STOP_LIMIT_MS, resolve))),
      ]);
      (limit as Cancel | null)?.();
    }
    this.#dropCluster();
    try {
      await this.#lease?.revoke();
      this.#deps.onLease?.(0n, 0);
    } catch (error) {
      this.#log('warning', `the lease could not be revoked and will run out by itself: ${errorText(error)}`);
    }
    this.#end?.({ exitCode: 0, reason: 'stopped' });
  }

  /** What every PG of ours waits for, for diagnosis. */
  describePgs(): string[] {
    return [...this.#pgs.values()].map((control) => control.describe());
  }

  get #osd(): number {
    return this.#deps.options.identity.osd;
  }

  #log(level: 'error' | 'warning' | 'info' | 'debug', text: string): void {
    this.#deps.log(level, text);
  }

  #fail(reason: string): void {
    if (!this.#end) return;
    this.#log('error', reason);
    // The store stays locked until the process is gone; the lease goes first, so that others need not wait for it.
    const end = this.#end;
    this.#dropCluster();
    const lease = this.#lease;
    void (lease ? lease.revoke() : Promise.resolve()).catch(() => undefined).then(() => end({ exitCode: 1, reason }));
  }

  async #start(): Promise<void> {
    const { options } = this.#deps;
    this.#engine = this.#deps.createEngine((events) => {
      for (const event of events) this.#onEvent(event);
    });
    const ready = new Promise<void>((resolve) => (this.#onReady = resolve));
    await this.#checkNumber();
    if (!this.#engine || this.#stopping) return;
    const store = { ...options.configure.store, create: options.configure.store.create && this.#named === null };
    this.#engine.post({ ...options.configure, store, kind: 'configure' });
    await ready;
    await this.#checkPast();
    await this.#register();
  }

  /** Who counts on the disk of this number: then an empty one is refused. Waits for etcd, without which nothing can begin anyway. */
  async #checkNumber(): Promise<void> {
    const { etcd, clock, keys, options } = this.#deps;
    let told = false;
    while (options.configure.store.create && !options.allowsFreshDisk && !this.#stopping) {
      try {
        this.#named = await namedBy(etcd, keys, this.#osd, options.etcdSlowTimeoutMs);
        return;
      } catch (error) {
        if (!told) this.#log('warning', `the PG configuration cannot be read: ${errorText(error)}; trying again`);
        told = true;
      }
      await new Promise<void>((resolve) => clock.after(200, resolve));
    }
  }

  /** A store that is older than what this OSD has reported does not take part. */
  async #checkPast(): Promise<void> {
    const { etcd, clock, keys, options } = this.#deps;
    const store = this.#store;
    let told = false;
    while (store && !options.allowsOldDisk && this.#end && !this.#stopping) {
      try {
        const reported = await newerThan(store, etcd, keys, this.#osd, options.etcdSlowTimeoutMs);
        if (reported !== null) {
          this.#fail(`the store of OSD ${this.#osd} is older than what it has reported: its log ends with write ${store.logSequence}, but ${keys.osdStats(this.#osd)}`
            + ` says that write ${reported} was durable. A copy from the past was put back, or the disk has lost writes that it had confirmed. Deleted data would`
            + ` come back with it: erase it and let OSD ${this.#osd} be filled anew (or start it with --allow_old_disk true if the data is whole without what it has lost)`);
        }
        return;
      } catch (error) {
        if (!told) this.#log('warning', `${keys.osdStats(this.#osd)} cannot be read: ${errorText(error)}; trying again`);
        told = true;
      }
      await new Promise<void>((resolve) => clock.after(200, resolve));
    }
  }

  /** Lease, state key, cluster state: from nothing, or again after the lease was lost. */
  async #register(): Promise<void> {
    const engine = this.#engine;
    if (!engine || !this.#end || this.#stopping) return;
    const lease = new LeaseKeeper(this.#timing, {
      etcd: this.#deps.etcd,
      clock: this.#deps.clock,
      bootTimeNs: () => engine.bootTimeNs(),
      onDeadline: (deadlineNs) => engine.post({ kind: 'leaseUntil', deadlineNs }),
      onLost: (reason) => this.#leaseLost(lease, reason),
      log: (text) => this.#log('warning', text),
    });
    const former = this.#wasLease;
    this.#lease = lease;
    if (!(await lease.acquire(former)) || this.#lease !== lease) return;
    this.#wasLease = lease.id;
    this.#deps.onLease?.(lease.id, this.#timing.ttlSeconds);
    if (!(await this.#announce(lease)) || this.#lease !== lease) return;
    await this.#follow(lease);
  }

  #leaseLost(lease: LeaseKeeper, reason: string): void {
    if (this.#lease !== lease || this.#stopping) return;
    this.#log('error', `OSD ${this.#osd} has lost its lease: ${reason}; dropping all PGs and registering again`);
    lease.stop();
    this.#lease = null;
    this.#dropCluster();
    this.#deps.clock.after(0, () => {
      this.#register().catch((error: unknown) => this.#fail(`registering again failed: ${errorText(error)}`));
    });
  }

  /** Puts osd/state if nobody else has. False: ended, or the lease went away meanwhile. */
  async #announce(lease: LeaseKeeper): Promise<boolean> {
    const { etcd, clock, keys, options } = this.#deps;
    const key = keys.osdState(this.#osd);
    const value = stringifyJson(
      encodeOsdState({
        up: true,
        addresses: this.#published.addresses,
        port: this.#published.port,
        rdmacmPort: 0,
        host: options.identity.host,
        version: options.identity.version,
        primaryEnabled: true,
        blockstoreEnabled: true,
      }),
    );
    // A predecessor that was killed leaves its key until its lease runs out; our lock on the store proves that it is
    // dead.
    const patienceMs = clock.nowMs() + (this.#timing.ttlSeconds + 2) * 1000;
    let told = false;
    for (;;) {
      if (this.#lease !== lease || this.#stopping) return false;
      try {
        const result = await etcd.txn(
          {
            compare: [{ target: 'createRevision', key, result: 'equal', value: 0n }],
            success: [{ op: 'put', key, value, lease: lease.id }],
            failure: [{ op: 'range', range: { key } }],
          },
          this.#timing.timeoutMs,
        );
        if (result.succeeded) return true;
        const found = result.responses[0]?.[0];
        if (found && found.lease === lease.id && lease.id !== 0n) return true;
        if (found && clock.nowMs() > patienceMs) {
          this.#log(
            'error',
            `OSD ${this.#osd} is already up${whereOf(found.value)}: stop that one first, or give this one another osd_num`,
          );
          lease.stop();
          await lease.revoke().catch(() => undefined);
          this.#end?.({ exitCode: 0, reason: 'already up' });
          return false;
        }
        if (found && !told) {
          this.#log(
            'warning',
            `osd/state/${this.#osd} still exists${whereOf(found.value)}: waiting up to ${this.#timing.ttlSeconds + 2} s for the lease of a former instance to run out`,
          );
          told = true;
        }
      } catch (error) {
        this.#log('warning', `announcing OSD ${this.#osd} failed: ${errorText(error)}; trying again`);
      }
      await new Promise<void>((resolve) => clock.after(200, resolve));
    }
  }

  async #follow(lease: LeaseKeeper): Promise<void> {
    const { etcd, clock, keys, options } = this.#deps;
    const guard = (): Compare[] => [
      { target: 'lease', key: keys.osdState(this.#osd), result: 'equal', value: lease.id },
    ];
    const state = new ClusterState({
      etcd,
      clock,
      keys,
      paths: PATHS_OSD,
      guard,
      loadTimeoutMs: options.etcdSlowTimeoutMs,
      onChange: (changes) => {
        if (this.#state === state) this.#reconcile(changes.reloaded ? null : changes.changes);
      },
      onProblem: (problem) => this.#log('warning', problemText(problem)),
      onTrouble: (text) => this.#log('warning', text),
      onFatal: (error) => {
        if (this.#lease === lease) this.#leaseLost(lease, error.message);
      },
    });
    this.#state = state;
    this.#reporter = new PgReporter({
      etcd,
      clock,
      keys,
      lease: () => (this.#lease === lease ? lease.id : 0n),
      timeoutMs: options.etcdQuickTimeoutMs,
      onConflict: (controls) => {
        for (const control of controls) control.update(this.#factsOf(control.id.pool, control.id.pg));
      },
      onIdle: () => this.#reportSoon(),
      log: (text) => this.#log('warning', text),
    });
    try {
      await state.start();
    } catch (error) {
      if (this.#lease !== lease || this.#stopping) return;
      if (error instanceof VitastorError && error.code === 'ERR_LEASE_LOST') this.#leaseLost(lease, error.message);
      else if (!(error instanceof VitastorError && error.code === 'ERR_ABORTED')) throw error;
      return;
    }
    if (this.#state !== state) return;
    this.#log('info', `OSD ${this.#osd} is up at ${this.#published.addresses.join(', ')} port ${this.#published.port}`);
    this.#reconcile(null);
    this.#report();
  }

  /** Forgets everything that hangs on the lease. The engine drops its PGs by itself when the deadline is gone. */
  #dropCluster(): void {
    this.#state?.stop();
    this.#state = null;
    this.#reporter?.stop();
    this.#reporter = null;
    this.#statsTimer?.();
    this.#statsTimer = null;
    this.#statsSoon?.();
    this.#statsSoon = null;
    this.#scrubTimer?.();
    this.#scrubTimer = null;
    this.#pgs.clear();
    this.#pushed.clear();
  }

  // ---------------------------------------------------------------- what etcd says

  /** changes: null = anything may be new. */
  #reconcile(changes: readonly StateChange[] | null): void {
    const state = this.#state;
    const engine = this.#engine;
    if (!state || !engine) return;
    this.#pushChanged(state.view, changes);
    const { view } = state;
    for (const [pool, items] of view.pgConfig?.items ?? []) {
      items.forEach((item, i) => {
        if (item.primary === this.#osd) this.#control(pool, i + 1);
      });
    }
    for (const [pool, pg] of view.pgStates.entries()) {
      if (this.#stateKeyOf(pool, pg) === 'ours') this.#control(pool, pg);
    }
    for (const [key, control] of this.#pgs) {
      control.update(this.#factsOf(control.id.pool, control.id.pg));
      if (control.idle) this.#pgs.delete(key);
    }
    this.#checkScrubs();
    const lease = this.#lease;
    if (lease && !this.#announcing && view.entry(view.keys.osdState(this.#osd))?.lease !== lease.id) this.#announceAgain(lease);
  }

  /**
   * Somebody has deleted osd/state (or put another one), and the lease lives: its keys of PGs are still there, and the engine still serves.
   * Others, who have seen us go, take the PGs over by the rules of changed configurations. If the lease is gone as well, its keeper says so.
   */
  #announceAgain(lease: LeaseKeeper): void {
    this.#log('warning', `osd/state/${this.#osd} was deleted or replaced by somebody while this OSD is up: putting it again`);
    this.#announcing = true;
    this.#announce(lease)
      .then((done) => {
        if (done && this.#lease === lease) this.#reportSoon();
      })
      .catch((error: unknown) => this.#fail(`announcing again failed: ${errorText(error)}`))
      .finally(() => {
        this.#announcing = false;
      });
  }

  /** Tells the engine what concerns it. When an OSD dies, hundreds of PG states change: nothing else is looked at then. */
  #pushChanged(view: ClusterView, changes: readonly StateChange[] | null): void {
    const kinds = changes && new Set(changes.map(({ parsed }) => parsed.kind));
    const isTouched = (...names: ParsedKey['kind'][]): boolean => kinds === null || names.some((name) => kinds.has(name));
    if (isTouched('config/global')) {
      this.#deps.onGlobal?.(view.global);
      this.#scrubPlan = this.#deps.scrubPlanFor(view.global);
      this.#push('settings', () => ({ kind: 'settings', settings: this.#settings(view.global) }));
    }
    if (isTouched('osd/state')) this.#pushPeers(view);
    // Pools inherit from config/global.
    if (isTouched('config/global', 'config/pools', 'pg/config', 'config/pgs')) this.#pushPools(view);
    if (isTouched('config/inode')) this.#pushInodes(view);
  }

  #pushPeers(view: ClusterView): void {
    this.#push('peerList', () => ({
      kind: 'peerList',
      up: [...view.osdStates]
        .filter(([, osd]) => osd.up)
        .sort(([a], [b]) => a - b)
        .map(([osd, { addresses, port }]) => ({ osd: BigInt(osd), addresses: [...addresses], port })),
    }));
  }

  #pushPools(view: ClusterView): void {
    this.#push('pools', () => ({
      kind: 'pools',
      pools: [...view.pools.values()].map((pool) =>
        enginePool(pool, this.#pgCount(pool.id), view.pgConfig?.backfillfullPools ?? []),
      ),
    }));
  }

  #pushInodes(view: ClusterView): void {
    this.#push('inodes', () => ({
      kind: 'inodes',
      inodes: [...view.inodes.values()].map((inode) => ({
        inode: fullInode(inode.pool, inode.inode),
        parent: inode.parent ? fullInode(inode.parent.pool, inode.parent.inode) : 0n,
        modRevision: view.modRevision(view.keys.configInode(inode.pool, inode.inode)),
      })),
    }));
  }

  /** '' for what was set before and is not any more: the engine takes its default again. */
  #settings(global: JsonObject): Record<string, string> {
    const now = this.#deps.settingsFor(global);
    const gone = this.#settingNames.filter((name) => !(name in now));
    this.#settingNames = [...Object.keys(now), ...gone];
    return { ...now, ...Object.fromEntries(gone.map((name) => [name, ''])) };
  }

  /** Plans scrubs, starts those that are due, and arms the timer for the next one. */
  #checkScrubs(): void {
    const state = this.#state;
    if (!state) return;
    this.#scrubTimer?.();
    this.#scrubTimer = null;
    const { clock } = this.#deps;
    const nowS = Math.floor(clock.wallMs() / 1000);
    let earliest = nowS + SCRUB_CHECK_MAX_S;
    for (const control of this.#pgs.values()) {
      const next = control.checkScrub(nowS, this.#planOf(control.id.pool));
      if (next !== null && next < earliest) earliest = next;
    }
    const delayMs = Math.max(SCRUB_CHECK_MIN_MS, (earliest - nowS) * 1000);
    this.#scrubTimer = clock.after(delayMs, () => this.#checkScrubs());
  }

  #planOf(pool: number): ScrubPlan {
    const intervalS = this.#state?.view.pools.get(pool)?.scrubIntervalSeconds ?? this.#scrubPlan.intervalS;
    return { ...this.#scrubPlan, intervalS };
  }

  /** Posts a command unless the engine was told the very same before. */
  #push(name: string, make: () => Parameters<EngineApi['post']>[0]): void {
    const command = make();
    const text = JSON.stringify(command, (_key, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value));
    if (this.#pushed.get(name) === text) return;
    this.#pushed.set(name, text);
    this.#engine?.post(command);
  }

  #pgCount(pool: number): number {
    return this.#state?.view.pgConfig?.items.get(pool)?.length ?? 0;
  }

  #control(pool: number, pg: number): PgControl {
    const key = `${pool}/${pg}`;
    let control = this.#pgs.get(key);
    if (!control) this.#pgs.set(key, (control = new PgControl({ pool, pg }, this.#osd, this.#actions)));
    return control;
  }

  #stateKeyOf(pool: number, pg: number): PgFacts['stateKey'] {
    const view = this.#state?.view;
    const entry = view?.entry(view.keys.pgState(pool, pg));
    if (!entry) return 'absent';
    return entry.lease === this.#lease?.id && entry.lease !== 0n ? 'ours' : 'foreign';
  }

  #factsOf(pool: number, pg: number): PgFacts {
    const view = this.#state?.view;
    if (!view)
      return { target: null, stateKey: 'foreign', stateRevision: 0n, history: EMPTY_PG_HISTORY, historyRevision: 0n };
    const item = view.pgItem(pool, pg);
    const config = view.pools.get(pool);
    const historyKey = view.keys.pgHistory(pool, pg);
    const isReadable = view.pgHistory.get(pool, pg) !== undefined || !view.entry(historyKey);
    const mine =
      item !== undefined &&
      config !== undefined &&
      item.primary === this.#osd &&
      !isPaused(item, config.pgSize) &&
      this.#suits(config);
    return {
      target: mine ? { osdSet: item.osdSet, poolSignature: poolSignature(config, this.#pgCount(pool)) } : null,
      stateKey: this.#stateKeyOf(pool, pg),
      stateRevision: view.modRevision(view.keys.pgState(pool, pg)),
      history: isReadable ? (view.pgHistory.get(pool, pg) ?? EMPTY_PG_HISTORY) : null,
      historyRevision: view.modRevision(historyKey),
    };
  }

  /** A pool of another block layout is refused, once with both values named. */
  #suits(pool: CorePool): boolean {
    const { blockSize, bitmapGranularity, immediateCommit } = this.#deps.options.identity;
    const rank = { none: 0, small: 1, all: 2 } as const;
    const reasons: string[] = [];
    if (pool.blockSizeBytes !== blockSize)
      reasons.push(`block_size of the pool is ${pool.blockSizeBytes}, of this OSD ${blockSize}`);
    if (pool.bitmapGranularityBytes !== bitmapGranularity)
      reasons.push(
        `bitmap_granularity of the pool is ${pool.bitmapGranularityBytes}, of this OSD ${bitmapGranularity}`,
      );
    if (rank[pool.immediateCommit] > rank[immediateCommit]) {
      reasons.push(`immediate_commit of the pool is ${pool.immediateCommit}, of this OSD only ${immediateCommit}`);
    }
    if (reasons.length === 0) return true;
    const text = `pool ${pool.id} (${pool.name}) is refused by OSD ${this.#osd}: ${reasons.join('; ')}: give the pool matching OSDs, or start this one with the values of the pool`;
    if (!this.#refused.has(text)) {
      this.#refused.add(text);
      this.#log('error', text);
    }
    return false;
  }

  readonly #actions: PgActions = {
    dirty: (control) => this.#reporter?.add(control),
    later: (control, interval) => void this.#deps.clock.after(TELL_PEERING_MS, () => control.tellOpening(interval)),
    startPg: (control, history, osdSet, interval) =>
      this.#engine?.post({
        kind: 'startPg',
        pg: control.id,
        interval,
        osdSet: osdSet.map(BigInt),
        allPeers: history.allPeers.map(BigInt),
        historySets: history.osdSets.map((set) => set.map(BigInt)),
        epoch: history.epoch,
      }),
    stopPg: (control, interval) => this.#engine?.post({ kind: 'stopPg', pg: control.id, interval }),
    confirmHistory: (control, interval, epoch) =>
      this.#engine?.post({ kind: 'confirmHistory', pg: control.id, interval, epoch }),
    scrubPg: (control, interval) => this.#engine?.post({ kind: 'scrubPg', pg: control.id, interval }),
    nextInterval: () => ++this.#interval,
    log: (text) => this.#log('info', text),
  };

  // ---------------------------------------------------------------- what the engine says

  #onEvent(event: EngineEvent): void {
    switch (event.kind) {
      case 'ready':
        this.#published = { addresses: this.#deps.publishedAddresses(event.addresses), port: event.port };
        this.#log(
          'info',
          `store of OSD ${this.#osd} is open: ${event.store.objectCount} objects, ${event.store.freeBlocks} of ${event.store.totalBlocks} blocks free; runtime ${event.runtime}`,
        );
        this.#store = event.store;
        this.#onReady?.();
        this.#onReady = null;
        break;
      case 'pgStateChanged':
        if (event.reason) this.#log('info', `PG ${event.pg.pool}/${event.pg.pg}: ${event.reason}`);
        this.#pgs.get(`${event.pg.pool}/${event.pg.pg}`)?.onState(event);
        break;
      case 'historyWanted':
        this.#pgs.get(`${event.pg.pool}/${event.pg.pg}`)?.onHistoryWanted(event);
        break;
      case 'pgScrubbed': {
        const nowS = Math.floor(this.#deps.clock.wallMs() / 1000);
        this.#pgs
          .get(`${event.pg.pool}/${event.pg.pg}`)
          ?.onScrubbed(event, nowS, this.#planOf(event.pg.pool));
        break;
      }
      case 'peerLost':
        this.#log('warning', `lost OSD ${event.osd}: ${event.reason}`);
        break;
      case 'statistics':
        void this.#putStatistics(event);
        break;
      case 'fatal':
        this.#onReady = null;
        this.#fail(`OSD ${this.#osd}: ${event.text}${this.#named !== null && event.text.includes('holds no store yet')
          ? `. ${this.#named} still counts on the old disk of OSD ${this.#osd}: give this disk a number that was never used, and take OSD ${this.#osd} out`
          + ` of the cluster (or start it with --allow_fresh_disk true if the data is whole without the old disk)` : ''}`);
        break;
      case 'logLine':
        this.#log(event.level, event.text);
        break;
      case 'leaseExpired':
        // Without an id it is the echo of a loss that we know of: the next lease is being asked for.
        if (this.#lease && this.#lease.id !== 0n && !this.#stopping)
          this.#leaseLost(this.#lease, 'the engine saw it run out');
        break;
      case 'stopped':
        this.#onStopped?.();
        break;
    }
  }

  // ---------------------------------------------------------------- statistics

  #report(): void {
    this.#statsTimer?.();
    this.#statsTimer = this.#deps.clock.after(this.#deps.options.statsIntervalMs, () => this.#report());
    this.#engine?.post({ kind: 'reportStatistics' });
  }

  #reportSoon(): void {
    if (this.#statsSoon || !this.#state) return;
    this.#statsSoon = this.#deps.clock.after(STATS_AFTER_CHANGE_MS, () => {
      this.#statsSoon = null;
      this.#report();
    });
  }

  async #putStatistics(stats: Statistics): Promise<void> {
    const state = this.#state;
    if (!state || this.#statsInFlight || this.#stopping) return;
    const { clock, etcd, keys, options } = this.#deps;
    const ops = this.#statistics.build(
      keys,
      stats,
      clock.nowMs(),
      clock.wallMs(),
      (pool) => (state.view.pools.get(pool)?.usedForApp ?? '') !== '',
      (pg) =>
        ((this.#pgs.get(`${pg.pg.pool}/${pg.pg.pg}`)?.stateBits ?? 0) & ~(PG_BITS.starting | PG_BITS.offline)) !== 0,
    );
    this.#statsInFlight = true;
    try {
      for (let i = 0; i < ops.length; i += OPS_PER_TXN) {
        await etcd.txn({ compare: [], success: ops.slice(i, i + OPS_PER_TXN) }, options.etcdSlowTimeoutMs);
      }
    } catch (error) {
      this.#log(
        'warning',
        `reporting statistics failed: ${errorText(error)}; the next report follows in ${options.statsIntervalMs / 1000} s`,
      );
    } finally {
      this.#statsInFlight = false;
    }
  }
}

/** etcd's own limit of operations in a transaction, unless it was raised. */
const OPS_PER_TXN = 120;

function enginePool(pool: CorePool, pgCount: number, backfillfull: readonly number[]): PoolConfig {
  return {
    pool: pool.id,
    scheme: pool.scheme,
    pgSize: pool.pgSize,
    pgMinsize: pool.pgMinSize,
    parityChunks: pool.parityChunks,
    pgCount,
    pgStripeSize: BigInt(pool.pgStripeSizeBytes),
    blockSize: pool.blockSizeBytes,
    bitmapGranularity: pool.bitmapGranularityBytes,
    immediateCommit: pool.immediateCommit,
    localReads: pool.localReads,
    backfillfull: backfillfull.includes(pool.id),
    usedForApp: pool.usedForApp !== '',
  };
}

function whereOf(stateText: string): string {
  try {
    const state = decodeText(decodeOsdState, stateText);
    return ` at ${state.addresses.join(', ')} port ${state.port} (host ${state.host})`;
  } catch {
    return '';
  }
}
