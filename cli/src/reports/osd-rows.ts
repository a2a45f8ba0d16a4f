// SPDX-License-Identifier: GPL-2.0-or-later
// OSDs and the placement tree as osd-tree and ls-osd show them. Source: tools 2.13.

import {
  DEFAULT_OSD_CONFIG,
  formatCount,
  formatFraction,
  formatLatency,
  formatSize,
  formatSizeCompact,
  placementLevels,
  placementTree,
  ZERO_OP_STAT,
  type ClusterView,
  type JsonObject,
  type JsonValue,
  type OpStat,
  type TreeNode,
} from '@vitastor/core';
import type { Column } from '../table.js';

const OPS = [['primary_read', 'READ'], ['primary_write', 'WRITE'], ['primary_delete', 'DEL']] as const;
const FACTS = ['UP', 'SIZE', 'USED%', 'TAGS', 'WEIGHT', 'BLOCK', 'BITMAP', 'IMM', 'NOOUT'];

export interface OsdRow {
  node: TreeNode;
  depth: number;
  /** Names of all nodes above, highest first. */
  path: string[];
}

/** Depth first; nodes in natural order of their names, OSDs by number. */
export function osdRows(view: ClusterView): OsdRow[] {
  const nodes = placementTree(view);
  const levels = placementLevels(view);
  const children = new Map<string, TreeNode[]>();
  for (const node of nodes.values()) children.set(node.parent, [...(children.get(node.parent) ?? []), node]);
  const rank = (node: TreeNode): number => levels.get(node.level) ?? 0;
  const rows: OsdRow[] = [];
  const visit = (node: TreeNode, path: string[]): void => {
    rows.push({ node, depth: path.length, path });
    below(node.name, [...path, node.name]);
  };
  const below = (name: string, path: string[]): void => {
    const list = (children.get(name) ?? []).sort(
      (a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name, 'en', { numeric: true }),
    );
    for (const node of list) visit(node, path);
  };
  below('', []);
  return rows;
}

export function osdJson(view: ClusterView, { node }: OsdRow): JsonObject {
  if (node.osd === null) return { type: node.level, name: node.name, parent: node.parent };
  const stats = view.osdStats.get(node.osd);
  const config = view.osdConfig.get(node.osd) ?? DEFAULT_OSD_CONFIG;
  const result: JsonObject = {
    type: 'osd',
    name: node.osd,
    parent: node.parent,
    up: isUp(view, node.osd) ? 'up' : 'down',
    size: stats?.sizeBytes ?? 0,
    free: stats?.freeBytes ?? 0,
    reweight: config.reweight,
    noout: config.noout,
    tags: [...config.tags],
    block: stats?.blockSizeBytes ?? 0,
    bitmap: stats?.bitmapGranularityBytes ?? 0,
    commit: stats?.immediateCommit ?? 'none',
    op_stats: statsJson(stats?.opStats ?? new Map<string, OpStat>()),
  };
  if (stats?.slowOpsPrimary) result['slow_ops_primary'] = stats.slowOpsPrimary;
  if (stats?.slowOpsSecondary) result['slow_ops_secondary'] = stats.slowOpsSecondary;
  return result;
}

function statsJson(stats: ReadonlyMap<string, OpStat>): JsonValue {
  return Object.fromEntries([...stats].map(([op, stat]) => [op, { ...stat }]));
}

export function isUp(view: ClusterView, osd: number): boolean {
  return view.osdStates.get(osd)?.up ?? false;
}

export interface OsdColumns {
  long: boolean;
  /** Nodes indented by depth; else OSDs only, with their path. */
  tree: boolean;
}

export function osdTable(
  view: ClusterView,
  rows: readonly OsdRow[],
  show: OsdColumns,
): { columns: Column[]; cells: string[][] } {
  const titles = [
    ...(show.tree ? ['TYPE', 'NAME'] : ['OSD', 'PARENT']),
    ...FACTS,
    ...(show.long ? OPS.flatMap(([, title]) => [title, 'IOPS', 'LAT']) : []),
  ];
  const listed = show.tree
    ? rows
    : rows.filter(({ node }) => node.osd !== null).sort((a, b) => (a.node.osd ?? 0) - (b.node.osd ?? 0));
  const cells = listed.map(({ node, depth, path }) => [
    ...(show.tree ? ['  '.repeat(depth) + node.level, node.name] : [node.name, path.join('/')]),
    ...(node.osd === null ? [] : osdCells(view, node.osd, show.long)),
  ]);
  return { columns: titles.map((title) => ({ title })), cells };
}

function osdCells(view: ClusterView, osd: number, long: boolean): string[] {
  const stats = view.osdStats.get(osd);
  const config = view.osdConfig.get(osd) ?? DEFAULT_OSD_CONFIG;
  const size = Number(stats?.sizeBytes ?? 0n);
  const free = Number(stats?.freeBytes ?? 0n);
  return [
    isUp(view, osd) ? 'up' : 'down',
    formatSize(size).replace(' ', ''),
    `${formatFraction(size > 0 ? (100 * (size - free)) / size : 0)} %`,
    config.tags.join(','),
    formatFraction(config.reweight),
    stats?.blockSizeBytes ? formatSizeCompact(stats.blockSizeBytes) : '-',
    stats?.bitmapGranularityBytes ? formatSizeCompact(stats.bitmapGranularityBytes) : '-',
    stats?.immediateCommit ?? '-',
    config.noout ? 'noout' : '-',
    ...(long ? OPS.flatMap(([op]) => opCells(stats?.opStats.get(op) ?? ZERO_OP_STAT)) : []),
  ];
}

function opCells(stat: OpStat): string[] {
  return [`${formatSize(stat.bps)}/s`, formatCount(stat.iops), formatLatency(stat.lat)];
}
