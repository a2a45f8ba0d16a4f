// SPDX-License-Identifier: GPL-2.0-or-later
// What the stories with the scripted peer stand on: pools and PGs put into etcd by hand, the peer registered as a live OSD, patient clients.

import assert from 'node:assert/strict';
import { SystemClock } from '@vitastor/core';
import { type Lab, until } from '../lab/index.js';
import { ERR, type Journal, type Message, type OsdOptions, PeerOpener, PeerOsd } from '../peer308/index.js';

export const POOL = 1;
export const INODE = (BigInt(POOL) << 48n) | 1n;
export const BLOCK = 131072;
export const GRANULE = 4096;
export const clock = new SystemClock();

interface PgByHand {
  readonly osdSet: readonly number[];
  readonly primary: number;
}

/** A replicated pool with these PGs, as an administrator could write it. */
export async function putPool(lab: Lab, pgs: readonly PgByHand[], extra: Readonly<Record<string, unknown>> = {}): Promise<void> {
  const copies = pgs[0]?.osdSet.length ?? 1;
  const pool = {
    name: 'byhand', scheme: 'replicated', pg_size: copies, pg_minsize: 1, pg_count: pgs.length, failure_domain: 'osd',
    immediate_commit: lab.immediateCommit, ...extra,
  };
  await lab.etcd.put(`${lab.prefix}/config/pools`, JSON.stringify({ [POOL]: pool }));
  const items = Object.fromEntries(pgs.map((pg, i) => [String(i + 1), { osd_set: pg.osdSet, primary: pg.primary }]));
  await lab.etcd.put(`${lab.prefix}/pg/config`, JSON.stringify({ items: { [POOL]: items }, hash: 'byhand' }));
}

/** Registers the scripted OSD as a live one. */
export async function registerPeer(lab: Lab, peer: PeerOsd): Promise<void> {
  const state = { state: 'up', addresses: ['127.0.0.1'], host: `host${peer.osd}`, port: peer.port, primary_enabled: true, blockstore_enabled: true, version: '3.0.8' };
  await lab.etcd.put(`${lab.prefix}/osd/state/${peer.osd}`, JSON.stringify(state));
}

export async function startPeer(lab: Lab, journal: Journal, osd: number, more: Partial<OsdOptions> = {}): Promise<PeerOsd> {
  const peer = await PeerOsd.start({
    osd, clock, journal, immediateCommit: lab.immediateCommit,
    pools: new Map([[POOL, { scheme: 'replicated', pgCount: 1, pgStripeSize: BigInt(BLOCK) }]]),
    ...more,
  });
  await registerPeer(lab, peer);
  return peer;
}

/** Port under which our OSD is up. */
export async function portOf(lab: Lab, osd: number): Promise<number> {
  const state = JSON.parse((await lab.etcd.get(`${lab.prefix}/osd/state/${osd}`)) ?? '{}') as { port?: number };
  assert.ok(state.port, `OSD ${osd} has published no port`);
  return state.port;
}

export async function pgState(lab: Lab, pg: number, pool = POOL): Promise<string[]> {
  const state = JSON.parse((await lab.etcd.get(`${lab.prefix}/pg/state/${pool}/${pg}`)) ?? '{}') as { state?: string[] };
  return state.state ?? [];
}

export async function waitPg(lab: Lab, pg: number, word: string, pool = POOL): Promise<void> {
  await until(`PG ${pool}/${pg} is ${word}`, async () => (await pgState(lab, pg, pool)).includes(word), {
    timeoutMs: 30_000, diagnose: () => lab.daemons().map((child) => child.story()).join('\n'),
  });
}

export function bytes(value: number, length: number): Buffer {
  return Buffer.alloc(length, value);
}

/** A client whose writes to a PG that is just (re)peering are repeated, as clients do. */
export async function insist(
  lab: Lab, journal: Journal, osd: number, work: (client: PeerOpener) => Promise<Message>, dataChunks = 1,
): Promise<Message> {
  let last = 'nothing was tried';
  const found = await until(
    `OSD ${osd} answers`,
    async () => {
      const client = await PeerOpener.open({ clock, journal, port: await portOf(lab, osd), wanted: osd, dataChunks });
      try {
        const reply = await work(client);
        last = `${reply.name} answered ${reply.retval}`;
        return reply.retval === ERR.EPIPE ? undefined : reply;
      } catch (error) {
        last = String(error);
        return undefined;
      } finally {
        client.close();
      }
    },
    { timeoutMs: 30_000, everyMs: 50, diagnose: () => last },
  );
  return found;
}
