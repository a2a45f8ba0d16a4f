// SPDX-License-Identifier: GPL-2.0-or-later
// The placement tree as people see it: hosts, racks and OSDs, from /config/node_placement and the OSDs' own reports.

import type { ClusterView } from './cluster-view.js';
import { parseInteger } from './config/values.js';

export interface TreeNode {
  name: string;
  level: string;
  /** '' = root. */
  parent: string;
  /** null: not an OSD. */
  osd: number | null;
}

/** Level → rank, smaller = higher. host and osd are always there. */
export function placementLevels(view: ClusterView): Map<string, number> {
  const levels = new Map<string, number>([['host', 100], ['osd', 101]]);
  const configured = view.global['placement_levels'];
  if (typeof configured === 'object' && configured !== null && !Array.isArray(configured)) {
    for (const [level, rank] of Object.entries(configured)) {
      const n = parseInteger(rank);
      if (n !== null) levels.set(level, n);
    }
  }
  return levels;
}

/**
 * All nodes by name. OSDs are those that have reported or are up; a parent that would make a loop, or is no higher,
 * counts as root.
 */
export function placementTree(view: ClusterView): Map<string, TreeNode> {
  const levels = placementLevels(view);
  const nodes = new Map<string, TreeNode>();
  for (const [name, { level, parent }] of view.nodePlacement) {
    if (level !== 'osd' && (level === '' || levels.has(level)))
      nodes.set(name, { name, level: level || 'host', parent, osd: null });
  }
  for (const osd of new Set([...view.osdStats.keys(), ...view.osdStates.keys()])) {
    const host = view.osdStats.get(osd)?.host || view.osdStates.get(osd)?.host || '';
    const placed = view.nodePlacement.get(String(osd))?.parent ?? '';
    if (host !== '' && !nodes.has(host)) nodes.set(host, { name: host, level: 'host', parent: '', osd: null });
    nodes.set(String(osd), {
      name: String(osd),
      level: 'osd',
      parent: placed !== '' && nodes.has(placed) ? placed : host,
      osd,
    });
  }
  for (const node of nodes.values()) {
    const parent = nodes.get(node.parent);
    if (!parent || (levels.get(parent.level) ?? 0) >= (levels.get(node.level) ?? 0)) node.parent = '';
  }
  return nodes;
}

/** The node itself or its nearest ancestor of that level; null: there is none. */
export function ancestorOfLevel(nodes: ReadonlyMap<string, TreeNode>, name: string, level: string): string | null {
  for (let node = nodes.get(name); node; node = nodes.get(node.parent)) if (node.level === level) return node.name;
  return null;
}

export function isBelow(nodes: ReadonlyMap<string, TreeNode>, name: string, root: string): boolean {
  for (let node = nodes.get(name); node; node = nodes.get(node.parent)) if (node.name === root) return true;
  return false;
}
