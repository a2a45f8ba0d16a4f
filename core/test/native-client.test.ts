// SPDX-License-Identifier: GPL-2.0-or-later
// The addon and the Image API against a private etcd, without OSDs: misuse, errors, and how processes end.
// Data itself is tested in test/ against whole clusters.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { VitastorError } from '../src/errors.js';
import { Client } from '../src/image.js';
import { loadNativeClient, type ClusterHandle, type NativeClient } from '../src/native/addon.js';
import { openNativeDataOps } from '../src/native/data-ops.js';
import { Etcd3Adapter } from '../src/seams/etcd3-adapter.js';
import { SystemClock, SystemRandom } from '../src/seams/system.js';
import { ETCD_MISSING, EtcdServer } from '../src/testing/etcd-server.js';
import { nativeMissing } from '../src/testing/native-missing.js';

const MISSING = nativeMissing() || ETCD_MISSING;
const rejectsWith = (code: string) => (error: unknown): boolean => error instanceof VitastorError && error.code === code;

describe('native client', { skip: MISSING }, () => {
  let server: EtcdServer;
  let config: Record<string, string>;
  let native: NativeClient;

  before(async () => {
    native = loadNativeClient();
    server = await EtcdServer.start();
    config = { etcd_address: server.address };
    const etcd = new Etcd3Adapter({ addresses: [`http://${server.address}/v3`], clock: new SystemClock(), random: new SystemRandom() });
    const put = (key: string, value: unknown) => ({ op: 'put' as const, key: `/vitastor${key}`, value: JSON.stringify(value) });
    await etcd.txn({
      compare: [],
      success: [
        put('/config/pools', { 1: { name: 'p', scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 1 } }),
        put('/config/inode/1/1', { name: 'img', size: 1048576 }),
        put('/config/inode/1/2', { name: 'gone', size: '4096', readonly: true }),
      ],
    }, 5000);
    etcd.close();
  });
  after(async () => { await server.stop(); });

  test('handles are checked, not believed', () => {
    // Deliberately wrong types, as plain JavaScript could pass them.
    const wrong: unknown[] = [null, undefined, 5, {}, [], 'cluster'];
    for (const value of wrong) assert.throws(() => native.contextOpen(value as ClusterHandle, 0), TypeError);
    assert.match(native.version(), /^3\.0\.8/);
    const messages: string[] = [];
    assert.equal(native.clusterOpen('/nonexistent/vitastor.conf', [], true, (_level, text) => messages.push(text)), -2);
  });

  test('settings that cannot work throw at once', () => {
    assert.throws(() => new Client({ config: { etcd_address: 'not an address' }, log: () => undefined }), rejectsWith('ERR_INVALID_ARGUMENT'));
    assert.throws(() => new Client({ config: {}, configPath: '/nonexistent/vitastor.conf', log: () => undefined }), rejectsWith('ERR_NOT_FOUND'));
  });

  test('images: by name and by number, missing ones, what they say of themselves', async () => {
    const client = new Client({ config, log: () => undefined });
    try {
      await assert.rejects(client.open({ image: 'nothing' }), (error: unknown) => rejectsWith('ERR_NOT_FOUND')(error) && /image nothing/.test(String(error)));
      await assert.rejects(client.open({ pool: 9, inode: 1n }), rejectsWith('ERR_NOT_FOUND'));
      await assert.rejects(client.open({}), rejectsWith('ERR_INVALID_ARGUMENT'));
      const image = await client.open({ image: 'img' });
      assert.equal(image.sizeBytes, 1048576n);
      assert.equal(image.inode, (1n << 48n) | 1n);
      assert.equal(image.objectSizeBytes, 131072);
      assert.equal(image.granularity, 4096);
      assert.equal(image.readOnly, false);
      assert.equal(image.immediateCommit, true);
      await image.flush();
      await assert.rejects(image.read(1n, 4096), rejectsWith('ERR_INVALID_ARGUMENT'));
      await assert.rejects(image.write(0n, Buffer.alloc(100)), rejectsWith('ERR_INVALID_ARGUMENT'));
      await image.close();
      await image.close();
      await assert.rejects(image.read(0n, 4096), rejectsWith('ERR_ABORTED'));
      const readOnly = await client.open({ image: 'gone' });
      assert.equal(readOnly.readOnly, true);
      await assert.rejects(readOnly.write(0n, Buffer.alloc(4096)), rejectsWith('ERR_UNSUPPORTED'));
    } finally {
      await client.close();
    }
    await assert.rejects(client.open({ image: 'img' }), rejectsWith('ERR_ABORTED'));
  });

  test('closing ends what waits for OSDs', async () => {
    const client = new Client({ config, log: () => undefined });
    const image = await client.open({ image: 'img' });
    const reads = Array.from({ length: 20 }, () => assert.rejects(image.read(0n, 4096), rejectsWith('ERR_ABORTED')));
    const purge = assert.rejects(client.purge({ pool: 1, inode: 1n }).then((outcome) => {
      // No PGs at all: there is nothing to list.
      assert.deepEqual(outcome.inactivePgs, []);
      throw new VitastorError('ERR_ABORTED', 'ended by itself');
    }), rejectsWith('ERR_ABORTED'));
    await client.close();
    await Promise.all([...reads, purge]);
  });

  test('merge: what cannot work is named; an empty chain ends; without a pool, without etcd', async () => {
    const client = new Client({ config, log: () => undefined });
    const id = (pool: bigint, inode: bigint): bigint => (pool << 48n) | inode;
    try {
      await assert.rejects(client.merge({ layers: [id(1n, 1n)], target: 0 }), rejectsWith('ERR_INVALID_ARGUMENT'));
      await assert.rejects(client.merge({ layers: [id(1n, 1n), id(1n, 2n)], target: 2 }), rejectsWith('ERR_INVALID_ARGUMENT'));
      await assert.rejects(client.merge({ layers: [id(1n, 1n), id(1n, 1n)], target: 1 }),
        (error: unknown) => rejectsWith('ERR_INVALID_ARGUMENT')(error) && /inode 1 of pool 1 is twice/.test(String(error)));
      await assert.rejects(client.merge({ layers: [id(1n, 1n), id(9n, 1n)], target: 0 }), rejectsWith('ERR_NOT_FOUND'));
      // No PGs at all: there is nothing to list.
      const progress: bigint[] = [];
      const outcome = await client.merge({
        layers: [id(1n, 1n), id(1n, 2n)], target: 1, onProgress: (...counts) => progress.push(...counts),
      });
      assert.deepEqual([outcome, progress], [{ mergedObjects: 0n, writtenBytes: 0n }, [0n, 0n, 0n]]);
    } finally {
      await client.close();
    }
  });

  test('no etcd: given up with the addresses named', async () => {
    const client = new Client({ config: { etcd_address: '127.0.0.1:1', max_etcd_attempts: '2' }, log: () => undefined });
    await assert.rejects(client.open({ image: 'img' }), (error: unknown) => rejectsWith('ERR_ETCD_UNAVAILABLE')(error) && /127\.0\.0\.1:1/.test(String(error)));
    await assert.rejects(client.merge({ layers: [(1n << 48n) | 1n, (1n << 48n) | 2n], target: 1 }), rejectsWith('ERR_ETCD_UNAVAILABLE'));
    await client.close();
  });

  test('removal of data: unknown pools, interruption', async () => {
    const ops = await openNativeDataOps(config);
    const request = { pool: 1, inode: 7n, minOffset: 0n, maxOffset: null, iodepth: 32, parallelOsds: 4, waitList: false, downOk: false, waitUpTimeoutMs: 1000 };
    await assert.rejects(ops.deleteInodeData({ ...request, pool: 77 }), rejectsWith('ERR_NOT_FOUND'));
    const result = await ops.deleteInodeData(request);
    assert.deepEqual(result, { removedObjects: 0n, totalObjects: 0n, errorCount: 0n, inactiveOsds: [], inactivePgs: [] });
    await assert.rejects(ops.deleteInodeData(request, undefined, AbortSignal.abort()), rejectsWith('ERR_ABORTED'));
    await ops.close();
  });

  test('processes end by themselves when idle, and without a crash when they are told to', async () => {
    const run = (script: string): Promise<string> => new Promise((resolve, reject) => {
      const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
      let out = '';
      child.stdout.on('data', (piece: Buffer) => { out += piece.toString(); });
      child.on('error', reject);
      child.on('close', (code, signal) => resolve(`${out.trim()} ${String(code)} ${String(signal)}`));
    });
    const module = new URL('../src/image.js', import.meta.url).href;
    const open = `import { Client } from ${JSON.stringify(module)};
      const client = new Client({ config: ${JSON.stringify(config)}, log: () => undefined });
      const image = await client.open({ image: 'img' });`;
    assert.equal(await run(`${open} console.log('idle');`), 'idle 0 null');
    assert.equal(await run(`${open} image.read(0n, 4096).catch(() => undefined); console.log('pending'); process.exit(3);`), 'pending 3 null');
    assert.equal(await run(`${open} image.read(0n, 4096).catch(() => undefined); console.log('closing'); await client.close();`), 'closing 0 null');
  });
});
