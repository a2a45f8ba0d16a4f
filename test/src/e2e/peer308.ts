// SPDX-License-Identifier: GPL-2.0-or-later
// Our OSD and our client against the strict scripted peer that talks as 3.0.8 does. No monitor: keys are put into etcd by hand.

import assert from 'node:assert/strict';
import { type Lab, type LabOptions, until } from '../lab/index.js';
import {
  decodeTriples, ERR, Journal, type Message, NEWEST, OP, PeerOpener, type PeerOsd, readSession, recordingsFolder, replayClient, replaySecondary,
  sessionNames, type Triple,
} from '../peer308/index.js';
import { erasureCodedPeers } from './peer308-ec.js';
import { BLOCK, bytes, clock, GRANULE, INODE, insist, pgState, POOL, portOf, putPool, registerPeer, startPeer, waitPg } from './peer308-rig.js';
import type { Story } from './scenario.js';

/** wire-protocol 8 and 4: every reply of our OSD to a raw client, good and bad requests. */
const clientOfOurs: Story = {
  name: 'peer308-client',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make();
    const journal = new Journal();
    await lab.startEtcd();
    await lab.startOsd(1);
    await putPool(lab, [{ osdSet: [1], primary: 1 }, { osdSet: [1], primary: 1 }]);
    await waitPg(lab, 1, 'active');
    await waitPg(lab, 2, 'active');
    await lab.etcd.put(`${lab.prefix}/config/inode/${POOL}/1`, JSON.stringify({ name: 'img', size: 1 << 30 }));
    const port = await portOf(lab, 1);
    const client = await PeerOpener.open({ clock, journal, port, wanted: 1 });
    try {
      const empty = await client.read(INODE, 0, BLOCK);
      assert.deepEqual([empty.retval, empty.field('version')], [BigInt(BLOCK), 0n]);
      assert.ok(empty.payload.equals(Buffer.alloc(4 + BLOCK)), 'a missing object reads as zeroes');

      const first = await client.write(INODE, GRANULE, bytes(1, GRANULE));
      assert.deepEqual([first.retval, first.field('version')], [4096n, 1n]);
      const back = await client.read(INODE, 0, 2 * GRANULE);
      assert.equal(back.field('version'), 1n);
      assert.ok(back.payload.equals(Buffer.concat([Buffer.from([2, 0, 0, 0]), bytes(0, GRANULE), bytes(1, GRANULE)])));
      const bitmapOnly = await client.read(INODE, 0, 0);
      assert.deepEqual([bitmapOnly.retval, bitmapOnly.payload.toString('hex')], [0n, '02000000']);

      const refused = await client.write(INODE, 0, bytes(9, GRANULE), 1n);
      assert.deepEqual([refused.retval, refused.field('version')], [ERR.EINTR, 1n]);
      const second = await client.write(INODE, 0, bytes(2, GRANULE), 2n);
      assert.deepEqual([second.retval, second.field('version')], [4096n, 2n]);
      const created = await client.write(INODE, 2 * BLOCK, bytes(3, BLOCK), 1n);
      assert.deepEqual([created.retval, created.field('version')], [BigInt(BLOCK), 1n]);

      // Many at once: all are served, versions of one object count up without a gap.
      const replies = await Promise.all(Array.from({ length: 64 }, (_, i) => client.write(INODE, BLOCK + (i % 32) * GRANULE, bytes(i, GRANULE))));
      assert.ok(replies.every((reply) => reply.retval === 4096n));
      assert.deepEqual(replies.map((reply) => Number(reply.field('version'))).sort((a, b) => a - b), Array.from({ length: 64 }, (_, i) => i + 1));

      for (const [what, reply] of [
        ['misaligned offset', await client.read(INODE, 512, GRANULE)],
        ['misaligned length', await client.link.request(OP.WRITE, { inode: INODE, len: 512n }, bytes(1, 512))],
        ['across the object', await client.read(INODE, BLOCK - GRANULE, 2 * GRANULE)],
        ['over 64 MiB', await client.link.request(OP.READ, { inode: INODE, len: (64n << 20n) + 4096n }, undefined, { bitmapBytes: 4 })],
        ['opcode 0', await client.link.request(0)],
        ['opcode 8', await client.link.request(8)],
        ['opcode 20', await client.link.request(20)],
        ['lock of a client', await client.lock(POOL, 1, 2n)],
        ['list_pg above pg_count', await client.list(POOL, 3, 2, BigInt(BLOCK))],
        ['pg_count 0', await client.list(POOL, 1, 0, BigInt(BLOCK))],
      ] as const)
        assert.equal(reply.retval, ERR.EINVAL, what);
      assert.equal((await client.list(POOL, 1, 3, BigInt(BLOCK))).retval, ERR.EAGAIN, 'another pg_count');
      assert.equal((await client.read((77n << 48n) | 1n, 0, GRANULE)).retval, ERR.EPIPE, 'unknown pool');
      assert.equal((await client.read(INODE, 0, GRANULE, 999999n)).retval, ERR.EPIPE, 'another meta_revision');

      const listed = await client.primaryList(INODE, 1);
      assert.deepEqual([listed.retval, listed.field('stable_count'), listed.field('flags')], [2n, 2n, 1n]);
      assert.deepEqual(decodeTriples(listed.payload), [0n, BigInt(2 * BLOCK)].map((stripe) => ({ inode: INODE, stripe, version: 0n })));
      const whole = await client.list(POOL, 1, 2, BigInt(BLOCK));
      assert.deepEqual([whole.retval, whole.field('stable_count'), whole.field('flags')], [2n, 2n, 0n]);
      assert.deepEqual(new Set(decodeTriples(whole.payload).map((t) => `${t.stripe}:${t.version}`)), new Set(['0:2', `${2 * BLOCK}:1`]));

      const conflict = await client.delete(INODE, 0, 9n);
      assert.deepEqual([conflict.retval, conflict.casVersion], [ERR.EINTR, 2n]);
      for (let round = 0; round < 2; round++) {
        const deleted = await client.delete(INODE, 0);
        assert.deepEqual([deleted.retval, deleted.field('flags') & 1n], [0n, 1n], 'deleting twice succeeds');
      }
      assert.equal((await client.read(INODE, 0, 0)).field('version'), 0n);
      assert.equal((await client.sync()).retval, 0n);
      assert.equal((await client.ping()).retval, 0n);
      const described = await client.link.request(OP.DESCRIBE, {});
      assert.deepEqual([described.retval, described.field('result_bytes')], [0n, 0n]);
      journal.expectClean();

      client.link.sendRaw(Buffer.alloc(128, 0x47));
      await client.closed();
      const other = await PeerOpener.open({ clock, journal, port, wanted: 1 });
      assert.equal((await other.ping()).retval, 0n);
      other.close();
      journal.expectClean();
    } finally {
      client.close();
    }
  },
};

/** Our OSD leads, the other copy is on a 3.0.8: what reaches it must keep it alive and right. */
const peerAsSecondary: Story = {
  name: 'peer308-secondary',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make();
    const journal = new Journal();
    await lab.startEtcd();
    const peer = await startPeer(lab, journal, 2, { idleMs: 300, replyDelayMs: 1 });
    try {
      await lab.startOsd(1);
      await putPool(lab, [{ osdSet: [1, 2], primary: 1 }]);
      await waitPg(lab, 1, 'active');
      assert.deepEqual(await pgState(lab, 1), ['active']);
      const write = await insist(lab, journal, 1, (client) => client.write(INODE, 0, bytes(1, GRANULE)));
      assert.equal(write.retval, 4096n);
      const client = await PeerOpener.open({ clock, journal, port: await portOf(lab, 1), wanted: 1 });
      try {
        for (let round = 0; round < 4; round++) {
          const writes = Array.from({ length: 40 }, (_, i) => client.write(INODE, (i % 3) * BLOCK + (i % 7) * GRANULE, bytes(round * 40 + i, GRANULE * (1 + (i % 2)))));
          for (const reply of await Promise.all(writes)) assert.ok(reply.retval > 0n, `WRITE answered ${reply.retval}`);
        }
        await client.write(INODE, 5 * BLOCK, bytes(5, BLOCK));
        const cas = await client.read(INODE, 0, 0);
        const set = await client.write(INODE, 0, bytes(77, GRANULE), cas.field('version') + 1n);
        assert.equal(set.retval, 4096n);
        assert.equal((await client.delete(INODE, 5 * BLOCK)).retval, 0n);
        for (const index of [0, 1, 2]) {
          const stripe = BigInt(index * BLOCK);
          const ours = await client.read(INODE, index * BLOCK, BLOCK);
          const theirs = peer.store.find(INODE, stripe, NEWEST);
          assert.ok(theirs, `object ${index} is missing on the peer`);
          assert.equal(theirs.version, ours.field('version'), `version of object ${index}`);
          assert.ok(Buffer.concat([theirs.bitmap, theirs.data]).equals(ours.payload), `content of object ${index}`);
        }
        assert.equal(peer.store.find(INODE, BigInt(5 * BLOCK), NEWEST), undefined);
        // The acceptor pings too, because the opener is an OSD.
        await until('our OSD answers PING', () => peer.connections.some(({ osd, pongs }) => osd === 1 && pongs >= 2) || undefined, { timeoutMs: 20_000 });
        assert.equal(peer.connections.filter(({ osd }) => osd === 1).length, 1, 'one connection from our OSD');

        // The peer dies: the PG goes on alone, and with its state key gone the PG is active again.
        await peer.stop();
        await lab.etcd.delete(`${lab.prefix}/osd/state/2`);
      } finally {
        client.close();
      }
      const alone = await insist(lab, journal, 1, (again) => again.write(INODE, 0, bytes(88, GRANULE)));
      assert.equal(alone.retval, 4096n);
      const states = await until('the PG is degraded', async () => {
        const state = await pgState(lab, 1);
        return state.includes('degraded') && state.includes('active') ? state : undefined;
      }, { timeoutMs: 30_000 });
      assert.ok(states.includes('left_on_dead'));
      assert.equal(peer.aborted, undefined, peer.aborted);
      journal.expectClean();
    } finally {
      await peer.stop();
    }
  },
};

/** A 3.0.8 leads, our OSD holds the other copy: it answers as specified, and survives what would kill a 3.0.8. */
const peerAsPrimary: Story = {
  name: 'peer308-primary',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make();
    const journal = new Journal();
    await lab.startEtcd();
    await lab.startOsd(1);
    await putPool(lab, [{ osdSet: [2, 1], primary: 2 }]);
    const peer = await startPeer(lab, journal, 2);
    const port = await portOf(lab, 1);
    const primary = await PeerOpener.open({ clock, journal, port, wanted: 1, osd: 2, immediateCommit: lab.immediateCommit });
    const third = await PeerOpener.open({ clock, journal, port, wanted: 1, osd: 3, immediateCommit: lab.immediateCommit });
    try {
      const bitmap = Buffer.from([1, 0, 0, 0]);
      const put = (version: bigint, stripe = 0n, from = primary): Promise<Message> =>
        from.secWrite({ inode: INODE, stripe, version }, bytes(Number(version), GRANULE), bitmap);
      const t = (version: bigint, stripe = 0n): Triple => ({ inode: INODE, stripe, version });
      await until('the pool is known to our OSD', async () => (await primary.list(POOL, 1, 1, BigInt(BLOCK))).retval === 0n || undefined, { timeoutMs: 20_000 });

      const written = await put(3n);
      assert.deepEqual([written.retval, written.field('version')], [4096n, 3n]);
      for (const version of [3n, 2n]) assert.equal((await put(version)).retval, ERR.EEXIST, `hazard 1, version ${version} over 3`);
      assert.equal((await put(0x20007n)).retval, 4096n);
      const bitmapChange = await primary.secWrite({ inode: INODE, stripe: 0n, version: 0x20008n }, Buffer.alloc(0), Buffer.from([0xff, 1, 0, 0x80]));
      assert.deepEqual([bitmapChange.retval, bitmapChange.field('version')], [0n, 0x20008n], 'zero-length write');
      const read = await primary.secRead(INODE, 0n, 0, 2 * GRANULE);
      assert.deepEqual([read.retval, read.field('version'), read.field('attr_len')], [8192n, 0x20008n, 4n]);
      assert.ok(read.payload.equals(Buffer.concat([Buffer.from([0xff, 1, 0, 0x80]), bytes(7, GRANULE), bytes(0, GRANULE)])));
      assert.equal((await primary.secRead(INODE, 0n, 0, GRANULE, 2n)).retval, ERR.ENOENT);
      assert.equal((await primary.secRead(INODE, 7n * BigInt(BLOCK), 0, GRANULE)).retval, ERR.ENOENT);
      assert.equal((await primary.secRead(INODE, 0n, BLOCK - GRANULE, 2 * GRANULE)).retval, ERR.EINVAL);
      assert.equal((await primary.secRead(INODE, 0n, 100, GRANULE)).retval, ERR.EINVAL);

      // Hazard 2 and its neighbours.
      assert.equal((await primary.stabilize([t(0x20008n)])).retval, 0n, 'stable already');
      assert.equal((await primary.stabilize([t(0x90000n)])).retval, ERR.ENOENT, 'a version that is not there');
      assert.equal((await primary.stabilize([t(1n, BigInt(BLOCK))])).retval, ERR.ENOENT, 'an object that is not there');
      assert.equal((await primary.rollback([t(0x20008n)])).retval, 0n);
      assert.equal((await primary.rollback([t(1n)])).retval, ERR.EBUSY);
      assert.equal((await primary.rollback([t(0n, BigInt(BLOCK))])).retval, 0n, 'unknown object: receiver answers 0');

      const list = await primary.list(POOL, 1, 1, BigInt(BLOCK));
      assert.deepEqual([list.retval, list.field('stable_count')], [1n, 1n]);
      assert.deepEqual(decodeTriples(list.payload), [t(0x20008n)]);
      const maps = await primary.readBitmaps([t(NEWEST), t(NEWEST, BigInt(BLOCK))]);
      assert.equal(maps.retval, 24n);
      assert.equal(maps.payload.toString('hex'), '0800020000000000ff010080000000000000000000000000');

      // Locks.
      assert.equal((await primary.lock(POOL, 1, 2n)).retval, 0n);
      const busy = await third.lock(POOL, 1, 2n);
      assert.deepEqual([busy.retval, busy.field('holder')], [ERR.EBUSY, 2n]);
      assert.equal((await third.unlock(POOL, 1)).retval, 0n, 'unlocking what another holds changes nothing');
      assert.equal((await primary.lock(POOL, 1, 8n)).retval, 0n);
      assert.equal((await primary.lock(POOL, 9, 2n)).retval, ERR.ENOENT);
      assert.equal((await primary.lock(99, 1, 2n)).retval, ERR.ENOENT);
      assert.equal((await primary.unlock(POOL, 1)).retval, 0n);

      const deleted = await primary.secDelete(INODE, 0n, 0x20009n);
      assert.deepEqual([deleted.retval, deleted.field('version')], [0n, 0x20009n]);
      assert.equal((await primary.secDelete(INODE, 0n, 0x2000an)).retval, 0n, 'deleting twice');
      assert.equal((await primary.list(POOL, 1, 1, BigInt(BLOCK))).retval, 0n);
      assert.equal((await primary.secSync()).retval, 0n);
      // A deleted object starts again at any version above the tombstone's; 3.0.8 keeps none and may start at 1.
      assert.ok([4096n, ERR.EEXIST].includes((await put(0x20010n)).retval));

      // Many at once, different objects.
      const replies = await Promise.all(Array.from({ length: 100 }, (_, i) => put(5n, BigInt((i + 10) * BLOCK))));
      assert.ok(replies.every((reply) => reply.retval === 4096n));
      journal.expectClean();
      primary.link.sendRaw(Buffer.alloc(256, 1));
      await primary.closed();
      assert.equal((await third.ping()).retval, 0n);
    } finally {
      primary.close();
      third.close();
      await peer.stop();
    }
  },
};

/** Images of the recorded cluster B: 2 and 3 are snapshots, 4 the image above them, 5 a clone of 3. */
const RECORDED_PARENTS: ReadonlyMap<number, number> = new Map([[3, 2], [4, 3], [5, 3]]);

/** Data and parity chunks; a replicated pool has k = 1. */
interface Shape {
  readonly k: number;
  readonly m: number;
}

/** Pools of the recorded clusters in the order of their ids; null: more than one PG, so the session does not suit. */
function recordedPools(session: string): readonly Shape[] | null {
  if (session.endsWith('pg-count-change')) return null;
  if (/^(all|none)-ec31/.test(session)) return [{ k: 3, m: 1 }];
  if (/^ec-\d/.test(session)) return [{ k: 2, m: 2 }, { k: 3, m: 2 }, { k: 4, m: 2 }, { k: 3, m: 3 }];
  return [{ k: 1, m: 1 }, { k: 2, m: 1 }];
}

/** These pools, each of one PG on OSDs from `firstOsd` on, which also leads it. */
async function putRecordedPools(lab: Lab, pools: readonly Shape[], firstOsd: number, code: 'ec' | 'xor' = 'ec'): Promise<void> {
  const config = Object.fromEntries(pools.map(({ k, m }, i) => [String(i + 1), {
    name: `p${i + 1}`, scheme: k === 1 ? 'replicated' : code, pg_size: k + m, pg_minsize: k, pg_count: 1,
    ...(k === 1 ? {} : { parity_chunks: m }), failure_domain: 'osd', immediate_commit: lab.immediateCommit,
  }]));
  await lab.etcd.put(`${lab.prefix}/config/pools`, JSON.stringify(config));
  const osds = (count: number): number[] => Array.from({ length: count }, (_, j) => firstOsd + j);
  const items = Object.fromEntries(pools.map(({ k, m }, i) => [String(i + 1), { 1: { osd_set: osds(k + m), primary: firstOsd } }]));
  await lab.etcd.put(`${lab.prefix}/pg/config`, JSON.stringify({ items, hash: 'byhand' }));
}

/** Sessions that follow each other on one cluster. */
interface ClientSessions {
  readonly immediateCommit: NonNullable<LabOptions['immediateCommit']>;
  readonly code?: 'xor';
  readonly names: readonly string[];
}

const CLIENT_SESSIONS: readonly ClientSessions[] = [
  {
    immediateCommit: 'all',
    names: [
      'rep-write-read', 'rep-cas', 'rep-rm-data', 'ec-write-read', 'ec-cas', 'rep-chained-reads', 'rep-snapshot-rm', 'ec-chained-reads', 'ec-snapshot-rm',
      'rep-kv-cas',
    ],
  },
  { immediateCommit: 'none', names: ['none-rep-sync', 'none-ec-sync', 'none-ec-unsynced', 'none-rm'] },
  { immediateCommit: 'all', code: 'xor', names: ['xor-write-read'] },
  {
    immediateCommit: 'all',
    names: ['2+2', '3+2', '4+2', '3+3'].map((scheme) => `ec-${scheme}-full-and-partial-write`),
  },
];

/** What recorded clients of 3.0.8 asked, replicated and EC, asked of our OSDs. */
const replayedClients: Story = {
  name: 'peer308-replay-client',
  short: true,
  run: async ({ lab: make, say }) => {
    const folder = recordingsFolder();
    if (folder === undefined) {
      say('left out: no recordings of 3.0.8 (VITASTOR_FIXTURES names their folder)');
      return;
    }
    for (const { immediateCommit, code, names } of CLIENT_SESSIONS) {
      const pools = recordedPools(names[0] ?? '') ?? [];
      const lab = await make({ immediateCommit });
      const journal = new Journal();
      await lab.startEtcd();
      for (let osd = 1; osd <= Math.max(...pools.map(({ k, m }) => k + m)); osd++) await lab.startOsd(osd);
      await putRecordedPools(lab, pools, 1, code);
      const inodes = pools.flatMap((_, i) => [1, 2, 3, 4, 5].map((n) => ({ pool: i + 1, n, full: (BigInt(i + 1) << 48n) | BigInt(n) })));
      const revisions = new Map<bigint, bigint>();
      for (const { pool, n, full } of inodes) {
        const parent = RECORDED_PARENTS.get(n);
        const inode = { name: `img${pool}-${n}`, size: 1 << 30, ...(parent === undefined ? {} : { parent_id: parent }) };
        const key = `${lab.prefix}/config/inode/${pool}/${n}`;
        await lab.etcd.put(key, JSON.stringify(inode));
        revisions.set(full, BigInt((await lab.etcd.origin(key))?.createRevision ?? 0));
      }
      for (const i of pools.keys()) await waitPg(lab, 1, 'active', i + 1);
      // The last inode's key has arrived at the OSD when a chained read of it is answered.
      const last = inodes.at(-1)?.full ?? 0n;
      const dataChunks = (pool: number): number | undefined => pools[pool - 1]?.k;
      await insist(lab, journal, 1, (client) => client.read(last, 0, 0, revisions.get(last)), dataChunks(pools.length));
      const client = await PeerOpener.open({ clock, journal, port: await portOf(lab, 1), wanted: 1 });
      try {
        for (const name of names) {
          const result = await replayClient(readSession(folder, name), client, { dataChunks, inodeRevision: (inode) => revisions.get(inode) ?? 0n });
          say(`${name}: ${result.compared} replies compared, ${result.leftOut} left out, ${result.differences.length} differ`);
          assert.deepEqual(result.differences, [], name);
          assert.ok(result.compared > 0, `${name}: nothing to compare`);
        }
        journal.expectClean();
      } finally {
        client.close();
      }
    }
  },
};

/** Empties our OSD for the next session. */
async function deleteAll(opener: PeerOpener, pools: readonly Shape[]): Promise<void> {
  for (const [i, { k }] of pools.entries()) {
    // -EAGAIN: our OSD has not loaded the pools yet.
    const list = await until(`our OSD lists pool ${i + 1}`, async () => {
      const reply = await opener.list(i + 1, 1, 1, BigInt(k * BLOCK));
      return reply.retval === ERR.EAGAIN ? undefined : reply;
    }, { timeoutMs: 20_000, everyMs: 20 });
    assert.ok(list.retval >= 0n, `listing pool ${i + 1} answered ${list.retval}`);
    for (const { inode, stripe, version } of decodeTriples(list.payload))
      assert.equal((await opener.secDelete(inode, stripe, version + 1n)).retval, 0n);
    assert.equal((await opener.list(i + 1, 1, 1, BigInt(k * BLOCK))).retval, 0n, 'empty after deleting');
  }
}

/** What recorded primaries of 3.0.8 asked their secondaries, asked of one of ours, replicated and EC. */
const replayedSecondaries: Story = {
  name: 'peer308-replay-secondary',
  short: true,
  run: async ({ lab: make, say }) => {
    const folder = recordingsFolder();
    if (folder === undefined) {
      say('left out: no recordings of 3.0.8 (VITASTOR_FIXTURES names their folder)');
      return;
    }
    let [compared, leftOut, sessions] = [0, 0, 0];
    const differences: string[] = [];
    const all = sessionNames(folder).map((name) => ({ name, pools: recordedPools(name) }));
    const shapes = new Map(all.flatMap(({ pools }) => (pools ? [[JSON.stringify(pools), pools] as const] : [])));
    for (const [shape, pools] of shapes) {
      const names = all.filter((session) => JSON.stringify(session.pools) === shape).map(({ name }) => name);
      const lab = await make();
      await lab.startEtcd();
      // Led by an OSD that does not exist: ours stays a secondary.
      await putRecordedPools(lab, pools, 101);
      await lab.startOsd(1, { enable_pg_locks: false });
      const port = await portOf(lab, 1);
      for (const name of names) {
        const session = readSession(folder, name);
        const links = new Set(session.filter((m) => m.kind === 'request' && /^osd/.test(m.from)).map((m) => `${m.from} ${m.to}`));
        for (const link of [...links].sort()) {
          const [from = '', to = ''] = link.split(' ');
          const journal = new Journal();
          const opener = await PeerOpener.open({ clock, journal, port, wanted: 1, osd: Number(from.slice(3)) + 100 });
          try {
            sessions++;
            // Also lists: our OSD takes writes only from the connection that has listed last (safety.md 2).
            await deleteAll(opener, pools);
            const result = await replaySecondary(session, from, to, opener);
            compared += result.compared;
            leftOut += result.leftOut;
            differences.push(...result.differences.map((text) => `${name} ${from}->${to}: ${text}`));
            journal.expectClean();
          } finally {
            opener.close();
          }
        }
      }
    }
    say(`${sessions} pairs of OSDs: ${compared} replies compared, ${leftOut} left out, ${differences.length} differ`);
    assert.deepEqual(differences, []);
    assert.ok(compared > 500);
  },
};

/** A PG state key, as a primary writes it. */
async function putPgState(lab: Lab, pg: number, primary: number): Promise<void> {
  await lab.etcd.put(`${lab.prefix}/pg/state/${POOL}/${pg}`, JSON.stringify({ primary, state: ['active'], peers: [primary] }));
}

/** Our client (fio through libvitastor) on two OSDs of 3.0.8: nothing it sends may make them close, and every byte comes back. */
const clientOnPeers: Story = {
  name: 'peer308-osds',
  short: true,
  run: async ({ lab: make, say }) => {
    for (const immediateCommit of ['all', 'none'] as const) {
      const lab = await make({ immediateCommit });
      const journal = new Journal();
      await lab.startEtcd();
      // Two PGs, each led by another OSD; reads must name the revision that these OSDs know.
      const revisions = new Map<bigint, bigint>();
      const peers: PeerOsd[] = [];
      for (const osd of [1, 2])
        peers.push(
          await startPeer(lab, journal, osd, {
            pools: new Map([[POOL, { scheme: 'replicated', pgCount: 2, pgStripeSize: BigInt(BLOCK) }]]),
            leads: (_, pg) => pg === osd,
            inodeRevision: (inode) => revisions.get(inode),
          }),
        );
      try {
        await putPool(lab, [{ osdSet: [1, 2], primary: 1 }, { osdSet: [2, 1], primary: 2 }]);
        await putPgState(lab, 1, 1);
        await putPgState(lab, 2, 2);
        // Found by name without /index keys.
        await lab.etcd.put(`${lab.prefix}/config/inode/${POOL}/1`, JSON.stringify({ name: 'testimg', size: 64 << 20 }));
        const origin = await lab.etcd.origin(`${lab.prefix}/config/inode/${POOL}/1`);
        revisions.set(INODE, BigInt(origin?.createRevision ?? 0));
        const fio = async (name: string, args: readonly string[]): Promise<void> => {
          const result = await lab.fio([`-name=${name}`, '-image=testimg', '-size=8M', ...args], { timeoutMs: 60_000 });
          assert.equal(result.code, 0, `fio ${name}:\n${result.stdout.slice(-2000)}\n${result.stderr}\n${journal.events.slice(-20).join('\n')}`);
          assert.ok(result.jobs.length > 0 && result.jobs.every((job) => job.error === 0), name);
        };
        const verify = ['-verify=crc32c', '-verify_fatal=1', '-do_verify=1'];
        for (const [depth, bs] of [[1, '4k'], [32, '4k'], [4, '256k']] as const)
          await fio(`depth${depth}`, ['-rw=randwrite', `-bs=${bs}`, `-iodepth=${depth}`, ...(immediateCommit === 'none' ? ['-fsync=16'] : []), ...verify]);
        journal.expectClean();

        // In the middle of it, connections of writers close, and OSDs die with what was not synced and come back.
        let round = 0;
        let calm = Promise.resolve();
        const restart = async (peer: PeerOsd): Promise<void> => {
          await peer.stop();
          await lab.etcd.delete(`${lab.prefix}/osd/state/${peer.osd}`);
          await peer.restart();
          await registerPeer(lab, peer);
        };
        const disturb = setInterval(() => {
          const peer = peers[round % 2];
          if (!peer || ++round > 20) return;
          if (round % 5 !== 0) peer.interruptPg(POOL, peer.osd);
          else calm = calm.then(() => restart(peer));
        }, 150);
        try {
          await fio('disturbed', ['-rw=randwrite', '-bs=4k', '-iodepth=8', '-rate_iops=1000', ...(immediateCommit === 'none' ? ['-fsync=32'] : []), ...verify]);
        } finally {
          clearInterval(disturb);
          await calm;
        }
        journal.expectClean();
        say(`immediate_commit ${immediateCommit}: ${peers.reduce((sum, peer) => sum + peer.seen.length, 0)} requests, disturbed ${Math.min(round, 20)} times`);
        assert.ok(peers.every((peer) => peer.aborted === undefined));
      } finally {
        for (const peer of peers) await peer.stop();
      }
    }
  },
};

export const PEER_STORIES: readonly Story[] = [clientOfOurs, clientOnPeers, peerAsSecondary, erasureCodedPeers, peerAsPrimary, replayedClients, replayedSecondaries];
