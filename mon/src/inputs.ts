// SPDX-License-Identifier: GPL-2.0-or-later
// What a placement run works on, taken from the cluster view: the tree, the pools, their hash, and
// when the next OSD is "out". Source: etcd schema 8.3, 8.5.

import { createHash } from 'node:crypto';
import {
  decodeGlobalConfig,
  decodeNodePlacement,
  decodeRawPools,
  decodeText,
  DEFAULT_OSD_CONFIG,
  type ClusterView,
  type OsdConfig,
  type OsdStats,
  type PgItem,
  type PoolConfig,
} from '@vitastor/core';
import {
  buildTree,
  withDefaultLevels,
  type ChainedOsd,
  type Levels,
  type TreeOsd,
} from './placement/index.js';
import type { MonSettings } from './settings.js';

export const TIB = 2 ** 40;

export interface PlacementInputs {
  tree: ChainedOsd[];
  levels: Levels;
  /** Valid pools by id. */
  pools: ReadonlyMap<number, PoolConfig>;
  /** SHA-1 of all that matters to placement. */
  hash: string;
  /** Milliseconds until the next down OSD leaves the tree; null: none will. */
  nextOutMs: number | null;
  /** At least half of the OSDs that hold data (and two) have timed out: they stay in the tree. */
  massOutage: boolean;
  /**
   * Keys that cannot be read and were never known: PGs that exist must not be moved on that ground.
   */
  unreadable: string[];
}

export function isUp(view: ClusterView, osd: number): boolean {
  return view.osdStates.get(osd)?.up === true;
}

/** May lead PGs now. */
export function canLead(view: ClusterView, osd: number): boolean {
  const state = view.osdStates.get(osd);
  return state?.up === true && state.primaryEnabled;
}

export function osdTags(view: ClusterView, osd: number): readonly string[] {
  return view.osdConfig.get(osd)?.tags ?? [];
}

interface WeightedOsd {
  num: number;
  /** Above 0. */
  weight: number;
  stats: OsdStats;
  config: OsdConfig;
}

function weightedOsds(view: ClusterView): WeightedOsd[] {
  return [...view.osdStats].flatMap(([num, stats]) => {
    const config = view.osdConfig.get(num) ?? DEFAULT_OSD_CONFIG;
    const weight = config.reweight * (Number(stats.sizeBytes ?? 0n) / TIB);
    return weight > 0 ? [{ num, weight, stats, config }] : [];
  });
}

/** Milliseconds until it counts as out; Infinity: up, or never; below 0: it is out. */
function leftMs(
  view: ClusterView,
  osd: WeightedOsd,
  settings: MonSettings,
  wallMs: number,
): number {
  if (isUp(view, osd.num) || osd.config.noout) return Number.POSITIVE_INFINITY;
  return (osd.stats.timeMs ?? 0) + settings.osdOutMs - wallMs;
}

/**
 * wallMs: compared with the time that OSDs put into their reports.
 * suspects: keys that failed to decode at some time; may hold keys that are good again.
 */
export function placementInputs(
  view: ClusterView,
  settings: MonSettings,
  wallMs: number,
  suspects: ReadonlySet<string>,
): PlacementInputs {
  const levels = withDefaultLevels(settings.placementLevels);
  const all = weightedOsds(view);
  const isIn = (osd: WeightedOsd): boolean => leftMs(view, osd, settings, wallMs) >= 0;
  const used = new Set(
    [...(view.pgConfig?.items.values() ?? [])].flatMap((items) => items.flatMap((pg) => pg.osdSet)),
  );
  const inUse = all.filter((osd) => used.has(osd.num));
  const silent = inUse.filter((osd) => !isIn(osd)).length;
  // When half of what holds data is silent, it is the power or the network, not the disks: moving
  // everything to the rest would help nobody. An operator who knows better sets reweight to 0.
  const massOutage = silent >= 2 && silent * 2 >= inUse.length;
  const kept = all.filter((osd) => isIn(osd) || (massOutage && used.has(osd.num)));
  const left = kept.map((osd) => leftMs(view, osd, settings, wallMs)).filter((ms) => ms >= 0);
  const nextOut = Math.min(...left);
  const nextOutMs = Number.isFinite(nextOut) ? nextOut : null;
  const osds = kept.map(({ weight, num, stats, config }): TreeOsd => ({
    num,
    weight,
    tags: config.tags,
    host: stats.host || view.osdStates.get(num)?.host || '',
    blockSizeBytes: stats.blockSizeBytes,
    bitmapGranularityBytes: stats.bitmapGranularityBytes,
    immediateCommit: stats.immediateCommit,
  }));
  const tree = buildTree(osds, view.nodePlacement, levels);
  return {
    tree,
    levels,
    pools: view.pools,
    hash: inputHash(tree, levels, view),
    nextOutMs,
    massOutage,
    unreadable: unreadableInputs(view, suspects),
  };
}

function inputHash(tree: readonly ChainedOsd[], levels: Levels, view: ClusterView): string {
  const pools = [...view.pools.values()]
    .sort((a, b) => a.id - b.id)
    .map((pool) => [
      pool.id,
      pool.scheme,
      pool.pgSize,
      pool.parityChunks,
      pool.pgCount,
      pool.failureDomain,
      [...pool.levelPlacement],
      pool.rawPlacement,
      pool.maxOsdCombinations,
      pool.rootNode,
      pool.osdTags,
      pool.blockSizeBytes,
      pool.bitmapGranularityBytes,
      pool.immediateCommit,
    ]);
  const osds = tree.map((osd) => [
    osd.num,
    osd.weight,
    osd.tags,
    osd.chain.map((step) => [step.level, step.node]),
    osd.blockSizeBytes,
    osd.bitmapGranularityBytes,
    osd.immediateCommit,
  ]);
  const sortedLevels = [...levels].sort(([a], [b]) => (a < b ? -1 : 1));
  // Pools that are named and cannot be read matter too: they come back as a change.
  const text = JSON.stringify({
    osds,
    levels: sortedLevels,
    pools,
    invalid: [...view.invalidPools].sort((a, b) => a - b),
  });
  return createHash('sha1').update(text).digest('hex');
}

function decodes(run: () => void): boolean {
  try {
    run();
    return true;
  } catch {
    return false;
  }
}

/** Only keys of which no good value was ever seen: the view keeps the last good one otherwise. */
function unreadableInputs(view: ClusterView, suspects: ReadonlySet<string>): string[] {
  return [...suspects].filter((key) => {
    const entry = view.entry(key);
    const parsed = view.keys.parse(key);
    switch (entry === undefined ? undefined : parsed?.kind) {
      case 'config/global':
        return (
          Object.keys(view.global).length === 0 &&
          !decodes(() => decodeText(decodeGlobalConfig, entry?.value ?? ''))
        );
      case 'config/node_placement':
        return (
          view.nodePlacement.size === 0 &&
          !decodes(() => decodeNodePlacement(key, entry?.value ?? ''))
        );
      case 'osd/stats':
        return parsed?.kind === 'osd/stats' && !view.osdStats.has(parsed.osd);
      case 'config/osd':
        return parsed?.kind === 'config/osd' && !view.osdConfig.has(parsed.osd);
      default:
        return false;
    }
  });
}

/**
 * Pools that still have PGs and are gone from /config/pools. A missing or unreadable /config/pools
 * deletes nothing.
 */
export function deletedPools(view: ClusterView): number[] {
  const pools = view.entry(view.keys.configPools);
  if (pools === undefined || !decodes(() => decodeRawPools(pools.value))) return [];
  return [...(view.pgConfig?.items.keys() ?? [])].filter(
    (id) => !view.pools.has(id) && !view.invalidPools.has(id),
  );
}

/** The sets to stay close to: those of the last clean moment, else the present ones. */
export function previousPgs(view: ClusterView, pool: number): readonly PgItem[] {
  const clean = view.lastCleanPgs?.get(pool);
  return clean?.length ? clean : (view.pgConfig?.items.get(pool) ?? []);
}
