// SPDX-License-Identifier: GPL-2.0-or-later
// Keeps /pg/config and /history/last_clean_pgs as they should be while this monitor is master.
//
// Two jobs, apart from each other: committing (quick, one transaction from the present view; a
// vanished OSD's primaries move at once) and computing placements (slow, in the solver; its result
// counts only for the inputs it was made from). Source: etcd schema 8.5.

import {
  encodeLastCleanPgs,
  errorText,
  stringifyJson,
  VitastorError,
  type Cancel,
  type ChangeSet,
  type ClusterView,
  type Clock,
  type Etcd,
} from '@vitastor/core';
import { backfillfullPools } from './backfillfull.js';
import { placementInputs, previousPgs, type PlacementInputs } from './inputs.js';
import { nextLastClean } from './last-clean.js';
import type { Log } from './log.js';
import { misfits, placePool, scaleSets, type Placement, type Solver } from './placement/index.js';
import { asksForReshuffle, isPgConfigUnknown, planChange } from './plan.js';
import type { MonSettings } from './settings.js';
import { Soon } from './soon.js';

export interface PgManagerOptions {
  view: ClusterView;
  etcd: Etcd;
  clock: Clock;
  solver: Solver;
  log: Log;
  masterLease: bigint;
  settings: () => MonSettings;
  /** Keys that failed to decode at some time. */
  suspects: ReadonlySet<string>;
  /** Something that must not go on: our bug, or etcd refuses our transactions. */
  onFatal: (error: VitastorError) => void;
}

interface Computed {
  hash: string;
  placements: Map<number, Placement | null>;
}

/** start() to stop(); then nothing is written any more (a transaction under way may still be). */
export class PgManager {
  readonly #o: PgManagerOptions;
  /** Who leads what, from the sets that are there. */
  readonly #primaries: Soon;
  /** Everything. */
  readonly #recheck: Soon;
  #outTimer: Cancel | null = null;
  #committing = false;
  readonly #again = new Set<'primaries' | 'all'>();
  #computing: string | null = null;
  #computed: Computed | null = null;
  /** Our own last write: nothing is decided before the view has it. */
  #writtenRevision = 0n;
  #waiting = false;
  #savingClean = false;
  #cleanAgain = false;
  #cleanTimer: Cancel | null = null;
  #forced = false;
  #stopped = false;
  readonly #said = new Set<string>();
  readonly #reported = new Map<number, string>();

  constructor(options: PgManagerOptions) {
    this.#o = options;
    this.#primaries = new Soon(options.clock, () => void this.#commit('primaries'));
    this.#recheck = new Soon(options.clock, () => void this.#commit('all'));
  }

  start(): void {
    const { view } = this.#o;
    this.#forced = [...view.pools.keys()].some(
      (id) => (view.poolStats.get(id)?.pgRealSize ?? 0) === 0,
    );
    this.#primaries.in(0);
    // Daemons that start together should all be there before anything is placed.
    this.#recheck.in(this.#o.settings().changeDelayMs);
    void this.#saveLastClean();
  }

  stop(): void {
    this.#stopped = true;
    this.#primaries.stop();
    this.#recheck.stop();
    this.#outTimer?.();
    this.#cleanTimer?.();
    this.#cleanTimer = null;
    this.#outTimer = null;
  }

  /** Reacts to what the watch brought. */
  onChange(set: ChangeSet): void {
    const { retryChangeMs, changeDelayMs } = this.#o.settings();
    let statesChanged = false;
    for (const { parsed } of set.changes) {
      switch (parsed.kind) {
        // A dead OSD's PGs wait for a new primary: no reason to wait with them.
        case 'osd/state':
          this.#primaries.in(0);
          this.#recheck.in(changeDelayMs);
          break;
        case 'osd/stats':
          if (this.#placementChanged(parsed.osd)) this.#recheck.in(changeDelayMs);
          break;
        case 'pg/state':
          statesChanged = true;
          break;
        case 'config/global':
        case 'config/pools':
        case 'config/node_placement':
        case 'config/osd':
        case 'pg/config':
        case 'config/pgs':
        case 'pg/history':
          this.#recheck.in(changeDelayMs);
          break;
        default:
          break;
      }
    }
    if (set.reloaded) {
      this.#primaries.in(0);
      this.#recheck.in(changeDelayMs);
    }
    if (statesChanged) {
      if (this.#waiting) this.#recheck.in(retryChangeMs);
      void this.#saveLastClean();
    }
  }

  /** A value of this key did not decode. A PG map that we know is written again. */
  onProblem(key: string): void {
    const { keys } = this.#o.view;
    if (key === keys.pgConfig || key === keys.configPools)
      this.#recheck.in(this.#o.settings().changeDelayMs);
  }

  /**
   * Called after each statistics run: object counts may have made a pool backfillfull, or no
   * longer.
   */
  onStats(): void {
    const { view } = this.#o;
    const { backfillfullRatio, changeDelayMs } = this.#o.settings();
    const config = view.pgConfig;
    if (config === null) return;
    if (
      backfillfullPools(view, config.items, backfillfullRatio).join(',') !==
      config.backfillfullPools.join(',')
    )
      this.#recheck.in(changeDelayMs);
  }

  /**
   * True if the last report of the OSD says anything new to placement; most only bring counters.
   */
  #placementChanged(osd: number): boolean {
    const stats = this.#o.view.osdStats.get(osd);
    const now =
      stats === undefined
        ? ''
        : `${stats.sizeBytes} ${stats.host} ${stats.blockSizeBytes} ${stats.bitmapGranularityBytes} ${stats.immediateCommit}`;
    if (this.#reported.get(osd) === now) return false;
    if (stats === undefined) this.#reported.delete(osd);
    else this.#reported.set(osd, now);
    return true;
  }

  async #commit(what: 'primaries' | 'all'): Promise<void> {
    if (this.#stopped) return;
    if (this.#committing) {
      this.#again.add(what);
      return;
    }
    this.#committing = true;
    try {
      await this.#commitOnce(what);
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#committing = false;
    }
    if (this.#again.has('primaries')) this.#primaries.in(0);
    if (this.#again.has('all')) this.#recheck.in(0);
    this.#again.clear();
  }

  #failed(error: unknown): void {
    if (this.#stopped) return;
    if (error instanceof VitastorError && error.retryable) {
      this.#o.log.warn(`changing PGs: ${errorText(error)}; trying again`);
      this.#recheck.in(this.#o.settings().retryChangeMs);
      return;
    }
    this.#o.onFatal(
      error instanceof VitastorError
        ? error
        : new VitastorError('ERR_ETCD_REQUEST', `changing PGs: ${errorText(error)}`, {
            cause: error,
          }),
    );
  }

  async #commitOnce(what: 'primaries' | 'all'): Promise<void> {
    const { view, clock, etcd, log, masterLease, suspects } = this.#o;
    const settings = this.#o.settings();
    const again = what === 'all' ? this.#recheck : this.#primaries;
    if (view.revision < this.#writtenRevision) {
      again.in(settings.retryChangeMs);
      return;
    }
    if (isPgConfigUnknown(view)) {
      this.#sayOnce(
        `${view.keys.pgConfig} cannot be read: PGs are left alone until it is repaired or deleted`,
      );
      return;
    }
    const inputs = placementInputs(view, settings, clock.wallMs(), suspects);
    this.#watchOut(inputs);
    if (inputs.massOutage)
      this.#sayOnce(
        'at least half of the OSDs that hold data are silent: none of them is taken out of placement; ' +
          'start them, or set their reweight to 0',
      );
    for (const key of inputs.unreadable)
      this.#sayOnce(
        `${key} cannot be read: PGs that exist are not moved until it is repaired or deleted`,
      );
    const placements = what === 'all' ? this.#placementsFor(inputs) : null;
    const plan = planChange({
      view,
      inputs,
      placements,
      masterLease,
      backfillfullRatio: settings.backfillfullRatio,
    });
    if (what === 'all') this.#waiting = plan.waiting.length > 0;
    plan.complaints.forEach((text) => this.#sayOnce(text));
    if (plan.success.length === 0) return;
    const result = await etcd.txn(
      { compare: plan.compare, success: plan.success },
      settings.requestTimeoutMs,
    );
    if (this.#stopped) return;
    if (!result.succeeded) {
      again.in(settings.retryChangeMs);
      return;
    }
    this.#writtenRevision = result.revision;
    if (placements !== null) this.#forced = false;
    for (const note of plan.notes) log.info(note);
    void this.#saveLastClean();
    if (this.#waiting) this.#recheck.in(settings.retryChangeMs);
  }

  /**
   * The computed placements, if they are for these inputs and there is use for them; starts the
   * computation where they are missing.
   */
  #placementsFor(inputs: PlacementInputs): Map<number, Placement | null> | null {
    const { view } = this.#o;
    const usable = this.#computed?.hash === inputs.hash ? this.#computed.placements : null;
    const incomplete = [...inputs.pools.values()].some((pool) => {
      const items = view.pgConfig?.items.get(pool.id) ?? [];
      return items.length !== pool.pgCount && usable?.get(pool.id) !== null;
    });
    const changed = view.pgConfig?.hash !== inputs.hash;
    if (!changed && !incomplete && !this.#forced) return null;
    if (usable !== null) return usable;
    if (this.#computing !== inputs.hash) void this.#compute(inputs);
    return null;
  }

  async #compute(inputs: PlacementInputs): Promise<void> {
    const { view, solver, log } = this.#o;
    this.#computing = inputs.hash;
    const afresh = asksForReshuffle(view);
    const placements = new Map<number, Placement | null>();
    try {
      for (const pool of inputs.pools.values()) {
        const items = afresh ? [] : previousPgs(view, pool.id);
        const previous = scaleSets(
          items.map((item) => item.osdSet),
          pool.pgCount,
        );
        // A large pool takes a second: keepalives and events go in between.
        await new Promise<void>((resolve) => void this.#o.clock.after(0, resolve));
        if (this.#stopped || this.#computing !== inputs.hash) return;
        placements.set(
          pool.id,
          await this.#place({ pool, tree: inputs.tree, levels: inputs.levels, previous, solver }),
        );
        if (this.#stopped || this.#computing !== inputs.hash) return;
      }
      this.#computed = { hash: inputs.hash, placements };
      this.#recheck.in(0);
    } catch (error) {
      log.error(`placement failed: ${errorText(error)}`);
      this.#o.onFatal(
        new VitastorError('ERR_INVALID_ARGUMENT', `placement failed: ${errorText(error)}`, {
          cause: error,
        }),
      );
    } finally {
      if (this.#computing === inputs.hash) this.#computing = null;
    }
  }

  async #place(input: Parameters<typeof placePool>[0]): Promise<Placement | null> {
    const { pool, tree } = input;
    const name = `pool ${pool.id} (${pool.name})`;
    try {
      const placement = await placePool(input);
      const unfit = misfits(tree, pool);
      const why = unfit === '' ? '' : ` (${unfit})`;
      if (placement === null)
        this.#sayOnce(
          `${name}: none of ${tree.length} OSDs suits it${why}; its PGs are left as they are`,
        );
      else if (placement.space.pgRealSize < pool.pgSize)
        this.#sayOnce(
          `${name}: PGs have ${placement.space.pgRealSize} of ${pool.pgSize} members: the OSDs that suit it` +
            ` are in too few places (failure domain ${pool.failureDomain})${why}`,
        );
      return placement;
    } catch (error) {
      if (!(error instanceof VitastorError) || error.code !== 'ERR_BAD_VALUE') throw error;
      this.#o.log.error(`${name}: ${error.message}; its PGs are left as they are`);
      return null;
    }
  }

  /** A timer for the moment at which the next down OSD leaves placement. */
  #watchOut(inputs: PlacementInputs): void {
    this.#outTimer?.();
    this.#outTimer =
      inputs.nextOutMs === null
        ? null
        : this.#o.clock.after(inputs.nextOutMs + 1, () => this.#recheck.in(0));
  }

  async #saveLastClean(): Promise<void> {
    if (this.#savingClean) {
      this.#cleanAgain = true;
      return;
    }
    this.#savingClean = true;
    try {
      do {
        this.#cleanAgain = false;
        await this.#saveLastCleanOnce();
      } while (this.#cleanAgain && !this.#stopped);
    } catch (error) {
      if (!(error instanceof VitastorError && error.retryable)) this.#failed(error);
      else if (!this.#stopped)
        this.#cleanTimer = this.#o.clock.after(
          this.#o.settings().changeDelayMs,
          () => void this.#saveLastClean(),
        );
    } finally {
      this.#savingClean = false;
    }
  }

  async #saveLastCleanOnce(): Promise<void> {
    const { view, etcd, masterLease } = this.#o;
    const items = this.#stopped ? null : nextLastClean(view);
    if (items === null) return;
    const { keys } = view;
    const value = view.revision + 1n;
    await etcd.txn(
      {
        compare: [
          { target: 'lease', key: keys.monMaster, result: 'equal', value: masterLease },
          { target: 'modRevision', key: keys.pgConfig, result: 'less', value },
          { target: 'modRevision', key: keys.lastCleanPgs, result: 'less', value },
        ],
        success: [
          { op: 'put', key: keys.lastCleanPgs, value: stringifyJson(encodeLastCleanPgs(items)) },
        ],
      },
      this.#o.settings().startTimeoutMs,
    );
  }

  /** The same complaint at every recheck helps nobody. */
  #sayOnce(text: string): void {
    if (this.#said.has(text)) return;
    this.#said.add(text);
    this.#o.log.warn(text);
  }
}
