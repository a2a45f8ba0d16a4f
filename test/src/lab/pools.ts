// SPDX-License-Identifier: GPL-2.0-or-later
// How many PGs of each pool are in which state, straight from etcd.

import type { EtcdHttp } from './etcd-http.js';

/** PG states of one pool: wanted number, and how many report which state. */
export interface PoolState {
  id: string;
  name: string;
  pgCount: number;
  active: number;
  states: Map<string, number>;
}

/** The object in `text`, {} where there is none. */
export function parse(text: string | undefined): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text ?? '{}');
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

export async function readPools(etcd: EtcdHttp, prefix: string): Promise<PoolState[]> {
  const pools = parse(await etcd.get(`${prefix}/config/pools`));
  const states = await etcd.prefix(`${prefix}/pg/state/`);
  return Object.entries(pools).map(([id, value]) => {
    const pool = parse(JSON.stringify(value));
    const result: PoolState = { id, name: String(pool['name'] ?? ''), pgCount: Number(pool['pg_count'] ?? 0), active: 0, states: new Map() };
    for (const [key, text] of states) {
      if (!key.startsWith(`${prefix}/pg/state/${id}/`)) continue;
      const state = parse(text)['state'];
      const words = Array.isArray(state) ? state.map(String) : ['unreadable'];
      result.states.set(words.join('+'), (result.states.get(words.join('+')) ?? 0) + 1);
      if (words.includes('active')) result.active++;
    }
    return result;
  });
}
