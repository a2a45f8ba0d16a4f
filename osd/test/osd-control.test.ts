// SPDX-License-Identifier: GPL-2.0-or-later
// OSD control over an in-memory etcd, a virtual clock, and an engine that only records what it was told.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Config, KeySpace, parseJson, type JsonObject } from '@vitastor/core';
import { MemoryEtcd, settle, VirtualClock, type MemoryEtcdClient } from '@vitastor/core/testing';
import type { Command, EngineApi, EngineEvent, StoreStats } from '../src/engine.js';
import { OsdControl, type OsdEnd } from '../src/osd-control.js';
import { scrubPlanOf, type OsdOptions } from '../src/options.js';
import { PG_BITS } from '../src/pg-bits.js';

const STORE: StoreStats = {
  totalBlocks: 100n, freeBlocks: 90n, objectCount: 10n, memoryBytes: 0n, deviceBytesWritten: 0n, clientBytesWritten: 0n, flushes: 0n, dataFlushes: 0n, metaFlushes: 0n,
  dataSyncWrites: 0n, metaSyncWrites: 0n, discards: 0n, discardedBytes: 0n, throttledWrites: 0n, throttledUs: 0n, checksumErrors: 0n, checksumReads: 7n, checksumBytesWritten: 0n, uuid: 17_777_777_777_777_777_777n, logSequence: 1000n,
};
const KEYS = new KeySpace();

class FakeEngine implements EngineApi {
  readonly commands: Command[] = [];
  readonly clock: VirtualClock;
  #emit: (events: EngineEvent[]) => void = () => undefined;

  constructor(clock: VirtualClock) {
    this.clock = clock;
  }

  create = (onEvents: (events: EngineEvent[]) => void): EngineApi => {
    this.#emit = onEvents;
    return this;
  };

  bootTimeNs(): bigint {
    return BigInt(Math.round(this.clock.nowMs() * 1e6));
  }

  emit(...events: EngineEvent[]): void {
    this.#emit(events);
  }

  post(command: Command): void {
    this.commands.push(command);
    if (command.kind === 'configure') {
      this.clock.after(1, () => this.emit({ kind: 'ready', port: 7001, addresses: ['0.0.0.0'], store: STORE, runtime: 'fake' }));
    }
    if (command.kind === 'stop') this.clock.after(1, () => this.emit({ kind: 'stopped' }));
  }

  of<K extends Command['kind']>(kind: K): Extract<Command, { kind: K }>[] {
    return this.commands.filter((c): c is Extract<Command, { kind: K }> => c.kind === kind);
  }
}

function optionsOf(osd: number): OsdOptions {
  return {
    identity: { osd, host: `host${osd}`, version: '3.0.8', blockSize: 131072, bitmapGranularity: 4096, immediateCommit: 'all' },
    configure: {
      store: {
        osdNum: BigInt(osd), dataDevice: '/dev/null', metaDevice: '', dataOffset: 0n, dataSize: 0n, metaOffset: 0n, metaSize: 0n,
        blockSize: 131072, bitmapGranularity: 4096, immediateCommit: 'all', disableDataFsync: false, disableMetaFsync: false,
        disableDeviceLock: false, readonly: false, checksums: true, checksumsInMemory: true, checksumCacheSize: 67108864n, dataIo: 'direct', metaIo: 'direct', maxWriteIodepth: 128,
        maxTombstones: 1048576n, atomicWriteSize: 4096, discardFreed: 'automatic', discardOnStart: false, minDiscardSize: 1048576n, discardGranularity: 0, skipDamagedMetadata: false, create: true,
      },
      listen: [{ host: '0.0.0.0', port: 0 }], clusterNetworks: [], settings: {}, leaseTimeoutS: 5n,
    },
    allowsFreshDisk: false, allowsOldDisk: false, lease: { ttlSeconds: 5, keepaliveMs: 1000, timeoutMs: 1000 },
    inodeVanishMs: 60_000, statsIntervalMs: 30_000, etcdQuickTimeoutMs: 1000, etcdSlowTimeoutMs: 5000,
  };
}

interface Rig {
  clock: VirtualClock;
  server: MemoryEtcd;
  client: MemoryEtcdClient;
  engine: FakeEngine;
  control: OsdControl;
  logs: string[];
  /** How often the settings were worked out. */
  asked: { settings: number };
  end: Promise<OsdEnd>;
}

function rig(osd = 1, server?: MemoryEtcd, clock = new VirtualClock(), options: Partial<OsdOptions> = {}): Rig {
  const etcd = server ?? new MemoryEtcd(clock);
  const client = etcd.client();
  const engine = new FakeEngine(clock);
  const logs: string[] = [];
  const asked = { settings: 0 };
  const settingsFor = (global: JsonObject): Record<string, string> => {
    asked.settings++;
    return { no_recovery: String(global['no_recovery'] ?? '') };
  };
  const control = new OsdControl({
    etcd: client, clock, keys: KEYS, createEngine: engine.create, options: { ...optionsOf(osd), ...options },
    publishedAddresses: () => ['127.0.0.1'], settingsFor, scrubPlanFor: (global) => scrubPlanOf(new Config({ etcd: global })), log: (level, text) => logs.push(`${level} ${text}`),
  });
  return { clock, server: etcd, client, engine, control, logs, asked, end: control.run() };
}

async function advance(r: { clock: VirtualClock }, ms: number): Promise<void> {
  await r.clock.advance(ms);
  await settle();
}

function json(server: MemoryEtcd, key: string): JsonObject | undefined {
  const text = server.get(key);
  return text === undefined ? undefined : (parseJson(text) as JsonObject);
}

function putPool(server: MemoryEtcd, extra: Record<string, unknown> = {}): void {
  server.put(KEYS.configPools, JSON.stringify({ 1: { name: 'p', scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 1, ...extra } }));
}

function putPg(server: MemoryEtcd, osdSet: (number | string)[], primary: number | string, extra: Record<string, unknown> = {}): void {
  server.put(KEYS.pgConfig, JSON.stringify({ hash: 'x', items: { 1: { 1: { osd_set: osdSet, primary, ...extra } } } }));
}

async function running(r: Rig): Promise<bigint> {
  putPool(r.server);
  putPg(r.server, ['1', '2'], '1');
  await advance(r, 100);
  const start = r.engine.of('startPg').at(-1);
  assert.ok(start, 'the PG was started');
  return start.interval;
}

const state = (interval: bigint, bits: number, peers = [1n, 2n], deadPeers: bigint[] = []): EngineEvent => (
  { kind: 'pgStateChanged', pg: { pool: 1, pg: 1 }, interval, state: bits, peers, deadPeers, reason: '' });

test('announces itself under its lease, and tells the engine the deadline', async () => {
  const r = rig();
  await advance(r, 50);
  assert.deepEqual(json(r.server, KEYS.osdState(1)), {
    state: 'up', addresses: ['127.0.0.1'], port: 7001, host: 'host1', version: '3.0.8', primary_enabled: true, blockstore_enabled: true,
  });
  const first = r.engine.of('leaseUntil').at(0)?.deadlineNs ?? 0n;
  assert.ok(first > r.engine.bootTimeNs());
  await advance(r, 3000);
  assert.ok((r.engine.of('leaseUntil').at(-1)?.deadlineNs ?? 0n) > first + 2_000_000_000n);
});

test('takes a PG: starting under the lease, then the engine, then its states', async () => {
  const r = rig();
  await advance(r, 50);
  const interval = await running(r);
  assert.deepEqual(json(r.server, KEYS.pgState(1, 1)), { primary: 1, state: ['starting'], peers: [] });
  r.engine.emit(state(interval, PG_BITS.active | PG_BITS.degraded, [1n]));
  await advance(r, 10);
  assert.deepEqual(json(r.server, KEYS.pgState(1, 1)), { primary: 1, state: ['active', 'degraded'], peers: [1] });
});

test('a PG costs one transaction to take and one to be active; peering is told only when it lasts', async () => {
  const r = rig();
  await advance(r, 50);
  putPool(r.server);
  await advance(r, 50);
  const before = r.server.revision;
  putPg(r.server, ['1', '2'], '1');
  await advance(r, 10);
  const first = r.engine.of('startPg').at(-1)?.interval ?? 0n;
  assert.equal(r.server.revision, before + 2n, 'pg/config, then the lock');
  r.engine.emit(state(first, PG_BITS.starting), state(first, PG_BITS.peering));
  await advance(r, 20);
  r.engine.emit(state(first, PG_BITS.active));
  await advance(r, 10);
  assert.equal(r.server.revision, before + 3n, 'active, and nothing in between');
  await advance(r, 500);
  assert.deepEqual(json(r.server, KEYS.pgState(1, 1))?.['state'], ['active']);
  // Once it was active, every step is told.
  r.engine.emit(state(first, PG_BITS.peering));
  await advance(r, 10);
  assert.deepEqual(json(r.server, KEYS.pgState(1, 1))?.['state'], ['peering']);
  const slow = rig(2);
  await advance(slow, 50);
  putPool(slow.server);
  putPg(slow.server, ['1', '2'], '2');
  await advance(slow, 50);
  const second = slow.engine.of('startPg').at(-1)?.interval ?? 0n;
  slow.engine.emit(state(second, PG_BITS.starting), state(second, PG_BITS.peering));
  await advance(slow, 100);
  assert.deepEqual(json(slow.server, KEYS.pgState(1, 1))?.['state'], ['starting']);
  await advance(slow, 200);
  assert.deepEqual(json(slow.server, KEYS.pgState(1, 1))?.['state'], ['peering']);
});

test('each kind of key reaches the engine, and a change of PG states touches nothing else', async () => {
  const r = rig();
  await advance(r, 50);
  putPool(r.server);
  r.server.put(KEYS.configGlobal, JSON.stringify({ no_recovery: 1 }));
  r.server.put(KEYS.configInode(1, 5n), JSON.stringify({ name: 'img', size: 1_000_000 }));
  r.server.put(KEYS.osdState(2), JSON.stringify({ state: 'up', addresses: ['127.0.0.2'], port: 7002, host: 'host2' }));
  await advance(r, 50);
  assert.deepEqual(r.engine.of('settings').at(-1)?.settings, { no_recovery: '1' });
  assert.deepEqual(r.engine.of('pools').at(-1)?.pools.map(({ pool }) => pool), [1]);
  assert.deepEqual(r.engine.of('inodes').at(-1)?.inodes.map(({ inode }) => inode), [(1n << 48n) | 5n]);
  assert.deepEqual(r.engine.of('peerList').at(-1)?.up.map(({ osd }) => osd), [1n, 2n]);
  const commands = r.engine.commands.filter(({ kind }) => kind !== 'leaseUntil').length;
  const asked = r.asked.settings;
  for (let pg = 1; pg <= 50; pg++) {
    r.server.put(KEYS.pgState(1, pg), JSON.stringify({ primary: 2, state: ['active'], peers: [2] }));
    await advance(r, 2);
  }
  assert.equal(r.asked.settings, asked);
  assert.equal(r.engine.commands.filter(({ kind }) => kind !== 'leaseUntil').length, commands);
  // A pool inherits from /config/global.
  r.server.put(KEYS.configGlobal, JSON.stringify({ block_size: 262144 }));
  r.server.delete(KEYS.osdState(2));
  await advance(r, 50);
  assert.equal(r.engine.of('pools').at(-1)?.pools[0]?.blockSize, 262144);
  assert.deepEqual(r.engine.of('peerList').at(-1)?.up.map(({ osd }) => osd), [1n]);
});

test('an epoch is confirmed only after etcd has it and the watch has shown it', async () => {
  const r = rig();
  await advance(r, 50);
  const interval = await running(r);
  r.engine.emit({ kind: 'historyWanted', pg: { pool: 1, pg: 1 }, interval, epoch: 7n, addCurrentSet: true, currentSet: [1n] });
  await settle();
  assert.equal(r.engine.of('confirmHistory').length, 0);
  await advance(r, 20);
  assert.deepEqual(json(r.server, KEYS.pgHistory(1, 1)), { epoch: 7, osd_sets: [[1]], all_peers: [1, 2] });
  assert.deepEqual(r.engine.of('confirmHistory'), [{ kind: 'confirmHistory', pg: { pool: 1, pg: 1 }, interval, epoch: 7n }]);
  assert.equal(r.engine.of('stopPg').length, 0, 'our own history does not make us peer again');
});

test('a clean PG gets a minimal history', async () => {
  const r = rig();
  await advance(r, 50);
  const interval = await running(r);
  r.engine.emit({ kind: 'historyWanted', pg: { pool: 1, pg: 1 }, interval, epoch: 3n, addCurrentSet: true, currentSet: [1n] });
  await advance(r, 20);
  r.engine.emit(state(interval, PG_BITS.active));
  await advance(r, 20);
  assert.deepEqual(json(r.server, KEYS.pgHistory(1, 1)), { epoch: 3, osd_sets: [], all_peers: [1, 2] });
  assert.deepEqual(json(r.server, KEYS.pgState(1, 1)), { primary: 1, state: ['active'], peers: [1, 2] });
  r.engine.emit(state(interval, PG_BITS.active | PG_BITS.left_on_dead, [1n], [9n]));
  await advance(r, 20);
  assert.deepEqual(json(r.server, KEYS.pgHistory(1, 1))?.['all_peers'], [1, 2, 9]);
  assert.equal(r.engine.of('stopPg').length, 0);
});

test('a clean PG that wants a higher epoch gets it together with a minimal history', async () => {
  const r = rig();
  await advance(r, 50);
  const interval = await running(r);
  r.engine.emit({ kind: 'historyWanted', pg: { pool: 1, pg: 1 }, interval, epoch: 3n, addCurrentSet: true, currentSet: [1n] });
  await advance(r, 20);
  r.engine.emit(state(interval, PG_BITS.active), { kind: 'historyWanted', pg: { pool: 1, pg: 1 }, interval, epoch: 4n, addCurrentSet: false, currentSet: [1n, 2n] });
  await advance(r, 20);
  assert.deepEqual(json(r.server, KEYS.pgState(1, 1)), { primary: 1, state: ['active'], peers: [1, 2] });
  assert.deepEqual(json(r.server, KEYS.pgHistory(1, 1)), { epoch: 4, osd_sets: [], all_peers: [1, 2] });
  // The first write was that of epoch 3: between "active" and cleared sets there is nothing that a later primary would have to wait for.
  assert.equal(r.server.pairs().find(({ key }) => key === KEYS.pgHistory(1, 1))?.version, 2n);
  assert.deepEqual(r.engine.of('confirmHistory').at(-1), { kind: 'confirmHistory', pg: { pool: 1, pg: 1 }, interval, epoch: 4n });
  assert.equal(r.engine.of('stopPg').length, 0);
});

test("somebody else's history change makes the PG stop and start with it", async () => {
  const r = rig();
  await advance(r, 50);
  const interval = await running(r);
  r.server.put(KEYS.pgHistory(1, 1), JSON.stringify({ epoch: 1, osd_sets: [['2', '3']], all_peers: [] }));
  await advance(r, 20);
  assert.deepEqual(r.engine.of('stopPg'), [{ kind: 'stopPg', pg: { pool: 1, pg: 1 }, interval }]);
  r.engine.emit(state(interval, PG_BITS.offline));
  await advance(r, 50);
  const again = r.engine.of('startPg').at(-1);
  assert.equal(r.engine.of('startPg').length, 2);
  assert.deepEqual(again?.historySets, [[2n, 3n]]);
});

test("somebody else's history change makes the PG start again also where it is seen together with our own", async () => {
  const r = rig();
  await advance(r, 50);
  const interval = await running(r);
  const deliver = r.client.deliverSoon.bind(r.client);
  r.client.deliverSoon = () => undefined;
  r.engine.emit({ kind: 'historyWanted', pg: { pool: 1, pg: 1 }, interval, epoch: 7n, addCurrentSet: true, currentSet: [1n, 9n] });
  await advance(r, 20);
  assert.deepEqual(json(r.server, KEYS.pgHistory(1, 1))?.['epoch'], 7);
  // As rm-osd does; the watch has fallen behind so far that everything is loaded.
  r.server.put(KEYS.pgHistory(1, 1), JSON.stringify({ epoch: 7, osd_sets: [[1]], all_peers: [1, 2] }));
  r.server.put('/elsewhere', '');
  r.server.compact();
  r.client.deliverSoon = deliver;
  deliver();
  await advance(r, 1000);
  assert.deepEqual(r.engine.of('stopPg'), [{ kind: 'stopPg', pg: { pool: 1, pg: 1 }, interval }]);
  assert.equal(r.engine.of('confirmHistory').length, 0);
  r.engine.emit(state(interval, PG_BITS.offline));
  await advance(r, 50);
  assert.deepEqual(r.engine.of('startPg').at(-1)?.historySets, [[1n]]);
});

test('moving the primary away deletes the key after the engine has drained', async () => {
  const r = rig();
  await advance(r, 50);
  const interval = await running(r);
  putPg(r.server, ['1', '2'], '2');
  await advance(r, 20);
  assert.equal(r.engine.of('stopPg').length, 1);
  assert.ok(r.server.get(KEYS.pgState(1, 1)), 'still ours while operations drain');
  r.engine.emit(state(interval, PG_BITS.offline));
  await advance(r, 50);
  assert.equal(r.server.get(KEYS.pgState(1, 1)), undefined);
  assert.equal(r.engine.of('startPg').length, 1);
});

test('a paused PG, a set of the wrong length, and a PG held by somebody else are not taken', async () => {
  const r = rig();
  await advance(r, 50);
  putPool(r.server);
  putPg(r.server, ['1', '2'], '1', { pause: true });
  await advance(r, 50);
  putPg(r.server, ['1'], '1');
  await advance(r, 50);
  r.server.put(KEYS.pgState(1, 1), JSON.stringify({ primary: 2, state: ['active'], peers: [2] }));
  putPg(r.server, ['1', '2'], '1');
  await advance(r, 50);
  assert.equal(r.engine.of('startPg').length, 0);
  r.server.delete(KEYS.pgState(1, 1));
  await advance(r, 50);
  assert.equal(r.engine.of('startPg').length, 1);
});

test('a pool of another block size is refused with both values named, once', async () => {
  const r = rig();
  await advance(r, 50);
  putPool(r.server, { block_size: 1048576 });
  putPg(r.server, ['1', '2'], '1');
  await advance(r, 100);
  assert.equal(r.engine.of('startPg').length, 0);
  const told = r.logs.filter((line) => line.includes('refused'));
  assert.equal(told.length, 1);
  assert.match(told[0] ?? '', /1048576.*131072/);
});

test('garbage in one key is named and the rest works', async () => {
  const r = rig();
  await advance(r, 50);
  r.server.put(KEYS.configInode(1, 5n), '{"name":');
  await running(r);
  assert.ok(r.logs.some((line) => line.includes(KEYS.configInode(1, 5n))));
});

test('a PG whose history cannot be read is not started until it can be', async () => {
  const r = rig();
  await advance(r, 50);
  r.server.put(KEYS.pgHistory(1, 1), '{"osd_sets":[[1,3]],"epoch":5}');
  await advance(r, 50);
  r.server.put(KEYS.pgHistory(1, 1), '[]');
  putPool(r.server);
  putPg(r.server, ['1', '2'], '1');
  await advance(r, 100);
  r.server.put(KEYS.configInode(1, 5n), '{"name":"x","size":4096}');
  await advance(r, 100);
  assert.equal(r.engine.of('startPg').length, 0);
  assert.equal(r.server.get(KEYS.pgState(1, 1)), undefined);
  assert.equal(r.server.get(KEYS.pgHistory(1, 1)), '[]');
  assert.ok(r.logs.some((line) => line.includes(KEYS.pgHistory(1, 1))));
  assert.equal(r.logs.filter((line) => line.includes('PG 1/1 is not started: its history')).length, 1);
  r.server.put(KEYS.pgHistory(1, 1), '{"osd_sets":[[1,3]],"epoch":5}');
  await advance(r, 100);
  assert.deepEqual(r.engine.of('startPg').at(-1)?.historySets, [[1n, 3n]]);
});

test('a PG that runs goes on when its history cannot be read any more, and puts it back', async () => {
  const r = rig();
  await advance(r, 50);
  const interval = await running(r);
  r.engine.emit(state(interval, PG_BITS.active | PG_BITS.degraded, [1n], [2n]));
  r.engine.emit({ kind: 'historyWanted', pg: { pool: 1, pg: 1 }, interval, epoch: 7n, addCurrentSet: true, currentSet: [1n] });
  await advance(r, 100);
  const before = json(r.server, KEYS.pgHistory(1, 1));
  assert.deepEqual(before?.['osd_sets'], [[1]]);
  r.server.put(KEYS.pgHistory(1, 1), 'oops');
  await advance(r, 100);
  assert.deepEqual(json(r.server, KEYS.pgHistory(1, 1)), before);
  assert.equal(r.engine.of('stopPg').length, 0);
  // In the moment in which our own write arrives: it stands there again before the engine hears that it does.
  const confirmed = r.engine.of('confirmHistory').length;
  r.client.delayMs = 20;
  r.engine.emit({ kind: 'historyWanted', pg: { pool: 1, pg: 1 }, interval, epoch: 8n, addCurrentSet: false, currentSet: [1n] });
  let isOver = false;
  for (let ms = 0; ms < 400; ms++) {
    await advance(r, 1);
    if (!isOver && json(r.server, KEYS.pgHistory(1, 1))?.['epoch'] === 8) {
      isOver = true;
      r.server.put(KEYS.pgHistory(1, 1), 'oops');
    }
    const text = r.server.get(KEYS.pgHistory(1, 1)) ?? '';
    if (isOver && text === 'oops') assert.equal(r.engine.of('confirmHistory').length, confirmed);
  }
  assert.equal(json(r.server, KEYS.pgHistory(1, 1))?.['epoch'], 8);
  assert.equal(r.engine.of('confirmHistory').at(-1)?.epoch, 8n);
  assert.equal(r.engine.of('stopPg').length, 0);
});

test('its state key deleted by somebody: put again under the same lease, PGs go on', async () => {
  const r = rig();
  await advance(r, 50);
  await running(r);
  const look = () => r.server.pairs(KEYS.osdState(1))[0];
  const before = look();
  for (let time = 1; time <= 2; time++) {
    r.server.delete(KEYS.osdState(1));
    await advance(r, 100);
    const now = look();
    assert.ok(now && before && now.lease === before.lease && now.value === before.value && now.createRevision > before.createRevision);
  }
  assert.equal(r.engine.of('startPg').length, 1);
  assert.ok(r.engine.of('leaseUntil').every(({ deadlineNs }) => deadlineNs > 0n));
  assert.equal(r.logs.filter((line) => line.includes('osd/state/1 was deleted or replaced')).length, 2);
  // Together with its lease: registered anew.
  r.server.revoke(before?.lease ?? 0n);
  await advance(r, 3000);
  const anew = look();
  assert.ok(anew && anew.lease !== before?.lease);
  // Another one has taken the number: this one ends and says where the other is.
  r.server.delete(KEYS.osdState(1));
  r.server.put(KEYS.osdState(1), JSON.stringify({ state: 'up', addresses: ['10.0.0.9'], port: 7009 }));
  await advance(r, 9000);
  assert.deepEqual(await r.end, { exitCode: 0, reason: 'already up' });
  assert.ok(r.logs.some((line) => line.includes('already up at 10.0.0.9 port 7009')));
});

test('etcd away for longer than the lease: fenced, registered again, PG taken again', async () => {
  const r = rig();
  await advance(r, 50);
  await running(r);
  r.client.connected = false;
  await advance(r, 6000);
  assert.equal(r.engine.of('leaseUntil').at(-1)?.deadlineNs, 0n);
  r.client.connected = true;
  await advance(r, 3000);
  assert.equal(r.engine.of('startPg').length, 2);
  assert.equal(r.engine.of('configure').length, 1, 'the store stays open');
  assert.ok((r.engine.of('startPg')[1]?.interval ?? 0n) > (r.engine.of('startPg')[0]?.interval ?? 0n));
  assert.equal(json(r.server, KEYS.osdState(1))?.['state'], 'up');
});

test('a transaction whose answer was lost is noticed through the watch', async () => {
  const r = rig();
  await advance(r, 50);
  putPool(r.server);
  r.client.failNext('reply-lost');
  putPg(r.server, ['1', '2'], '1');
  await advance(r, 2000);
  assert.equal(r.engine.of('startPg').length, 1);
});

test('a second instance of a number that is up says where the first one is and ends with 0', async () => {
  const a = rig();
  await advance(a, 50);
  const b = rig(1, a.server, a.clock);
  await advance(a, 9000);
  assert.deepEqual(await b.end, { exitCode: 0, reason: 'already up' });
  assert.ok(b.logs.some((line) => line.includes('already up at 127.0.0.1 port 7001')));
});

test('after kill -9 the next instance waits for the old lease and comes up', async () => {
  const a = rig();
  await advance(a, 50);
  a.client.close();
  const b = rig(1, a.server, a.clock);
  await advance(a, 7500);
  assert.equal(b.engine.of('leaseUntil').length > 0, true);
  assert.equal(json(b.server, KEYS.osdState(1))?.['state'], 'up');
  assert.ok(b.logs.some((line) => line.includes('OSD 1 is up')));
});

test('stop: the engine stops first, then the lease is revoked and every key is gone', async () => {
  const r = rig();
  await advance(r, 50);
  await running(r);
  const stopped = r.control.stop();
  await advance(r, 100);
  await stopped;
  assert.deepEqual(await r.end, { exitCode: 0, reason: 'stopped' });
  assert.equal(r.server.get(KEYS.osdState(1)), undefined);
  assert.equal(r.server.get(KEYS.pgState(1, 1)), undefined);
});

test('an empty disk does not get a number that a PG counts on', async () => {
  const creates = async (prepare: (server: MemoryEtcd) => void): Promise<Rig> => {
    const clock = new VirtualClock();
    const server = new MemoryEtcd(clock);
    prepare(server);
    const r = rig(2, server, clock);
    await advance(r, 50);
    return r;
  };
  const created = (r: Rig): boolean | undefined => r.engine.of('configure').at(0)?.store.create;
  assert.equal(created(await creates(() => undefined)), true);
  assert.equal(created(await creates((server) => putPg(server, ['1', '3'], '1'))), true);
  assert.equal(created(await creates((server) => server.put(KEYS.pgHistory(1, 1), JSON.stringify({ epoch: 1, all_peers: [1, 3], osd_sets: [[1]] })))), true);
  assert.equal(created(await creates((server) => putPg(server, ['1', '2'], '1'))), false);
  assert.equal(created(await creates((server) => putPg(server, ['1', '3'], '2'))), false);
  assert.equal(created(await creates((server) => server.put(KEYS.pgHistory(1, 1), JSON.stringify({ epoch: 1, all_peers: [1, 2], osd_sets: [] })))), false);
  assert.equal(created(await creates((server) => server.put(KEYS.pgConfig, '[]'))), false);
  const refused = await creates((server) => server.put(KEYS.pgHistory(7, 12), JSON.stringify({ epoch: 1, all_peers: [], osd_sets: [[1, 2]] })));
  assert.equal(created(refused), false);
  refused.engine.emit({ kind: 'fatal', name: 'store', text: '/dev/x: holds no store yet' });
  await advance(refused, 50);
  const end = await refused.end;
  assert.equal(end.exitCode, 1);
  assert.match(end.reason, /holds no store yet.*pg\/history of PG 7\/12 still counts on the old disk of OSD 2: give this disk a number/);
});

test('a store that is older than what its OSD has reported does not take part', async () => {
  const start = async (stats: string, options: Partial<OsdOptions> = {}): Promise<Rig> => {
    const clock = new VirtualClock();
    const server = new MemoryEtcd(clock);
    server.put(KEYS.osdStats(2), stats);
    const r = rig(2, server, clock, options);
    await advance(r, 50);
    return r;
  };
  const isUp = (r: Rig): boolean => r.server.get(KEYS.osdState(2)) !== undefined;
  const { uuid, logSequence } = STORE;
  const newer = `{"store":{"log_sequence":${logSequence + 1n},"uuid":${uuid}}}`;
  assert.equal(isUp(await start(`{"store":{"log_sequence":${logSequence},"uuid":${uuid}}}`)), true);
  assert.equal(isUp(await start(`{"store":{"log_sequence":${logSequence + 1n},"uuid":${uuid + 1n}}}`)), true, 'another store');
  assert.equal(isUp(await start('{}')), true);
  assert.equal(isUp(await start('[')), true);
  assert.equal(isUp(await start(newer, { allowsOldDisk: true })), true);
  const refused = await start(newer);
  assert.equal(isUp(refused), false);
  const end = await refused.end;
  assert.equal(end.exitCode, 1);
  assert.match(end.reason, /the store of OSD 2 is older.*ends with write 1000, but \/vitastor\/osd\/stats\/2 says that write 1001 was durable/);
});

test('a fatal engine ends with 1 and frees the lease', async () => {
  const r = rig();
  await advance(r, 50);
  r.engine.emit({ kind: 'fatal', name: 'store', text: 'the disk is gone' });
  await advance(r, 50);
  const end = await r.end;
  assert.equal(end.exitCode, 1);
  assert.match(end.reason, /the disk is gone/);
  assert.equal(r.server.get(KEYS.osdState(1)), undefined);
});

test('statistics: sizes in bytes, rates over the period, time with three decimals', async () => {
  const r = rig();
  await advance(r, 50);
  const counters = (count: bigint): { count: bigint; usec: bigint; bytes: bigint } => ({ count, usec: count * 100n, bytes: count * 4096n });
  const statistics = (count: bigint): EngineEvent => ({
    kind: 'statistics', store: STORE, space: [{ inode: (1n << 48n) | 3n, bytes: 131072n }], opStats: { primary_read: counters(count) }, subopStats: {},
    recoveryDegraded: counters(0n), recoveryMisplaced: counters(0n), pgs: [], inodes: [{ inode: (1n << 48n) | 3n, read: counters(count), write: counters(0n), del: counters(0n) }],
    slowOpsPrimary: 0n, slowOpsSecondary: 0n, memoryBytes: 5000n, memoryBy: { connections: 5000n },
  });
  r.engine.emit(statistics(1000n));
  await advance(r, 10_000);
  r.engine.emit(statistics(6000n));
  await advance(r, 10);
  const stats = json(r.server, KEYS.osdStats(1));
  assert.equal(stats?.['size'], 13107200);
  assert.equal(stats?.['free'], 11796480);
  assert.match(String(stats?.['time']), /^\d+\.\d{3}$/);
  assert.deepEqual(stats?.['memory'], { connections: 5000 });
  const store = stats?.['store'] as JsonObject;
  assert.deepEqual([store['log_sequence'], store['uuid']], [1000, STORE.uuid]);
  const read = (stats?.['op_stats'] as JsonObject)['primary_read'] as JsonObject;
  assert.equal(read['count'], 6000);
  assert.equal(read['iops'], 500);
  assert.equal(read['lat'], 100);
  assert.deepEqual(json(r.server, KEYS.osdSpace(1)), { 1: { 3: 131072 } });
});

test('a lock that is no longer wanted when it is granted is given back', async () => {
  const r = rig();
  await advance(r, 50);
  putPool(r.server);
  // Found by the simulator (seed 33): the map moves on while the transaction is on its way.
  const txn = r.client.txn.bind(r.client);
  r.client.txn = async (request, timeoutMs) => {
    if (request.success.some((op) => op.op === 'put' && op.key === KEYS.pgState(1, 1) && op.value.includes('starting'))) {
      putPg(r.server, ['1', '2'], '2');
      await new Promise<void>((resolve) => r.clock.after(50, resolve));
    }
    return txn(request, timeoutMs);
  };
  putPg(r.server, ['1', '2'], '1');
  await advance(r, 2000);
  assert.equal(r.server.get(KEYS.pgState(1, 1)), undefined, 'the other OSD can take it');
  assert.equal(r.engine.of('startPg').length, 0);
});

const nextScrub = (r: Rig): unknown => json(r.server, KEYS.pgHistory(1, 1))?.['next_scrub'];
const scrubbed = (interval: bigint): EngineEvent => ({ kind: 'pgScrubbed', pg: { pool: 1, pg: 1 }, interval });
const setGlobal = (r: Rig, global: JsonObject): void => r.server.put(KEYS.configGlobal, JSON.stringify(global));

test('auto_scrub plans a scrub in the history, has it done when it is due, and plans the next one', async () => {
  const r = rig();
  await advance(r, 50);
  setGlobal(r, { auto_scrub: true, scrub_interval: '1h' });
  const interval = await running(r);
  const start = Math.floor(r.clock.wallMs() / 1000);
  r.engine.emit(state(interval, PG_BITS.active));
  await advance(r, 1000);
  const planned = Number(nextScrub(r));
  assert.ok(planned >= start + 3600 && planned <= start + 3602, `planned at ${planned}, now ${start}`);
  await advance(r, 3_590_000);
  assert.equal(r.engine.of('scrubPg').length, 0);
  await advance(r, 15_000);
  assert.deepEqual(r.engine.of('scrubPg'), [{ kind: 'scrubPg', pg: { pool: 1, pg: 1 }, interval }]);
  r.engine.emit(state(interval, PG_BITS.active | PG_BITS.scrubbing));
  await advance(r, 5_000);
  assert.deepEqual(json(r.server, KEYS.pgState(1, 1))?.['state'], ['active', 'scrubbing']);
  r.engine.emit(state(interval, PG_BITS.active), scrubbed(interval));
  await advance(r, 1000);
  assert.ok(Number(nextScrub(r)) > planned + 3500);
  assert.equal(r.engine.of('scrubPg').length, 1);
  assert.equal(r.engine.of('stopPg').length, 0, 'our own plan does not make us peer again');
});

test('a shorter scrub_interval counts at once, the one of the pool first', async () => {
  const r = rig();
  await advance(r, 50);
  setGlobal(r, { auto_scrub: true });
  const interval = await running(r);
  r.engine.emit(state(interval, PG_BITS.active));
  await advance(r, 1000);
  const now = Math.floor(r.clock.wallMs() / 1000);
  assert.ok(Number(nextScrub(r)) > now + 29 * 86400);
  putPool(r.server, { scrub_interval: '1d' });
  await advance(r, 1000);
  assert.ok(Math.abs(Number(nextScrub(r)) - now - 86400) <= 2);
});

test('no_scrub holds a due scrub back; a scrub cut short by peering is asked for again', async () => {
  const r = rig();
  await advance(r, 50);
  setGlobal(r, { no_scrub: true });
  const interval = await running(r);
  r.server.put(KEYS.pgHistory(1, 1), JSON.stringify({ epoch: 0, osd_sets: [], all_peers: [], next_scrub: 1 }));
  r.engine.emit(state(interval, PG_BITS.active));
  await advance(r, 5000);
  assert.equal(r.engine.of('scrubPg').length, 0);
  setGlobal(r, {});
  await advance(r, 1000);
  assert.equal(r.engine.of('scrubPg').length, 1, 'planned by hand: done without auto_scrub');
  r.engine.emit(state(interval, PG_BITS.peering));
  await advance(r, 1000);
  assert.equal(r.engine.of('scrubPg').length, 1);
  r.engine.emit(state(interval, PG_BITS.active));
  await advance(r, 1000);
  assert.equal(r.engine.of('scrubPg').length, 2);
  r.engine.emit(scrubbed(interval));
  await advance(r, 1000);
  assert.equal(nextScrub(r), undefined);
  await advance(r, 20_000);
  assert.equal(r.engine.of('scrubPg').length, 2);
});

/** A PG whose first planned scrub is due and asked for. */
async function scrubDue(r: Rig): Promise<bigint> {
  await advance(r, 50);
  setGlobal(r, { auto_scrub: true, scrub_interval: '1h' });
  const interval = await running(r);
  r.engine.emit(state(interval, PG_BITS.active));
  await advance(r, 3_605_000);
  assert.equal(r.engine.of('scrubPg').length, 1);
  return interval;
}

test('a scrub that has just been done is not asked for again by the history that the watch still shows', async () => {
  const r = rig();
  await advance(r, 50);
  setGlobal(r, { auto_scrub: true, scrub_interval: '1h' });
  putPool(r.server, { pg_count: 2 });
  const members = { osd_set: ['1', '2'], primary: '1' };
  r.server.put(KEYS.pgConfig, JSON.stringify({ hash: 'x', items: { 1: { 1: members, 2: members } } }));
  // When the second PG is due, all of them are looked at.
  const now = Math.floor(r.clock.wallMs() / 1000);
  for (const pg of [1, 2])
    r.server.put(KEYS.pgHistory(1, pg), JSON.stringify({ epoch: 0, osd_sets: [], all_peers: [], next_scrub: now + 2 * pg }));
  await advance(r, 100);
  const [first, second] = r.engine.of('startPg');
  assert.ok(first && second);
  for (const { pg, interval } of [first, second]) r.engine.emit({ ...state(interval, PG_BITS.active), pg } as EngineEvent);
  await advance(r, 2000);
  const asked = (): number[] => r.engine.of('scrubPg').map(({ pg }) => pg.pg);
  assert.deepEqual(asked(), [1]);

  const deliver = r.client.deliverSoon.bind(r.client);
  r.client.deliverSoon = () => void r.clock.after(10_000, deliver);
  r.engine.emit(scrubbed(first.interval));
  await advance(r, 5000);
  assert.ok(Number(nextScrub(r)) > now + 3000, 'the next one is planned');
  assert.deepEqual(asked(), [1, 2]);
});

test('scrubs go on when the answer to a plan was lost', async () => {
  const r = rig();
  const interval = await scrubDue(r);
  r.client.failNext('reply-lost');
  r.engine.emit(scrubbed(interval));
  await advance(r, 60_000);
  await advance(r, 3_605_000);
  assert.equal(r.engine.of('scrubPg').length, 2);
});
