// SPDX-License-Identifier: GPL-2.0-or-later
// The scripted peer against itself: both roles, every rule that it holds others to, every place where it closes or dies.

import assert from 'node:assert/strict';
import { createServer, type AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { SystemClock } from '@vitastor/core';
import {
  decodeTriples,
  encodeReply,
  encodeRequest,
  ERR,
  type Fields,
  Journal,
  LinkClosed,
  Message,
  MessageReader,
  OP,
  type OpenerOptions,
  type OsdOptions,
  PeerOpener,
  PeerOsd,
  Refused,
} from '../src/peer308/index.js';

const INODE = (1n << 48n) | 1n;
const EC_INODE = (2n << 48n) | 1n;
const BLOCK = 131072;
const clock = new SystemClock();

interface Scene {
  osd: PeerOsd;
  journal: Journal;
  open(options?: Partial<OpenerOptions>): Promise<PeerOpener>;
}

async function scene(options: Partial<OsdOptions>, work: (s: Scene) => Promise<void>): Promise<void> {
  const journal = new Journal();
  const osd = await PeerOsd.start({
    osd: 1,
    clock,
    journal,
    pools: new Map([
      [1, { scheme: 'replicated', pgCount: 2, pgStripeSize: BigInt(BLOCK) }],
      [2, { scheme: 'ec', pgCount: 1, pgStripeSize: BigInt(2 * BLOCK), dataChunks: 2 }],
      [3, { scheme: 'replicated', pgCount: 1, pgStripeSize: BigInt(BLOCK), localReads: true }],
    ]),
    leads: (pool) => pool === 1,
    ...options,
  });
  const opened: PeerOpener[] = [];
  try {
    await work({
      osd,
      journal,
      open: async (more = {}) => {
        const opener = await PeerOpener.open({ clock, journal, port: osd.port, wanted: 1, ...more });
        opened.push(opener);
        return opener;
      },
    });
  } finally {
    for (const opener of opened) opener.close();
    await osd.stop();
  }
}

function pattern(byte: number, length: number): Buffer {
  return Buffer.alloc(length, byte);
}

describe('peer308: client against OSD', () => {
  it('writes, reads, compares and sets, lists, deletes', () =>
    scene({ leftOnDead: [3] }, async ({ open, journal }) => {
      const client = await open();
      const write = await client.write(INODE, 4096, pattern(1, 4096));
      assert.equal(write.retval, 4096n);
      assert.equal(write.field('version'), 1n);
      const read = await client.read(INODE, 0, 8192);
      assert.deepEqual(read.payload, Buffer.concat([Buffer.from([2, 0, 0, 0]), pattern(0, 4096), pattern(1, 4096)]));
      assert.equal((await client.write(INODE, 0, pattern(2, 4096), 1n)).retval, ERR.EINTR);
      const second = await client.write(INODE, 0, pattern(2, 4096), 2n);
      assert.equal(second.field('version'), 2n);
      const nothing = await client.read(INODE, 5 * BLOCK, 0);
      assert.equal(nothing.retval, 0n);
      assert.equal(nothing.field('version'), 0n);
      assert.deepEqual(nothing.payload, Buffer.alloc(4));
      const list = await client.primaryList(INODE, 1);
      assert.deepEqual(decodeTriples(list.payload), [{ inode: INODE, stripe: 0n, version: 0n }]);
      const conflict = await client.delete(INODE, 0, 9n);
      assert.equal(conflict.retval, ERR.EINTR);
      assert.equal(conflict.casVersion, 2n);
      const deleted = await client.delete(INODE, 0);
      assert.deepEqual([deleted.field('flags'), deleted.field('osd_count'), deleted.field('osds.0')], [3n, 1n, 3n]);
      assert.equal((await client.delete(INODE, 0)).retval, 0n);
      assert.equal((await client.sync()).retval, 0n);
      assert.equal((await client.ping()).retval, 0n);
      journal.expectClean();
    }));

  it('refuses what 3.0.8 refuses, and stays connected', () =>
    scene({}, async ({ open, journal }) => {
      const client = await open();
      assert.equal((await client.read(INODE, 1, 4096)).retval, ERR.EINVAL);
      assert.equal((await client.read(INODE, BLOCK - 4096, 8192)).retval, ERR.EINVAL);
      assert.equal((await client.read((9n << 48n) | 1n, 0, 4096)).retval, ERR.EPIPE);
      assert.equal((await client.read(EC_INODE, 0, 4096)).retval, ERR.EPIPE, 'does not lead that PG');
      assert.equal((await client.read(INODE, 0, 4096, 5n)).retval, ERR.EPIPE, 'unknown revision');
      for (const op of [0, 8, 20]) assert.equal((await client.link.request(op)).retval, ERR.EINVAL);
      assert.equal((await client.lock(1, 1, 2n)).retval, ERR.EINVAL, 'only OSDs lock');
      const { SEC_LIST } = OP;
      const list = (fields: Fields): Promise<Message> =>
        client.link.request(SEC_LIST, { min_inode: 1n << 48n, max_inode: (2n << 48n) - 1n, pg_stripe_size: BigInt(BLOCK), ...fields });
      assert.equal((await list({ list_pg: 3n, pg_count: 2n })).retval, ERR.EINVAL);
      assert.equal((await list({ list_pg: 1n, pg_count: 3n })).retval, ERR.EAGAIN);
      assert.equal((await list({ list_pg: 1n, pg_count: 2n })).retval, 0n);
      journal.expectClean();
    }));

  it('serves without SHOW_CONFIG, and closes on a jump of ids after it', () =>
    scene({}, async ({ open, journal }) => {
      const bare = await open({ withoutHello: true });
      assert.equal((await bare.sync()).retval, 0n);
      const client = await open();
      client.link.sendRaw(encodeRequest(OP.SYNC, 77n));
      await client.closed();
      assert.equal(journal.take()[0]?.hazard, 8);
      assert.equal((await bare.sync()).retval, 0n);
    }));

  it('closes on garbage', () =>
    scene({}, async ({ open, journal, osd }) => {
      const client = await open();
      client.link.sendRaw(Buffer.alloc(200, 0x67));
      await client.closed();
      assert.match(journal.take()[0]?.what ?? '', /magic/);
      assert.equal(osd.aborted, undefined);
    }));

  it('the dirty PG rule closes the writer only; unsynced writes are lost with the process', () =>
    scene({ immediateCommit: 'none' }, async ({ open, osd }) => {
      const [writer, reader] = [await open(), await open()];
      await writer.write(INODE, 0, pattern(1, 4096));
      osd.interruptPg(1, 1);
      await writer.closed();
      assert.equal((await reader.read(INODE, 0, 4096)).field('version'), 1n);
      const again = await open();
      await again.sync();
      await again.write(INODE, BLOCK, pattern(1, 4096));
      await osd.stop();
      assert.equal(osd.store.size, 1);
    }));
});

describe('peer308: OSD against OSD', () => {
  it('stores, lists and stabilises versions', () =>
    scene({ leads: () => false }, async ({ open, journal, osd }) => {
      const primary = await open({ osd: 2 });
      assert.equal(primary.hasLocks, true);
      assert.equal(osd.connections[0]?.osd, 2);
      const bitmap = Buffer.from([1, 0, 0, 0]);
      const stable = await primary.secWrite({ inode: INODE, stripe: 0n, version: 3n }, pattern(1, 4096), bitmap);
      assert.deepEqual([stable.retval, stable.field('version')], [4096n, 3n]);
      await primary.secWrite({ inode: EC_INODE, stripe: 1n, version: 5n, stable: false }, pattern(2, BLOCK), bitmap);
      await primary.secWrite({ inode: EC_INODE, stripe: 1n, version: 6n, stable: false }, pattern(3, 4096), bitmap);
      const t = (version: bigint) => ({ inode: EC_INODE, stripe: 1n, version });
      const before = await primary.list(2, 1, 1, BigInt(2 * BLOCK));
      assert.deepEqual([before.retval, before.field('stable_count')], [2n, 0n]);
      assert.equal((await primary.stabilize([t(5n)])).retval, 0n);
      const after = await primary.list(2, 1, 1, BigInt(2 * BLOCK));
      assert.deepEqual([after.retval, after.field('stable_count')], [2n, 1n]);
      assert.equal((await primary.rollback([t(4n)])).retval, ERR.EBUSY);
      assert.equal((await primary.rollback([t(5n)])).retval, 0n);
      const old = await primary.secRead(EC_INODE, 1n, 0, 4096);
      assert.equal(old.field('version'), 5n);
      assert.deepEqual(old.payload.subarray(4), pattern(2, 4096));
      assert.equal((await primary.secRead(EC_INODE, 1n, 0, 4096, 4n)).retval, ERR.ENOENT);
      const maps = await primary.readBitmaps([t(5n), t(1n)]);
      assert.equal(maps.payload.toString('hex'), `0500000000000000${bitmap.toString('hex')}000000000000000000000000`);
      assert.equal((await primary.secDelete(INODE, 0n, 4n)).retval, 0n);
      assert.equal((await primary.stabilize([{ inode: INODE, stripe: 0n, version: 3n }])).retval, ERR.ENOENT);
      assert.equal((await primary.secSync()).retval, 0n);
      journal.expectClean();
    }));

  it('locks, and lets go when the connection closes', () =>
    scene({ leads: (pool) => pool === 1 }, async ({ open, osd, journal }) => {
      const [two, three] = [await open({ osd: 2 }), await open({ osd: 3 })];
      const inode = (3n << 48n) | 1n;
      const bitmap = Buffer.alloc(4);
      const write = (peer: PeerOpener, version: bigint): Promise<Message> =>
        peer.secWrite({ inode, stripe: 0n, version }, pattern(1, 4096), bitmap);
      assert.equal((await write(two, 1n)).retval, ERR.EPIPE, 'not locked');
      assert.equal((await two.lock(3, 1, 2n)).retval, 0n);
      assert.equal((await write(two, 1n)).retval, 4096n);
      assert.equal((await write(three, 2n)).retval, ERR.EPIPE, 'locked by another');
      const busy = await three.lock(3, 1, 2n);
      assert.deepEqual([busy.retval, busy.field('holder')], [ERR.EBUSY, 2n]);
      const own = await two.lock(1, 1, 2n);
      assert.deepEqual([own.retval, own.field('holder')], [ERR.EBUSY, 1n]);
      assert.equal((await two.lock(3, 9, 2n)).retval, ERR.ENOENT);
      const client = await open();
      assert.equal((await client.read(inode, 0, 4096)).retval, ERR.EPIPE);
      await two.lock(3, 1, 8n);
      assert.equal((await client.read(inode, 0, 4096)).retval, 4096n, 'local read');
      two.close();
      assert.equal((await three.unlock(3, 1)).retval, 0n);
      while (osd.lockState(3, 1)) await new Promise<void>((resolve) => void clock.after(1, resolve));
      assert.equal((await three.lock(3, 1, 2n)).retval, 0n);
      journal.expectClean();
    }));

  const dies: [string, number, (peer: PeerOpener) => void][] = [
    ['a version that is not newer', 1, (p) => void p.secWrite({ inode: INODE, stripe: 0n, version: 3n }, pattern(1, 4096), Buffer.alloc(4)).catch(() => {})],
    ['version 0', 1, (p) => void p.secWrite({ inode: INODE, stripe: 0n, version: 0n }, pattern(1, 4096), Buffer.alloc(4)).catch(() => {})],
    ['stabilising a version that is not there', 2, (p) => void p.stabilize([{ inode: INODE, stripe: 0n, version: 9n }]).catch(() => {})],
    ['SEC_READ_BMP without the lock', 3, (p) => void p.readBitmaps([{ inode: (3n << 48n) | 1n, stripe: 0n, version: 1n }]).catch(() => {})],
    ['a bitmap of the wrong size', 4, (p) => void p.secWrite({ inode: INODE, stripe: 0n, version: 9n }, pattern(1, 4096), Buffer.alloc(8)).catch(() => {})],
  ];
  for (const [what, hazard, provoke] of dies)
    it(`dies from ${what}`, () =>
      scene({ leads: () => false }, async ({ open, osd, journal }) => {
        const primary = await open({ osd: 2 });
        await primary.secWrite({ inode: INODE, stripe: 0n, version: 3n }, pattern(1, 4096), Buffer.alloc(4));
        provoke(primary);
        await primary.closed();
        assert.equal(journal.take()[0]?.hazard, hazard);
        assert.ok(osd.aborted);
        await assert.rejects(open({ osd: 2 }));
      }));

  it('notices two writes of one object at once', () =>
    scene({ leads: () => false, replyDelayMs: 20 }, async ({ open, journal }) => {
      const primary = await open({ osd: 2 });
      await Promise.all(
        [1n, 2n].map((version) => primary.secWrite({ inode: INODE, stripe: 0n, version }, pattern(1, 4096), Buffer.alloc(4))),
      );
      assert.match(journal.take()[0]?.what ?? '', /at once/);
    }));

  it('notices reserved bytes', () =>
    scene({}, async ({ open, journal }) => {
      const client = await open({ withoutHello: true });
      const bytes = encodeRequest(OP.SYNC, 1n);
      bytes[100] = 5;
      client.link.sendRaw(bytes);
      await client.closed(); // its own Link does not know id 1
      assert.match(journal.take()[0]?.what ?? '', /reserved|unknown id/);
    }));

  it('refuses other layouts as an OSD, other numbers as a client', () =>
    scene({ config: { osd_num: 5, block_size: 65536 } }, async ({ open, journal }) => {
      await assert.rejects(open(), Refused);
      await assert.rejects(open({ osd: 2 }), Refused);
      assert.equal(journal.take().length, 1);
    }));

  it('keeps OSD connections alive from both ends, and gives up on silence', () =>
    scene({ idleMs: 10, pingTimeoutMs: 2000 }, async ({ open, osd, journal }) => {
      const primary = await open({ osd: 2, idleMs: 15, pingTimeoutMs: 2000 });
      while (osd.seen.filter((name) => name === 'PING').length < 2)
        await new Promise<void>((resolve) => void clock.after(5, resolve));
      assert.equal(primary.link.closed, false);
      journal.expectClean();
    }));
});

/** A server that answers every request with what `answer` says. */
async function withRogue(answer: (request: Message) => Buffer | undefined, work: (port: number) => Promise<void>): Promise<void> {
  const server = createServer((socket) => {
    const reader = new MessageReader();
    socket.on('data', (chunk: Buffer) => {
      for (const request of reader.push(chunk)) {
        if (request.kind !== 'request') continue;
        const bytes = answer(request);
        if (bytes) socket.write(bytes);
      }
    });
    socket.on('error', () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  try {
    await work((server.address() as AddressInfo).port);
  } finally {
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }
}

describe('peer308: against a rogue OSD', () => {
  const rogues: [string, number | undefined, (id: bigint) => Buffer][] = [
    ['an unknown id', undefined, (id) => encodeReply(OP.READ, id + 5n, 0n)],
    ['another opcode', undefined, (id) => encodeReply(OP.WRITE, id, 0n)],
    ['a short read', 6, (id) => encodeReply(OP.READ, id, 512n, { bitmap_len: 4n }, Buffer.alloc(516))],
    ['a long bitmap', 6, (id) => encodeReply(OP.READ, id, 4096n, { bitmap_len: 8n }, Buffer.alloc(4104))],
    ['a request to a client', 7, () => encodeRequest(OP.PING, 1n)],
  ];
  for (const [what, hazard, bytes] of rogues)
    it(`closes on ${what}`, () =>
      withRogue(
        (request) => bytes(request.id),
        async (port) => {
          const journal = new Journal();
          const client = await PeerOpener.open({ clock, journal, port, wanted: 1, withoutHello: true });
          await assert.rejects(client.read(INODE, 0, 4096), LinkClosed);
          assert.equal(journal.take()[0]?.hazard, hazard);
        },
      ));

  it('closes when PING is not answered', () =>
    withRogue(
      (request) => (request.op === OP.PING ? undefined : Buffer.concat([encodeReply(request.op, request.id, 37n, {}, Buffer.from('{"osd_num": 1, "protocol_version": 1}'))])),
      async (port) => {
        const journal = new Journal();
        const client = await PeerOpener.open({ clock, journal, port, wanted: 1, idleMs: 5, pingTimeoutMs: 20 }).catch((error: unknown) => error);
        // No NUL at the end: 3.0.8 reads on; here it is invalid.
        assert.ok(client instanceof Refused);
        assert.equal(journal.take()[0]?.hazard, 5);
        const second = await PeerOpener.open({ clock, journal, port, wanted: 1, withoutHello: true, idleMs: 5, pingTimeoutMs: 20 });
        second.link.startKeepalive();
        assert.match(await second.closed(), /PING/);
      },
    ));
});
