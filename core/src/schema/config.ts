// SPDX-License-Identifier: GPL-2.0-or-later
// /config/global, /config/node_placement and /config/osd/N: what an administrator writes. Source: etcd schema 4.1, 4.3,
// 4.4.

import { boolean, json, name, object, problemOf, stringList, type Decoder, type Problem } from '../decode.js';
import { isJsonObject, parseJson, type JsonObject } from '../json.js';

/** Parameter names of the configuration manual; values as written. */
export const decodeGlobalConfig: Decoder<JsonObject> = object((f) => f.raw);

export interface PlacementNode {
  /** Placement level; 'osd' for numeric names. '' = not given (a host by report). */
  level: string;
  /** '' = root. */
  parent: string;
}

/** Node name or OSD number → its place. Entries that are no objects are left out and reported. */
export function decodeNodePlacement(
  key: string,
  text: string,
): { nodes: Map<string, PlacementNode>; problems: Problem[] } {
  const nodes = new Map<string, PlacementNode>();
  const problems: Problem[] = [];
  for (const [node, value] of Object.entries(decodeGlobalConfig(parseJson(text), ''))) {
    try {
      nodes.set(node, placementNode(node)(value, node));
    } catch (error) {
      problems.push(problemOf(key, error));
    }
  }
  return { nodes, problems };
}

const placementNode = (node: string): Decoder<PlacementNode> =>
  object((f) => {
    const level = f.optional('level', name, '');
    return { level: /^\d+$/.test(node) ? 'osd' : level, parent: f.optional('parent', name, '') };
  });

export interface OsdConfig {
  /** 0 … 1: multiplies the size in placement. */
  reweight: number;
  tags: string[];
  /** Never dropped from placement for being down. */
  noout: boolean;
}

export const DEFAULT_OSD_CONFIG: Readonly<OsdConfig> = { reweight: 1, tags: [], noout: false };

export const decodeOsdConfig: Decoder<OsdConfig> = object((f) => {
  const reweight = Number(f.optional('reweight', json, 1));
  return {
    // Out of range or no number counts as 1.
    reweight: reweight >= 0 && reweight <= 1 ? reweight : 1,
    tags: f.optional('tags', stringList(), []),
    noout: f.optional('noout', boolean, false),
  };
});

/**
 * Fields at their default are left out; null: nothing is left, delete the key. `previous` keeps fields we do not know.
 */
export function encodeOsdConfig(config: OsdConfig, previous: JsonObject = {}): JsonObject | null {
  const { reweight: _r, tags: _t, noout: _n, ...others } = previous;
  const result: JsonObject = isJsonObject(others) ? { ...others } : {};
  if (config.reweight !== 1) result['reweight'] = config.reweight;
  if (config.tags.length) result['tags'] = [...config.tags];
  if (config.noout) result['noout'] = true;
  return Object.keys(result).length ? result : null;
}
