// SPDX-License-Identifier: GPL-2.0-or-later
// Forgetting OSDs: what their pools lose by it, and taking them out of etcd. Source: etcd schema 5.7, tools 2.13.

import type { ClusterView } from './cluster-view.js';
import { isVitastorError, VitastorError } from './errors.js';
import { changeOnce, deleteOp, keyAt, readRanges } from './etcd-calls.js';
import type { AdminContext } from './images.js';
import { historyWithoutOsds, mapWithoutOsds, osdsOfMap } from './osd-names.js';
import type { PgStateWord } from './schema/pg.js';
import type { PoolConfig } from './schema/pools.js';
import type { Clock } from './seams/clock.js';
import type { TxnOp } from './seams/etcd.js';

/** What a pool would suffer, worst first. The first two are loss of data. */
export const POOL_EFFECTS = ['incomplete', 'has_incomplete', 'offline', 'degraded', 'has_degraded'] as const;
export type PoolEffect = (typeof POOL_EFFECTS)[number];

export interface PoolLoss {
  pool: number;
  poolName: string;
  effect: PoolEffect;
}

export function isDataLoss(effect: PoolEffect): boolean {
  return effect === 'incomplete' || effect === 'has_incomplete';
}

/** States in which an object may have fewer copies than the set of the PG has OSDs. */
const UNEVEN: readonly PgStateWord[] = ['incomplete', 'has_incomplete', 'has_degraded', 'has_unclean', 'has_invalid', 'has_inconsistent', 'has_corrupted'];

interface PgPlaces {
  /** false: not in pg/config (which has a gap there), so that nobody knows all places. */
  mapped: boolean;
  /** Where the PG belongs, without empty slots. */
  target: readonly number[];
  /** Sets that may hold data newer than the last clean moment. */
  sets: readonly (readonly number[])[];
  /** Further OSDs that may hold data. */
  peers: readonly number[];
  /** Of the PG, [] = nobody leads it. */
  state: readonly PgStateWord[];
}

/** null: this PG loses nothing. Judged by what is written in etcd; where that leaves a doubt, by the worst case. */
function pgEffect(pool: PoolConfig, pg: PgPlaces, gone: ReadonlySet<number>, isUp: (osd: number) => boolean): PoolEffect | null {
  const { dataChunks, pgMinSize } = pool;
  const stays = (osd: number): boolean => !gone.has(osd);
  const left = (set: readonly number[]): number => set.filter(stays).length;
  const places = new Set([...pg.target, ...pg.sets.flat(), ...pg.peers]);
  if (![...places].some((osd) => gone.has(osd))) return null;
  if (!pg.mapped) return 'has_incomplete';
  const loses = left(pg.target) < pg.target.length;
  if (loses && left(pg.target) < dataChunks) return 'incomplete';
  // Newer data lies in such a set only; a smaller one than the data has chunks never took a write.
  if (pg.sets.some((set) => set.length >= dataChunks && left(set) < dataChunks)) return 'has_incomplete';
  // A copy that was taken for lost may be on the OSD that is away. One that is up may have the last copy.
  if (pg.state.includes('incomplete') || pg.state.includes('has_incomplete')) return 'has_incomplete';
  if (pg.state.some((word) => UNEVEN.includes(word)) && [...places].some((osd) => gone.has(osd) && isUp(osd)))
    return 'has_incomplete';
  const upBefore = pg.target.filter(isUp).length;
  const upAfter = pg.target.filter((osd) => isUp(osd) && stays(osd)).length;
  // What was written last would be on OSDs that are down.
  if (upAfter < dataChunks && upBefore >= dataChunks) return 'has_incomplete';
  if (loses && left(pg.target) < pgMinSize) return 'offline';
  if (upAfter < pgMinSize && upBefore >= pgMinSize) return 'offline';
  if (loses) return 'degraded';
  return pg.sets.some((set) => left(set) < set.length) ? 'has_degraded' : null;
}

/**
 * The worst that each pool would suffer, by pool number. A pool that cannot be decoded counts as lost where it has PGs on these
 * OSDs. The view must hold config/, pg/ and osd/state/.
 */
export function judgeOsdRemoval(view: ClusterView, osds: readonly number[]): PoolLoss[] {
  const gone = new Set(osds);
  const losses: PoolLoss[] = [];
  const isUp = (osd: number): boolean => view.osdStates.get(osd)?.up ?? false;
  for (const pool of [...view.pools.keys(), ...view.invalidPools].sort((a, b) => a - b)) {
    const config = view.pools.get(pool);
    const effects = new Set<PoolEffect>();
    for (const pg of pgPlaces(view, pool)) {
      const named = [...pg.target, ...pg.sets.flat(), ...pg.peers].some((osd) => gone.has(osd));
      const effect = config ? pgEffect(config, pg, gone, isUp) : named ? 'incomplete' : null;
      if (effect) effects.add(effect);
    }
    const effect = POOL_EFFECTS.find((word) => effects.has(word));
    if (effect) losses.push({ pool, poolName: config?.name ?? String(pool), effect });
  }
  return losses;
}

/** PGs of the map, and those that only have a history (the map has a gap, or was made smaller). */
function pgPlaces(view: ClusterView, pool: number): PgPlaces[] {
  const items = view.pgConfig?.items.get(pool) ?? [];
  const histories = view.pgHistory.ofPool(pool);
  const states = view.pgStates.ofPool(pool);
  const numbers = new Set([...items.map((_, i) => i + 1), ...histories.keys(), ...states.keys()]);
  return [...numbers].map((pg) => {
    const [item, history, state] = [items[pg - 1], histories.get(pg), states.get(pg)];
    return {
      mapped: item !== undefined,
      target: (item?.osdSet ?? []).filter((osd) => osd !== 0),
      sets: (history?.osdSets ?? []).map((set) => set.filter((osd) => osd !== 0)),
      peers: [...(history?.allPeers ?? []), ...(item || !state ? [] : [state.primary, ...state.peers])],
      state: state?.state ?? [],
    };
  });
}

export interface OsdRemovalRules {
  /** Although pools become degraded or stop. */
  force: boolean;
  /** Although data is lost. Implies force. */
  allowDataLoss: boolean;
  /** Although they are running. */
  allowUp: boolean;
  /** Only look. */
  dryRun: boolean;
}

export interface OsdRemoval {
  losses: PoolLoss[];
  /** Those among the OSDs that are running. */
  up: number[];
  /** Pools that forbid it under these rules. Nothing was removed if there are any, or if a running OSD does. */
  refused: boolean;
  /** Of the state the judgement is about. */
  context: AdminContext;
}

/** OSDs or PGs change while we look: look again, so often at most. */
const REMOVE_ATTEMPTS = 100;
/** PG histories that one transaction changes: etcd's own limit of operations is 128. */
const HISTORY_BATCH = 32;

/** Looks, and removes the records of the OSDs unless the rules forbid it. `load` reads config/, pg/, osd/ and history/ anew. */
export async function removeOsds(
  load: () => Promise<AdminContext>,
  osds: readonly number[],
  rules: OsdRemovalRules,
): Promise<OsdRemoval & { existed: boolean }> {
  for (let attempt = 0; attempt < REMOVE_ATTEMPTS; attempt++) {
    const context = await load();
    const { view } = context;
    refuseUnreadable(view, osds);
    const losses = judgeOsdRemoval(view, osds);
    const up = osds.filter((osd) => view.osdStates.get(osd)?.up);
    const allowed = (loss: PoolLoss): boolean => rules.allowDataLoss || (rules.force && !isDataLoss(loss.effect));
    const refused = (up.length > 0 && !rules.allowUp) || !losses.every(allowed);
    const report = { losses, up, refused, context };
    if (refused || rules.dryRun) return { ...report, existed: osds.some((osd) => hasRecords(view, osd)) };
    const existed = await removeRecords(context, osds);
    if (existed !== null) return { ...report, existed };
  }
  throw new VitastorError('ERR_CONFLICT', 'OSDs were not removed: the state of the cluster changes all the time, try again', {
    retryable: true,
  });
}

/** A PG that we cannot read would pass for one that loses nothing. Throws ERR_BAD_VALUE. */
function refuseUnreadable(view: ClusterView, osds: readonly number[]): void {
  const unreadable = (key: string): VitastorError =>
    new VitastorError('ERR_BAD_VALUE', `key ${key} cannot be read, so nobody knows what is lost with an OSD. Correct it in etcd first`);
  for (const { key } of view.entries()) {
    const parsed = view.keys.parse(key);
    const lost =
      (parsed?.kind === 'pg/history' && !view.pgHistory.get(parsed.pool, parsed.pg)) ||
      (parsed?.kind === 'pg/state' && !view.pgStates.get(parsed.pool, parsed.pg));
    if (lost) throw unreadable(key);
  }
  const map = view.entry(view.keys.pgConfig) ?? view.entry(view.keys.oldPgConfig);
  for (const [pool, named] of map ? osdsOfMap(map.key, map.value) : []) {
    const known = (view.pgConfig?.items.get(Number(pool)) ?? []).flatMap((pg) => [...pg.osdSet, pg.primary]);
    if (map && osds.some((osd) => named.has(osd) && !known.includes(osd))) throw unreadable(map.key);
  }
}

const recordsOf = ({ keys }: ClusterView, osd: number): string[] =>
  [keys.configOsd(osd), keys.osdStats(osd), keys.osdState(osd), keys.osdInodeStats(osd), keys.osdSpace(osd)];

function hasRecords(view: ClusterView, osd: number): boolean {
  return recordsOf(view, osd).some((key) => view.entry(key) !== undefined);
}

/** false: there was nothing to remove. null: something changed meanwhile, so that the judgement may be wrong. */
async function removeRecords(context: AdminContext, osds: readonly number[]): Promise<boolean | null> {
  const { view, etcd, limits } = context;
  const { keys } = view;
  const gone = new Set(osds);
  const success: TxnOp[] = [];
  const maps = [keys.pgConfig, keys.oldPgConfig, keys.lastCleanPgs];
  for (const key of maps) {
    const text = view.entry(key)?.value;
    const value = text === undefined ? null : mapWithoutOsds(key, text, gone);
    if (value !== null) success.push({ op: 'put', key, value });
  }
  const records = osds.filter((osd) => hasRecords(view, osd)).flatMap((osd) => recordsOf(view, osd));
  success.push(...records.map(deleteOp));
  if (success.length === 0) return false;
  const judgedBy = [...maps, ...[...partnersOf(view, gone)].map((osd) => keys.osdState(osd))];
  const result = await changeOnce(
    etcd,
    { compare: judgedBy.map((key) => keyAt(key, view.modRevision(key))), success },
    limits,
    (seen) => seen.flat().every((kv) => maps.includes(kv.key) && mapWithoutOsds(kv.key, kv.value, gone) === null),
    [...maps, ...records].map((key) => ({ key })),
  );
  return result.succeeded ? true : null;
}

/** These OSDs, and all that share a PG with them: who of them is up was part of the judgement. */
function partnersOf(view: ClusterView, gone: ReadonlySet<number>): Set<number> {
  const partners = new Set(gone);
  for (const pool of view.pools.keys()) {
    for (const { target, sets, peers } of pgPlaces(view, pool)) {
      const places = [...target, ...sets.flat(), ...peers];
      if (places.some((osd) => gone.has(osd))) for (const osd of target) partners.add(osd);
    }
  }
  return partners;
}

export interface HistoryCleaning {
  clock: Clock;
  signal: AbortSignal;
  /** First: the monitor makes its own changes after the removal. */
  waitMs: number;
  attempts: number;
  retryMs: number;
}

/** Takes the OSDs out of all PG histories: a PG would wait for them otherwise. Throws ERR_CONFLICT, ERR_ABORTED. */
export async function forgetOsdsInHistories(context: AdminContext, osds: readonly number[], options: HistoryCleaning): Promise<void> {
  const { etcd, limits, view: { keys } } = context;
  const gone = new Set(osds);
  const again = `repeat rm-osd ${osds.join(' ')}`;
  await pause(options.clock, options.waitMs, options.signal);
  let silent = 0;
  for (let attempt = 0; attempt < options.attempts; attempt++) {
    if (options.signal.aborted)
      throw new VitastorError('ERR_ABORTED', `Interrupted: PG histories may still name OSD ${osds.join(', ')}; ${again}`);
    try {
      const [histories = []] = await readRanges(etcd, [{ prefix: keys.at('pg/history/') }], limits);
      const stale = histories.flatMap((kv) => {
        const value = kv.value === '' ? null : historyWithoutOsds(kv.key, kv.value, gone);
        return value === null ? [] : [{ key: kv.key, value, seen: kv.modRevision }];
      });
      if (stale.length === 0) return;
      let missed = false;
      for (let i = 0; i < stale.length; i += HISTORY_BATCH) {
        const batch = stale.slice(i, i + HISTORY_BATCH);
        const { succeeded } = await etcd.txn(
          {
            compare: batch.map(({ key, seen }) => keyAt(key, seen)),
            success: batch.map(({ key, value }): TxnOp => ({ op: 'put', key, value })),
          },
          limits.timeoutMs,
        );
        missed ||= !succeeded;
      }
      if (missed) await pause(options.clock, options.retryMs, options.signal);
    } catch (error) {
      if (!isVitastorError(error) || !error.retryable || ++silent >= limits.attempts) throw error;
    }
  }
  throw new VitastorError('ERR_CONFLICT', `PG histories still name OSD ${osds.join(', ')}, and change all the time; ${again}`, {
    retryable: true,
  });
}

/** Ends early when the signal comes. */
export function pause(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      cancel();
      signal.removeEventListener('abort', end);
      resolve();
    };
    const cancel = clock.after(signal.aborted ? 0 : delayMs, end);
    signal.addEventListener('abort', end, { once: true });
  });
}
