// SPDX-License-Identifier: GPL-2.0-or-later
// Address lists with wrong, dead, silent, slow and returning members, in front of one real etcd.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { isVitastorError } from '../src/errors.js';
import { Etcd3Adapter } from '../src/seams/etcd3-adapter.js';
import type { Txn } from '../src/seams/etcd.js';
import { SystemClock } from '../src/seams/system.js';
import { ETCD_MISSING, EtcdServer, freePort } from '../src/testing/etcd-server.js';
import { TcpProxy } from './tcp-proxy.js';

const put = (key: string, value: string): Txn => ({ compare: [], success: [{ op: 'put', key, value }] });
const get = (key: string): Txn => ({ compare: [], success: [{ op: 'range', range: { key } }] });

describe('etcd address lists', { skip: ETCD_MISSING, timeout: 60_000 }, () => {
  let server: EtcdServer;
  let cleanup: (() => unknown)[] = [];
  before(async () => {
    server = await EtcdServer.start();
  });
  after(() => server?.stop());
  afterEach(async () => {
    for (const step of cleanup.reverse()) await step();
    cleanup = [];
  });

  const proxy = async (set: Partial<Pick<TcpProxy, 'mode' | 'delayMs'>> = {}): Promise<TcpProxy> => {
    const p = await new TcpProxy(Number(server.address.split(':')[1])).start();
    cleanup.push(() => p.stop());
    return Object.assign(p, set);
  };
  // All addresses are local here, so they are tried in the order given.
  const open = (addresses: string[], watchKeepaliveMs = 5000): Etcd3Adapter => {
    const etcd = new Etcd3Adapter({ addresses, clock: new SystemClock(), random: { below: () => 0 }, watchKeepaliveMs });
    cleanup.push(() => etcd.close());
    return etcd;
  };
  const deadAddress = async (): Promise<string> => `127.0.0.1:${await freePort()}`;

  test('keepalives go on over one connection, and over another one when it breaks', async () => {
    const p = await proxy();
    const etcd = open([p.address]);
    const lease = await etcd.leaseGrant(30, 3000);
    assert.equal(await etcd.leaseKeepalive(lease, 3000), 30);
    const before = p.connections;
    for (let i = 0; i < 5; i++) assert.equal(await etcd.leaseKeepalive(lease, 3000), 30);
    assert.equal(p.connections, before);
    p.mode = 'silent';
    await assert.rejects(etcd.leaseKeepalive(lease, 200), (error) => isVitastorError(error, 'ERR_ETCD_UNAVAILABLE'));
    p.mode = 'pass';
    assert.equal(await etcd.leaseKeepalive(lease, 3000), 30);
    assert.ok(p.connections > before);
    assert.equal(await etcd.leaseKeepalive(lease + 1n, 3000), 0, 'a lease that etcd does not know');
  });

  for (const kind of ['read', 'write'] as const) {
    const call = (key: string): Txn => (kind === 'read' ? get(key) : put(key, '1'));

    test(`${kind}: a dead address is passed over`, async () => {
      const etcd = open([await deadAddress(), server.address]);
      assert.equal((await etcd.txn(call('/a'), 3000)).succeeded, true);
    });

    test(`${kind}: a name that does not resolve is passed over`, async () => {
      const etcd = open(['127.0.0.300:2379', server.address]);
      assert.equal((await etcd.txn(call('/a'), 3000)).succeeded, true);
    });

    test(`${kind}: two silent addresses are passed over within one timeout`, async () => {
      const silent = [await proxy({ mode: 'silent' }), await proxy({ mode: 'silent' })];
      const etcd = open([...silent.map((p) => p.address), server.address]);
      assert.equal((await etcd.txn(call('/a'), 3000)).succeeded, true);
      assert.ok(silent.every((p) => p.connections > 0), 'they were tried');
    });

    test(`${kind}: something that is no etcd is passed over`, async () => {
      const etcd = open([(await proxy({ mode: 'garbage' })).address, server.address]);
      assert.equal((await etcd.txn(call('/a'), 3000)).succeeded, true);
    });

    test(`${kind}: a slow reply counts`, async () => {
      const etcd = open([(await proxy({ delayMs: 100 })).address, (await proxy({ mode: 'silent' })).address]);
      assert.equal((await etcd.txn(call('/a'), 5000)).succeeded, true);
    });
  }

  test('a member that goes silent: reads go on, one write is lost at most', async () => {
    const first = await proxy();
    const etcd = open([first.address, server.address]);
    await etcd.txn(put('/s', '0'), 3000);
    const lease = await etcd.leaseGrant(30, 3000);
    first.mode = 'silent';
    assert.equal((await etcd.txn(get('/s'), 1000)).responses[0]?.[0]?.value, '0');
    assert.equal(await etcd.leaseKeepalive(lease, 1000), 30);
    await etcd.txn(put('/s', '1'), 1000);
    first.mode = 'pass';

    const again = open([first.address, server.address]);
    await again.txn(put('/s', '2'), 3000);
    first.mode = 'silent';
    await assert.rejects(again.txn(put('/s', '3'), 500), (error) => isVitastorError(error, 'ERR_ETCD_UNAVAILABLE') && error.retryable && error.message.includes(first.address));
    await again.txn(put('/s', '4'), 1000);
    assert.equal((await etcd.txn(get('/s'), 1000)).responses[0]?.[0]?.value, '4');
  });

  test('nobody answers: one error that names every address', async () => {
    const addresses = [await deadAddress(), (await proxy({ mode: 'silent' })).address];
    const etcd = open(addresses);
    await assert.rejects(etcd.txn(get('/a'), 400), (error) => isVitastorError(error, 'ERR_ETCD_UNAVAILABLE') && addresses.every((a) => error.message.includes(a)));
    const status = await etcd.status(200);
    assert.deepEqual(status.map((m) => [m.address, m.alive, (m.error ?? '') !== '']).sort(), addresses.map((a) => [a, false, true]).sort());
  });

  test('a silent watch is noticed and ends; the next one goes to another member', async () => {
    const first = await proxy();
    const etcd = open([first.address, server.address], 200);
    const { revision } = await etcd.txn(put('/w/a', '1'), 3000);
    const events: string[] = [];
    let resumed = 0n;
    await new Promise<void>((resolve) => {
      etcd.watch([{ prefix: '/w/' }], revision + 1n, {
        onEvents: (list, safe) => {
          events.push(...list.map((e) => e.value));
          resumed = safe;
          if (list.length) first.mode = 'silent';
        },
        onEnd: (reason) => {
          assert.equal(reason, 'lost');
          resolve();
        },
      });
      void etcd.txn(put('/w/a', '2'), 3000);
    });
    await etcd.txn(put('/w/a', '3'), 3000);
    await new Promise<void>((resolve) => {
      etcd.watch([{ prefix: '/w/' }], resumed + 1n, {
        onEvents: (list) => {
          events.push(...list.map((e) => e.value));
          if (events.includes('3')) resolve();
        },
        onEnd: () => assert.fail('ended'),
      });
    });
    assert.deepEqual(events, ['2', '3']);
  });

  test('an idle watch stays: the answers to progress requests keep it alive', async () => {
    const system = new SystemClock();
    // etcd 3.5 answers a progress request only when its own loop of 100 ms has caught up with a fresh watch.
    const keepaliveMs = 400;
    let probes = 0;
    let enough = (): void => undefined;
    const clock = {
      nowMs: () => system.nowMs(), wallMs: () => system.wallMs(),
      after: (delayMs: number, fire: () => void) => system.after(delayMs, () => {
        if (delayMs === keepaliveMs && ++probes === 5) enough();
        fire();
      }),
    };
    const etcd = new Etcd3Adapter({ addresses: [server.address], clock, random: { below: () => 0 }, watchKeepaliveMs: keepaliveMs });
    cleanup.push(() => etcd.close());
    const { revision } = await etcd.txn(put('/i/a', '1'), 3000);
    await new Promise<void>((resolve) => {
      enough = resolve;
      etcd.watch([{ prefix: '/i/' }, { key: '/j' }], revision + 1n, {
        onEvents: () => assert.fail('nothing happened in these ranges'), onEnd: (reason) => assert.fail(reason),
      });
      void etcd.txn(put('/elsewhere', '1'), 3000);
    });
  });

  test('etcd is killed and comes back: calls fail with a clear error, then work again', async () => {
    const etcd = open([server.address]);
    const { revision } = await etcd.txn(put('/k', '1'), 3000);
    const lost = new Promise<string>((resolve) => etcd.watch([{ key: '/k' }], revision + 1n, { onEvents: () => undefined, onEnd: resolve }));
    await new Promise<void>((resolve) => {
      const probe = etcd.watch([{ key: '/k' }], revision, { onEvents: () => resolve(probe.close()), onEnd: () => assert.fail('ended') });
    });
    await server.kill();
    assert.equal(await lost, 'lost');
    await assert.rejects(etcd.txn(get('/k'), 500), (error) => isVitastorError(error, 'ERR_ETCD_UNAVAILABLE') && error.retryable);
    await server.launch();
    assert.equal((await etcd.txn(get('/k'), 5000)).responses[0]?.[0]?.value, '1');
    assert.ok((await etcd.txn(put('/k', '2'), 3000)).revision > revision);
  });

  test('setAddresses takes effect from the next request on', async () => {
    const etcd = open([await deadAddress()]);
    await assert.rejects(etcd.txn(get('/k'), 300), (error) => isVitastorError(error, 'ERR_ETCD_UNAVAILABLE'));
    etcd.setAddresses([server.address]);
    assert.equal((await etcd.txn(get('/none'), 3000)).succeeded, true);
    assert.throws(() => etcd.setAddresses([]), /no etcd address/);
    assert.throws(() => etcd.setAddresses(['http://']), /etcd_address "http:\/\/" is not/);
  });
});
