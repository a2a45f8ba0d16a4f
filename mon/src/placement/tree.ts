// SPDX-License-Identifier: GPL-2.0-or-later
// The placement tree: OSDs, hosts and whatever levels the administrator added, seen from the
// leaves. Each OSD carries its chain of ancestors; nodes without OSDs under them therefore do not
// exist. Source: etcd schema 8.5, 9.1.

import type { ImmediateCommit, PlacementNode, PoolConfig } from '@vitastor/core';

/** What placement knows about one OSD. */
export interface TreeOsd {
  num: number;
  /** reweight × size in TiB; above 0. */
  weight: number;
  tags: readonly string[];
  /** Host it reports; '' = none. */
  host: string;
  /** 0 and null: not reported, suits every pool. */
  blockSizeBytes: number;
  bitmapGranularityBytes: number;
  immediateCommit: ImmediateCommit | null;
}

/** One node on the way from an OSD to the root. */
export interface Step {
  node: string;
  level: string;
  levelNumber: number;
}

export interface ChainedOsd extends TreeOsd {
  /** From the OSD itself (first) towards the root; level numbers fall strictly. */
  chain: readonly Step[];
}

export type Levels = ReadonlyMap<string, number>;

export const HOST_LEVEL = 'host';
export const OSD_LEVEL = 'osd';

/** The configured levels; `host` = 100 and `osd` = 101 where they are missing. */
export function withDefaultLevels(levels: Levels): Map<string, number> {
  return new Map([[HOST_LEVEL, 100], [OSD_LEVEL, 101], ...levels]);
}

/**
 * All OSDs with their chains, by number. A parent whose level is not above its child's is ignored:
 * the child hangs at the root.
 */
export function buildTree(
  osds: readonly TreeOsd[],
  nodes: ReadonlyMap<string, PlacementNode>,
  levels: Levels,
): ChainedOsd[] {
  const hosts = new Set(osds.map((osd) => osd.host).filter((host) => host !== ''));
  const levelOf = (node: string): string | undefined => {
    const level = nodes.get(node)?.level || (hosts.has(node) ? HOST_LEVEL : '');
    return levels.has(level) ? level : undefined;
  };
  return [...osds]
    .sort((a, b) => a.num - b.num)
    .map((osd) => {
      const chain: Step[] = [
        { node: String(osd.num), level: OSD_LEVEL, levelNumber: levels.get(OSD_LEVEL) ?? 101 },
      ];
      let parent = nodes.get(String(osd.num))?.parent || osd.host;
      for (let below = chain[0]; below !== undefined && parent !== '';) {
        const level = levelOf(parent);
        const levelNumber = level === undefined ? undefined : levels.get(level);
        if (level === undefined || levelNumber === undefined || levelNumber >= below.levelNumber)
          break;
        below = { node: parent, level, levelNumber };
        chain.push(below);
        parent = nodes.get(parent)?.parent ?? '';
      }
      return { ...osd, chain };
    });
}

const COMMIT_STRENGTH: Readonly<Record<ImmediateCommit, number>> = { none: 0, small: 1, all: 2 };

/** Why the OSD may not hold data of the pool; null: it may. */
export function misfit(osd: ChainedOsd, pool: PoolConfig): string | null {
  if (osd.weight <= 0) return 'weight 0';
  if (pool.rootNode !== '' && !osd.chain.some((step) => step.node === pool.rootNode))
    return `not under root_node ${pool.rootNode}`;
  const missing = pool.osdTags.find((tag) => !osd.tags.includes(tag));
  if (missing !== undefined) return `no tag ${missing}`;
  if (osd.blockSizeBytes !== 0 && osd.blockSizeBytes !== pool.blockSizeBytes)
    return `block_size ${osd.blockSizeBytes} instead of ${pool.blockSizeBytes}`;
  if (
    osd.bitmapGranularityBytes !== 0 &&
    osd.bitmapGranularityBytes !== pool.bitmapGranularityBytes
  )
    return `bitmap_granularity ${osd.bitmapGranularityBytes} instead of ${pool.bitmapGranularityBytes}`;
  if (
    osd.immediateCommit !== null &&
    COMMIT_STRENGTH[osd.immediateCommit] < COMMIT_STRENGTH[pool.immediateCommit]
  )
    return `immediate_commit ${osd.immediateCommit}, weaker than ${pool.immediateCommit}`;
  return null;
}

/** The OSDs that may hold data of the pool. */
export function filterTree(osds: readonly ChainedOsd[], pool: PoolConfig): ChainedOsd[] {
  return osds.filter((osd) => misfit(osd, pool) === null);
}

/** For the log: how many OSDs do not suit the pool, by reason. '' = all suit. */
export function misfits(osds: readonly ChainedOsd[], pool: PoolConfig): string {
  const counts = new Map<string, number>();
  for (const osd of osds) {
    const reason = misfit(osd, pool);
    if (reason !== null) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
  return [...counts].map(([reason, n]) => `${n} OSD${n === 1 ? '' : 's'}: ${reason}`).join('; ');
}
