// SPDX-License-Identifier: GPL-2.0-or-later
// What to write so that /pg/config says what it should: one transaction, from one view of the
// cluster. Pure. Source: etcd schema 5.9, 8.5 to 8.7; safety.md 6.
//
// A pool whose PG count changes, or that is deleted, goes through two steps: all its PGs are paused
// (and nothing else changes), and only when no OSD holds any of them the new PGs are written, with
// histories that name every earlier set.

import {
  decodePgConfig,
  encodeLastCleanPgs,
  encodePgConfig,
  encodePgHistory,
  encodePoolStats,
  isJsonObject,
  parseJson,
  stringifyJson,
  type ClusterView,
  type Compare,
  type PgConfig,
  type PgItem,
  type PgItems,
  type PgHistory,
  type PoolConfig,
  type PoolStats,
  type TxnOp,
} from '@vitastor/core';
import { backfillfullPools } from './backfillfull.js';
import { canLead, deletedPools, osdTags, type PlacementInputs } from './inputs.js';
import {
  choosePrimary,
  movedHistory,
  scaledHistories,
  type OldPg,
  type Placement,
} from './placement/index.js';

/**
 * Stored instead of a hash while pools wait for their PGs to stop: equal to no hash, and not empty
 * (which would ask for a reshuffle).
 */
const HASH_PENDING = 'pending';

export interface PlanInput {
  view: ClusterView;
  inputs: PlacementInputs;
  /**
   * New sets by pool, for exactly `inputs`; absent or null for a pool: leave its sets alone. null:
   * only primaries and pauses.
   */
  placements: ReadonlyMap<number, Placement | null> | null;
  masterLease: bigint;
  backfillfullRatio: number;
}

export interface Plan {
  compare: Compare[];
  /** Empty: everything is as it should be, or has to wait. */
  success: TxnOp[];
  /** Pools that wait until their PGs have stopped. */
  waiting: number[];
  /** What happens once this is written: one line each, for the log. */
  notes: string[];
  /** What cannot be done, whether or not anything is written. */
  complaints: string[];
}

/**
 * The stored hash asks for a full reshuffle: somebody wrote it as "" or null. (A record that never
 * had one does not.)
 */
export function asksForReshuffle(view: ClusterView): boolean {
  const entry = view.entry(view.keys.pgConfig);
  if (entry === undefined || view.pgConfig === null || view.pgConfig.hash !== '') return false;
  const raw = parseJson(entry.value);
  return isJsonObject(raw) && Object.hasOwn(raw, 'hash');
}

/**
 * True if /pg/config is there and nobody ever saw a good value of it: then nothing may be written.
 */
export function isPgConfigUnknown(view: ClusterView): boolean {
  return (
    view.pgConfig === null &&
    (view.entry(view.keys.pgConfig) !== undefined ||
      view.entry(view.keys.oldPgConfig) !== undefined)
  );
}

export function planChange(input: PlanInput): Plan {
  return new Planner(input).plan();
}

class Planner {
  readonly #in: PlanInput;
  readonly #current: PgConfig;
  readonly #compare = new Map<string, Compare>();
  readonly #success: TxnOp[] = [];
  readonly #waiting: number[] = [];
  readonly #notes: string[] = [];
  readonly #complaints: string[] = [];
  readonly #items: PgItems = new Map();
  #pausing = false;
  /** A pool could not be given its new placement: the run is not over. */
  #held = false;
  #forgetClean = new Set<number>();

  constructor(input: PlanInput) {
    this.#in = input;
    this.#current = input.view.pgConfig ?? { hash: '', items: new Map(), backfillfullPools: [] };
  }

  plan(): Plan {
    const { view, inputs, placements } = this.#in;
    const deleted = new Set(deletedPools(view));
    for (const id of [...new Set([...this.#current.items.keys(), ...inputs.pools.keys()])].sort(
      (a, b) => a - b,
    )) {
      const pool = inputs.pools.get(id);
      if (deleted.has(id)) this.#deletePool(id);
      else if (pool === undefined) this.#keepUnknown(id);
      else this.#placePool(pool);
    }
    const settled =
      placements !== null &&
      this.#waiting.length === 0 &&
      inputs.unreadable.length === 0 &&
      !this.#held;
    const next: PgConfig = {
      hash: settled ? inputs.hash : this.#unsettledHash(),
      items: this.#items,
      backfillfullPools: [],
    };
    next.backfillfullPools = backfillfullPools(view, next.items, this.#in.backfillfullRatio);
    this.#putConfig(next);
    this.#putLastClean();
    if (this.#pausing) {
      for (const { key } of view.entries())
        if (key.startsWith(view.keys.at('osd/state/'))) this.#unchanged(key);
    }
    return {
      compare: [
        { target: 'lease', key: view.keys.monMaster, result: 'equal', value: this.#in.masterLease },
        ...this.#compare.values(),
      ],
      success: this.#success,
      waiting: this.#waiting,
      notes: this.#notes,
      complaints: this.#complaints,
    };
  }

  #unsettledHash(): string {
    if (this.#current.hash !== '' || this.#items.size === 0) return this.#current.hash;
    return this.#in.placements === null && asksForReshuffle(this.#in.view) ? '' : HASH_PENDING;
  }

  /** The key must not have changed since our view. */
  #unchanged(key: string): void {
    this.#compare.set(key, {
      target: 'modRevision',
      key,
      result: 'less',
      value: this.#in.view.revision + 1n,
    });
  }

  #primary(pool: PoolConfig, pg: number, osdSet: readonly number[]): number {
    const { view } = this.#in;
    return choosePrimary(pg, osdSet, pool, {
      isUp: (osd) => canLead(view, osd),
      hasAffinity: (osd) =>
        pool.primaryAffinityTags.every((tag) => osdTags(view, osd).includes(tag)),
    });
  }

  #placePool(pool: PoolConfig): void {
    const { view, inputs, placements } = this.#in;
    const items = this.#current.items.get(pool.id) ?? [];
    const placement = placements?.get(pool.id) ?? null;
    if (items.length === 0) {
      if (placement !== null) this.#createPgs(pool, placement);
      return;
    }
    const countChanges = items.length !== pool.pgCount;
    if (!countChanges && (placement === null || inputs.unreadable.length > 0)) {
      this.#items.set(
        pool.id,
        items.map((item, i) => ({
          osdSet: item.osdSet,
          primary: this.#primary(pool, i + 1, item.osdSet),
          pause: false,
        })),
      );
      return;
    }
    // The PGs of a pool go on as they are for as long as its change cannot be made.
    if (placement === null || (countChanges && inputs.unreadable.length > 0)) {
      this.#items.set(
        pool.id,
        items.map((item, i) => ({ ...item, primary: this.#primary(pool, i + 1, item.osdSet) })),
      );
      if (countChanges && placements !== null && inputs.unreadable.length > 0) {
        this.#complaints.push(
          `pool ${pool.id}: pg_count stays ${items.length} until ${inputs.unreadable.join(', ')} can be read`,
        );
      }
      return;
    }
    const hidden = this.#unreadableHistory(pool.id, items.length);
    if (hidden !== null) {
      this.#held = true;
      this.#items.set(
        pool.id,
        items.map((item, i) => ({ ...item, primary: this.#primary(pool, i + 1, item.osdSet) })),
      );
      this.#complaints.push(
        `pool ${pool.id}: its PGs are not moved, because ${hidden} cannot be read; repair or delete that key`,
      );
      return;
    }
    if (countChanges) {
      if (!this.#isStopped(pool.id, items)) return;
      this.#notes.push(
        `pool ${pool.id} (${pool.name}): pg_count ${items.length} → ${pool.pgCount}`,
      );
      this.#rescale(pool, items, placement);
    } else {
      this.#move(pool, items, placement);
    }
    this.#putSpace(pool.id, placement, pool);
  }

  #itemsOf(pool: PoolConfig, sets: readonly (readonly number[])[]): PgItem[] {
    return sets.map((osdSet, i) => ({
      osdSet: [...osdSet],
      primary: this.#primary(pool, i + 1, osdSet),
      pause: false,
    }));
  }

  /**
   * First PGs of a pool. Earlier sets known from the last clean moment, and histories that are
   * there, stay in force.
   */
  #createPgs(pool: PoolConfig, placement: Placement): void {
    const { view } = this.#in;
    if (this.#holders(pool.id).length > 0) {
      this.#waiting.push(pool.id);
      return;
    }
    this.#compareStates(pool.id, pool.pgCount);
    const clean = view.lastCleanPgs?.get(pool.id) ?? [];
    if (clean.length > 0 && clean.length === pool.pgCount)
      this.#moveHistories(pool, clean, placement.sets);
    else if (clean.length > 0) this.#scaleHistories(pool, clean);
    this.#items.set(pool.id, this.#itemsOf(pool, placement.sets));
    this.#putSpace(pool.id, placement, pool);
    this.#notes.push(`pool ${pool.id} (${pool.name}): ${pool.pgCount} PGs created`);
  }

  #move(pool: PoolConfig, items: readonly PgItem[], placement: Placement): void {
    this.#moveHistories(pool, items, placement.sets);
    this.#items.set(pool.id, this.#itemsOf(pool, placement.sets));
    const moved = items.filter(
      (item, i) => item.osdSet.join(',') !== placement.sets[i]?.join(','),
    ).length;
    if (moved > 0)
      this.#notes.push(`pool ${pool.id} (${pool.name}): ${moved} of ${items.length} PGs move`);
  }

  #moveHistories(
    pool: PoolConfig,
    items: readonly PgItem[],
    sets: readonly (readonly number[])[],
  ): void {
    items.forEach((item, i) => {
      const history = this.#in.view.pgHistory.get(pool.id, i + 1) ?? null;
      const next = movedHistory(
        { osdSet: item.osdSet, history },
        sets[i] ?? [],
        pool.scheme !== 'replicated',
      );
      if (next !== null) this.#putHistory(pool.id, i + 1, next);
    });
  }

  #rescale(pool: PoolConfig, items: readonly PgItem[], placement: Placement): void {
    this.#compareStates(pool.id, items.length);
    this.#scaleHistories(pool, items);
    this.#deleteStats(pool.id);
    this.#items.set(pool.id, this.#itemsOf(pool, placement.sets));
  }

  #scaleHistories(pool: PoolConfig, items: readonly PgItem[]): void {
    const { view } = this.#in;
    const old: OldPg[] = items.map((item, i) => ({
      osdSet: item.osdSet,
      history: view.pgHistory.get(pool.id, i + 1) ?? null,
    }));
    const scaled = scaledHistories(old, pool.pgCount);
    scaled.forEach((history, i) => {
      if (history !== null) this.#putHistory(pool.id, i + 1, history);
    });
    for (const pg of view.pgHistory.ofPool(pool.id).keys())
      if (scaled[pg - 1] === undefined || scaled[pg - 1] === null) this.#deleteHistory(pool.id, pg);
  }

  #putHistory(pool: number, pg: number, history: PgHistory): void {
    const key = this.#in.view.keys.pgHistory(pool, pg);
    this.#unchanged(key);
    this.#success.push({ op: 'put', key, value: stringifyJson(encodePgHistory(history)) });
  }

  #deleteHistory(pool: number, pg: number): void {
    const key = this.#in.view.keys.pgHistory(pool, pg);
    this.#unchanged(key);
    this.#success.push({ op: 'delete', range: { key } });
  }

  #deleteStats(pool: number): void {
    const { keys } = this.#in.view;
    this.#success.push(
      { op: 'delete', range: { prefix: keys.at(`pgstats/${pool}/`) } },
      { op: 'delete', range: { prefix: keys.at(`pg/stats/${pool}/`) } },
    );
  }

  #deletePool(id: number): void {
    const { keys } = this.#in.view;
    const items = this.#current.items.get(id) ?? [];
    if (!this.#isStopped(id, items)) return;
    this.#compareStates(id, items.length);
    this.#deleteStats(id);
    this.#success.push(
      { op: 'delete', range: { prefix: keys.at(`pg/history/${id}/`) } },
      { op: 'delete', range: { key: keys.poolStats(id) } },
    );
    for (const pg of this.#in.view.pgHistory.ofPool(id).keys())
      this.#unchanged(keys.pgHistory(id, pg));
    this.#unchanged(keys.configPools);
    this.#forgetClean.add(id);
    this.#notes.push(`pool ${id} is deleted: its ${items.length} PGs are gone`);
  }

  /** A pool whose entry cannot be read: its PGs stay, and somebody who is up leads them. */
  #keepUnknown(id: number): void {
    const { view } = this.#in;
    this.#items.set(
      id,
      (this.#current.items.get(id) ?? []).map((item, i) => {
        if (canLead(view, item.primary)) return item;
        const up = item.osdSet.filter((osd) => osd !== 0 && canLead(view, osd));
        return { ...item, primary: up[(i + 1) % up.length] ?? 0 };
      }),
    );
  }

  /** PG states that some OSD still holds (or that cannot be read). */
  #holders(pool: number): number[] {
    const { view } = this.#in;
    const count = Math.max(
      this.#current.items.get(pool)?.length ?? 0,
      ...view.pgStates.ofPool(pool).keys(),
    );
    return Array.from({ length: count }, (_, i) => i + 1).filter((pg) => {
      const known = view.pgStates.get(pool, pg);
      if (known === undefined) return view.entry(view.keys.pgState(pool, pg)) !== undefined;
      return !(known.state.length === 1 && known.state[0] === 'offline');
    });
  }

  #compareStates(pool: number, count: number): void {
    for (let pg = 1; pg <= count; pg++) this.#unchanged(this.#in.view.keys.pgState(pool, pg));
  }

  /** True when all PGs are paused and nobody holds one; else writes the pause, or waits. */
  #isStopped(id: number, items: readonly PgItem[]): boolean {
    if (items.length === 0) return true;
    const holders = this.#holders(id);
    const paused = items.every((item) => item.pause);
    if (paused && holders.length === 0) return true;
    this.#items.set(
      id,
      items.map((item) => ({ ...item, pause: true })),
    );
    this.#waiting.push(id);
    if (!paused) {
      this.#pausing = true;
      this.#notes.push(`pool ${id}: pausing its ${items.length} PGs`);
    }
    return false;
  }

  #unreadableHistory(pool: number, count: number): string | null {
    const { view } = this.#in;
    for (let pg = 1; pg <= count; pg++) {
      const key = view.keys.pgHistory(pool, pg);
      if (view.entry(key) !== undefined && view.pgHistory.get(pool, pg) === undefined) return key;
    }
    return null;
  }

  #putSpace(id: number, placement: Placement, pool: PoolConfig): void {
    const { view } = this.#in;
    const known = view.poolStats.get(id);
    const next: PoolStats = { usedRawTb: known?.usedRawTb ?? 0, ...placement.space };
    if (
      known !== undefined &&
      stringifyJson(encodePoolStats(known)) === stringifyJson(encodePoolStats(next))
    )
      return;
    const key = view.keys.poolStats(pool.id);
    this.#unchanged(key);
    this.#success.push({ op: 'put', key, value: stringifyJson(encodePoolStats(next)) });
  }

  #putConfig(next: PgConfig): void {
    const { view } = this.#in;
    const value = stringifyJson(encodePgConfig(next));
    const entry = view.entry(view.keys.pgConfig);
    const changed = stringifyJson(encodePgConfig(this.#current)) !== value;
    if (
      !changed &&
      (entry !== undefined || next.items.size === 0) &&
      !(entry !== undefined && isBroken(entry.key, entry.value))
    ) {
      if (this.#success.length > 0) this.#unchanged(view.keys.pgConfig);
      return;
    }
    this.#unchanged(view.keys.pgConfig);
    this.#success.push({ op: 'put', key: view.keys.pgConfig, value });
    if (view.entry(view.keys.oldPgConfig) !== undefined)
      this.#success.push({ op: 'put', key: view.keys.oldPgConfig, value });
  }

  #putLastClean(): void {
    const { view } = this.#in;
    if (
      view.lastCleanPgs === null ||
      ![...this.#forgetClean].some((id) => view.lastCleanPgs?.has(id))
    )
      return;
    const items = new Map([...view.lastCleanPgs].filter(([id]) => !this.#forgetClean.has(id)));
    this.#unchanged(view.keys.lastCleanPgs);
    this.#success.push({
      op: 'put',
      key: view.keys.lastCleanPgs,
      value: stringifyJson(encodeLastCleanPgs(items)),
    });
  }
}

/**
 * The text in etcd does not decode, though we know an earlier good value: writing that one heals
 * it.
 */
function isBroken(key: string, text: string): boolean {
  try {
    decodePgConfig(key, text);
    return false;
  } catch {
    return true;
  }
}
