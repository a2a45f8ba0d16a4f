// SPDX-License-Identifier: GPL-2.0-or-later
// One life of the monitor: configuration, lease, membership, election, and the master's work until
// something fatal or stop(). Everything it learned goes away with it; the next instance starts from
// etcd alone. Source: etcd schema 8.1.

import {
  ClusterState,
  decodeGlobalConfig,
  decodeText,
  encodeMonMember,
  errorText,
  PATHS_ALL,
  problemText,
  stringifyJson,
  VitastorError,
  type Cancel,
  type ChangeSet,
  type ClusterView,
  type Clock,
  type Config,
  type Etcd,
  type JsonObject,
  type KeySpace,
} from '@vitastor/core';
import { Election } from './election.js';
import { Lease } from './lease.js';
import type { Log } from './log.js';
import { PgManager } from './pg-manager.js';
import type { Solver } from './placement/index.js';
import { monSettings, type MonSettings } from './settings.js';
import { StatsWriter } from './stats-writer.js';

export interface MonitorDeps {
  etcd: Etcd;
  clock: Clock;
  solver: Solver;
  log: Log;
  keys: KeySpace;
  hostname: string;
  /** Addresses of this machine, for people. */
  ips: readonly string[];
  /** File and command line; /config/global is put between them. */
  config: Config;
  /** /config/global was read or has changed. */
  onConfig?: (config: Config) => void;
}

export type Role = 'starting' | 'standby' | 'master';

/** Timeout and pause of the first steps, before /config/global is known. */
const FIRST_TIMEOUT_MS = 5000;

export class MonitorInstance {
  readonly #d: MonitorDeps;
  #settings: MonSettings;
  #role: Role = 'starting';
  #lease: Lease | null = null;
  #election: Election | null = null;
  #state: ClusterState | null = null;
  #pgs: PgManager | null = null;
  #stats: StatsWriter | null = null;
  #pause: { timer: Cancel; wake: () => void } | null = null;
  #stopped = false;
  #fail: (error: VitastorError) => void = () => undefined;

  constructor(deps: MonitorDeps) {
    this.#d = deps;
    this.#settings = monSettings(deps.config);
  }

  get role(): Role {
    return this.#role;
  }

  /** The lease id in decimal; '' = none yet. */
  get id(): string {
    return this.#lease?.id.toString() ?? '';
  }

  /** null: not master. */
  get view(): ClusterView | null {
    return this.#role === 'master' ? (this.#state?.view ?? null) : null;
  }

  /** Runs until stop() (resolves) or until this instance cannot go on (rejects). */
  async run(): Promise<void> {
    const failed = new Promise<never>((_, reject) => {
      this.#fail = reject;
    });
    try {
      await Promise.race([this.#work(), failed]);
      // Master now: only a failure or stop() ends it.
      await failed;
    } catch (error) {
      if (!this.#stopped) throw error;
    } finally {
      await this.#end();
    }
  }

  /** run() ends; the lease has been given back when it has. */
  stop(): void {
    this.#stopped = true;
    this.#fail(new VitastorError('ERR_ABORTED', 'stopped'));
  }

  async #end(): Promise<void> {
    this.#stopped = true;
    this.#role = 'starting';
    this.#pause?.timer();
    this.#pause?.wake();
    this.#election?.stop();
    this.#pgs?.stop();
    this.#stats?.stop();
    this.#state?.stop();
    await this.#lease?.revoke();
  }

  async #work(): Promise<void> {
    await this.#persist('reading /config/global', () => this.#readGlobal());
    await this.#persist('getting a lease', () => this.#grant());
    await this.#persist('announcing this monitor', () => this.#announce());
    await this.#becomeMaster();
    await this.#startState();
  }

  /** Repeats a step for ever, as long as only etcd does not answer. */
  async #persist(what: string, step: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        await step();
        this.#check();
        return;
      } catch (error) {
        this.#check();
        if (!(error instanceof VitastorError) || !error.retryable) throw error;
        this.#d.log.warn(`${what}: ${errorText(error)}; trying again`);
        await this.#sleep(this.#settings.requestTimeoutMs);
        this.#check();
      }
    }
  }

  #check(): void {
    if (this.#stopped) throw new VitastorError('ERR_ABORTED', 'stopped');
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.#pause = { timer: this.#d.clock.after(ms, resolve), wake: resolve };
    });
  }

  async #readGlobal(): Promise<void> {
    const { etcd, keys, log } = this.#d;
    const result = await etcd.txn(
      { compare: [], success: [{ op: 'range', range: { key: keys.configGlobal } }] },
      FIRST_TIMEOUT_MS,
    );
    const text = result.responses[0]?.[0]?.value ?? '';
    if (text === '') return;
    try {
      this.#takeGlobal(decodeText(decodeGlobalConfig, text));
    } catch (error) {
      log.error(`key ${keys.configGlobal}: ${errorText(error)}; going on without it`);
    }
  }

  async #grant(): Promise<void> {
    const { etcd, clock, log } = this.#d;
    const {
      leaseTtlSeconds: ttlSeconds,
      leaseRefreshMs: refreshMs,
      requestTimeoutMs: timeoutMs,
      retries,
    } = this.#settings;
    const lease = await Lease.grant({
      etcd,
      clock,
      log,
      ttlSeconds,
      refreshMs,
      timeoutMs,
      retries,
      onLost: (error) => this.#fail(error),
    });
    this.#lease = lease;
    // stop() came while the answer was under way.
    if (this.#stopped) await lease.revoke();
  }

  async #announce(): Promise<void> {
    const { etcd, keys, hostname, ips } = this.#d;
    const lease = this.#leaseId();
    const value = stringifyJson(encodeMonMember({ ip: [...ips], hostname, id: '' }));
    await etcd.txn(
      { compare: [], success: [{ op: 'put', key: keys.monMember(lease), value, lease }] },
      this.#settings.requestTimeoutMs,
    );
  }

  #leaseId(): bigint {
    if (this.#lease === null) throw new VitastorError('ERR_LEASE_LOST', 'there is no lease');
    return this.#lease.id;
  }

  async #becomeMaster(): Promise<void> {
    const { etcd, clock, keys, log, hostname, ips } = this.#d;
    this.#role = 'standby';
    this.#election = new Election({
      etcd,
      clock,
      keys,
      log,
      hostname,
      ips,
      leaseId: this.#leaseId(),
      periodMs: this.#settings.startTimeoutMs,
    });
    await this.#election.win();
    this.#check();
    log.info(`this monitor is master (lease ${this.#leaseId()})`);
  }

  async #startState(): Promise<void> {
    const { etcd, clock, keys, log, solver } = this.#d;
    const masterLease = this.#leaseId();
    const suspects = new Set<string>();
    this.#state = new ClusterState({
      etcd,
      clock,
      keys,
      paths: PATHS_ALL,
      loadTimeoutMs: this.#settings.startTimeoutMs,
      guard: () => [{ target: 'lease', key: keys.monMaster, result: 'equal', value: masterLease }],
      onChange: (set) => this.#onChange(set, masterLease),
      onProblem: (problem) => {
        suspects.add(problem.key);
        log.error(`${problemText(problem)}; it is left out`);
        this.#pgs?.onProblem(problem.key);
      },
      onTrouble: (text) => log.warn(text),
      onFatal: (error) => this.#fail(error),
    });
    await this.#state.start();
    this.#check();
    const { view } = this.#state;
    this.#takeGlobal(view.global);
    this.#pgs = new PgManager({
      view,
      etcd,
      clock,
      solver,
      log,
      masterLease,
      suspects,
      settings: () => this.#settings,
      onFatal: (error) => this.#fail(error),
    });
    this.#stats = new StatsWriter({
      view,
      etcd,
      clock,
      log,
      masterLease,
      settings: () => this.#settings,
      onRun: () => this.#pgs?.onStats(),
    });
    this.#role = 'master';
    this.#pgs.start();
    this.#stats.start();
  }

  #takeGlobal(global: JsonObject): void {
    const config = this.#d.config.withEtcd(global);
    this.#settings = monSettings(config);
    this.#d.onConfig?.(config);
  }

  #onChange(set: ChangeSet, masterLease: bigint): void {
    const view = this.#state?.view;
    if (view === undefined || this.#role !== 'master') return;
    if (view.entry(view.keys.monMaster)?.lease !== masterLease) {
      this.#fail(new VitastorError('ERR_LEASE_LOST', `${view.keys.monMaster} is no longer ours`));
      return;
    }
    if (set.changes.some(({ parsed }) => parsed.kind === 'config/global'))
      this.#takeGlobal(view.global);
    this.#pgs?.onChange(set);
    this.#stats?.onChange(set);
  }
}
