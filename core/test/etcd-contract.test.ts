// SPDX-License-Identifier: GPL-2.0-or-later
// One contract for every Etcd: the real server through Etcd3Adapter, and MemoryEtcd.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { VitastorError } from '../src/errors.js';
import { Etcd3Adapter } from '../src/seams/etcd3-adapter.js';
import type { Etcd, KeyRange, KeyValue, WatchEvent } from '../src/seams/etcd.js';
import { MemoryEtcd } from '../src/seams/memory-etcd.js';
import { SystemClock, SystemRandom } from '../src/seams/system.js';
import { ETCD_MISSING, EtcdServer } from '../src/testing/etcd-server.js';

const TIMEOUT_MS = 5000;

interface Setup {
  etcd: Etcd;
  compact(revision: bigint): Promise<void>;
  stop(): Promise<void>;
}

async function memorySetup(): Promise<Setup> {
  const server = new MemoryEtcd(new SystemClock());
  const etcd = server.client();
  return {
    etcd,
    compact: async (revision) => server.compact(revision),
    stop: async () => {
      etcd.close();
      server.stop();
    },
  };
}

async function realSetup(): Promise<Setup> {
  const server = await EtcdServer.start();
  const etcd = new Etcd3Adapter({ addresses: [`http://${server.address}/v3`], clock: new SystemClock(), random: new SystemRandom() });
  return {
    etcd,
    compact: async (revision) => {
      const reply = await fetch(`http://${server.address}/v3/kv/compaction`, { method: 'POST', body: JSON.stringify({ revision: revision.toString() }) });
      assert.equal(reply.status, 200);
    },
    stop: async () => {
      etcd.close();
      await server.stop();
    },
  };
}

/** Collects what a watch tells, and lets a test await it. */
class Collector {
  readonly events: WatchEvent[] = [];
  readonly revisions: bigint[] = [];
  ended: string | null = null;
  #wake: (() => void)[] = [];

  readonly handlers = {
    onEvents: (events: readonly WatchEvent[], revision: bigint): void => {
      this.events.push(...events);
      this.revisions.push(revision);
      this.#notify();
    },
    onEnd: (reason: string): void => {
      assert.equal(this.ended, null, 'onEnd comes once');
      this.ended = reason;
      this.#notify();
    },
  };

  async until(done: () => boolean): Promise<void> {
    while (!done()) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }

  #notify(): void {
    const wake = this.#wake;
    this.#wake = [];
    for (const resolve of wake) resolve();
  }
}

function contract(kind: string, setup: () => Promise<Setup>, skip: string | false): void {
  describe(`etcd contract: ${kind}`, { skip, timeout: 60_000 }, () => {
    let s: Setup;
    let etcd: Etcd;
    before(async () => {
      s = await setup();
      etcd = s.etcd;
    });
    after(() => s?.stop());

    const put = async (key: string, value: string, lease?: bigint): Promise<bigint> =>
      (await etcd.txn({ compare: [], success: [{ op: 'put', key, value, ...(lease === undefined ? {} : { lease }) }] }, TIMEOUT_MS)).revision;
    const remove = async (range: KeyRange): Promise<bigint> => (await etcd.txn({ compare: [], success: [{ op: 'delete', range }] }, TIMEOUT_MS)).revision;
    const read = async (range: KeyRange): Promise<KeyValue[]> =>
      (await etcd.txn({ compare: [], success: [{ op: 'range', range }] }, TIMEOUT_MS)).responses[0] ?? [];
    const one = async (key: string): Promise<KeyValue | undefined> => (await read({ key }))[0];

    test('put, range and delete with exact revisions', async () => {
      const r1 = await put('/t/a', '1');
      const r2 = await put('/t/a', '2');
      assert.equal(r2, r1 + 1n);
      assert.deepEqual(await one('/t/a'), { key: '/t/a', value: '2', createRevision: r1, modRevision: r2, version: 2n, lease: 0n });
      assert.equal(await remove({ key: '/t/a' }), r2 + 1n);
      assert.equal(await one('/t/a'), undefined);
      assert.equal(await remove({ key: '/t/a' }), r2 + 1n, 'deleting nothing makes no revision');
    });

    test('prefix ranges: borders, order, keysOnly, any text', async () => {
      await put('/p/x/2', 'ünï"\n');
      await put('/p/x/10', 'b');
      await put('/p/xy', 'c');
      await put('/p/x', 'd');
      assert.deepEqual((await read({ prefix: '/p/x/' })).map((kv) => [kv.key, kv.value]), [['/p/x/10', 'b'], ['/p/x/2', 'ünï"\n']]);
      const keys = await etcd.txn({ compare: [], success: [{ op: 'range', range: { prefix: '/p/' }, keysOnly: true }] }, TIMEOUT_MS);
      assert.deepEqual(keys.responses[0]?.map((kv) => [kv.key, kv.value]), [['/p/x', ''], ['/p/x/10', ''], ['/p/x/2', ''], ['/p/xy', '']]);
      await remove({ prefix: '/p/x/' });
      assert.deepEqual((await read({ prefix: '/p/' })).map((kv) => kv.key), ['/p/x', '/p/xy']);
    });

    test('compares choose the branch', async () => {
      const revision = await put('/c/a', '1');
      const cases = [
        [{ target: 'version', key: '/c/a', result: 'equal', value: 1n }, true],
        [{ target: 'version', key: '/c/none', result: 'equal', value: 0n }, true],
        [{ target: 'createRevision', key: '/c/none', result: 'equal', value: 0n }, true],
        [{ target: 'createRevision', key: '/c/a', result: 'less', value: revision }, false],
        [{ target: 'modRevision', key: '/c/a', result: 'less', value: revision + 1n }, true],
        [{ target: 'modRevision', key: '/c/a', result: 'less', value: revision }, false],
        [{ target: 'modRevision', key: '/c/a', result: 'greater', value: revision - 1n }, true],
        [{ target: 'lease', key: '/c/a', result: 'equal', value: 0n }, true],
        [{ target: 'lease', key: '/c/a', result: 'equal', value: 5n }, false],
      ] as const;
      for (const [compare, expected] of cases) {
        const result = await etcd.txn({ compare: [compare], success: [], failure: [{ op: 'range', range: { key: '/c/a' } }] }, TIMEOUT_MS);
        assert.equal(result.succeeded, expected, JSON.stringify(compare, (_, v: unknown) => (typeof v === 'bigint' ? v.toString() : v)));
        assert.equal(result.responses[0]?.[0]?.value, expected ? undefined : '1');
      }
      const both = await etcd.txn({ compare: cases.slice(0, 4).map(([c]) => c), success: [{ op: 'put', key: '/c/a', value: 'no' }] }, TIMEOUT_MS);
      assert.equal(both.succeeded, false, 'one failed compare is enough');
      assert.equal((await one('/c/a'))?.value, '1');
    });

    test('a transaction sees its own writes in order; one response an operation', async () => {
      const result = await etcd.txn({
        compare: [],
        success: [{ op: 'range', range: { key: '/o/a' } }, { op: 'put', key: '/o/a', value: 'x' }, { op: 'range', range: { key: '/o/a' } }, { op: 'delete', range: { prefix: '/o/old' } }],
      }, TIMEOUT_MS);
      assert.deepEqual(result.responses.map((r) => r.map((kv) => kv.value)), [[], [], ['x'], []]);
    });

    test('changing a key twice is refused and changes nothing', async () => {
      await assert.rejects(etcd.txn({ compare: [], success: [{ op: 'put', key: '/d/a', value: '1' }, { op: 'put', key: '/d/a', value: '2' }] }, TIMEOUT_MS),
        (error) => error instanceof VitastorError && error.code === 'ERR_ETCD_REQUEST' && !error.retryable);
      assert.equal(await one('/d/a'), undefined);
    });

    test('many operations in one transaction', async () => {
      const ops = Array.from({ length: 1000 }, (_, i) => ({ op: 'put', key: `/m/${i}`, value: 'x'.repeat(100) }) as const);
      await etcd.txn({ compare: [], success: ops }, TIMEOUT_MS);
      assert.equal((await read({ prefix: '/m/' })).length, 1000);
      await remove({ prefix: '/m/' });
    });

    test('leases: keepalive, ownership, revocation', async () => {
      const lease = await etcd.leaseGrant(30, TIMEOUT_MS);
      await put('/l/a', '1', lease);
      assert.equal((await one('/l/a'))?.lease, lease);
      const mine = await etcd.txn({ compare: [{ target: 'lease', key: '/l/a', result: 'equal', value: lease }], success: [] }, TIMEOUT_MS);
      assert.equal(mine.succeeded, true);
      assert.equal(await etcd.leaseKeepalive(lease, TIMEOUT_MS), 30);
      await put('/l/b', '1', lease);
      await put('/l/b', '2');
      await etcd.leaseRevoke(lease, TIMEOUT_MS);
      assert.equal(await one('/l/a'), undefined);
      assert.equal((await one('/l/b'))?.value, '2', 'a put without lease takes the key out of it');
      assert.equal(await etcd.leaseKeepalive(lease, TIMEOUT_MS), 0);
      await etcd.leaseRevoke(lease, TIMEOUT_MS);
      await assert.rejects(put('/l/c', '1', lease), (error) => error instanceof VitastorError && error.code === 'ERR_LEASE_LOST');
    });

    test('a lease that is not kept alive takes its keys away', async () => {
      const lease = await etcd.leaseGrant(1, TIMEOUT_MS);
      const revision = await put('/e/a', '1', lease);
      const seen = new Collector();
      const watch = etcd.watch([{ key: '/e/a' }], revision + 1n, seen.handlers);
      await seen.until(() => seen.events.length > 0);
      watch.close();
      assert.deepEqual(seen.events.map((e) => [e.type, e.key]), [['delete', '/e/a']]);
    });

    test('a watch delivers history and news, in order, and stops when closed', async () => {
      const first = await put('/w/a', '1');
      await put('/w/a', '2');
      await put('/other', 'x');
      const seen = new Collector();
      const watch = etcd.watch([{ prefix: '/w/' }], first, seen.handlers);
      await seen.until(() => seen.events.length >= 2);
      await remove({ key: '/w/a' });
      const last = (await etcd.txn({ compare: [], success: [{ op: 'put', key: '/w/b', value: '3' }, { op: 'put', key: '/w/c', value: '4' }] }, TIMEOUT_MS)).revision;
      await seen.until(() => seen.events.length >= 5);
      assert.deepEqual(seen.events.map((e) => [e.type, e.key, e.value]), [
        ['put', '/w/a', '1'], ['put', '/w/a', '2'], ['delete', '/w/a', ''], ['put', '/w/b', '3'], ['put', '/w/c', '4'],
      ]);
      assert.equal(seen.revisions.at(-1), last);
      assert.equal(seen.events.at(-1)?.modRevision, last);
      watch.close();
      await put('/w/d', '5');
      const other = new Collector();
      const second = etcd.watch([{ prefix: '/w/' }], last + 1n, other.handlers);
      await other.until(() => other.events.length >= 1);
      second.close();
      assert.equal(seen.events.length, 5);
      assert.equal(seen.ended, null);
    });

    test('several ranges in one watch', async () => {
      const start = await put('/r/start', '1');
      const seen = new Collector();
      const watch = etcd.watch([{ prefix: '/r/a/' }, { key: '/r/b' }], start + 1n, seen.handlers);
      await put('/r/a/1', '1');
      await put('/r/bb', 'no');
      await put('/r/b', '2');
      await put('/r/a/2', '3');
      await seen.until(() => seen.events.length >= 3);
      watch.close();
      assert.deepEqual(seen.events.map((e) => e.key).sort(), ['/r/a/1', '/r/a/2', '/r/b']);
      assert.ok(seen.revisions.every((revision, i) => i === 0 || revision >= (seen.revisions[i - 1] ?? 0n)));
    });

    test('a watch below the compaction ends and says so', async () => {
      const first = await put('/k/a', '1');
      await put('/k/a', '2');
      const last = await put('/k/a', '3');
      await s.compact(last);
      const seen = new Collector();
      etcd.watch([{ prefix: '/k/' }], first, seen.handlers);
      await seen.until(() => seen.ended !== null);
      assert.equal(seen.ended, 'compacted');
    });

    test('status names every member', async () => {
      const [member] = await etcd.status(TIMEOUT_MS);
      assert.equal(member?.alive, true);
      assert.ok((member?.dbSizeBytes ?? -1) >= 0);
    });

    test('closing rejects every later call', async () => {
      etcd.close();
      await assert.rejects(put('/z', '1'), (error) => error instanceof VitastorError && error.code === 'ERR_ABORTED');
    });
  });
}

contract('MemoryEtcd', memorySetup, false);
contract('a real server', realSetup, ETCD_MISSING);
