// SPDX-License-Identifier: GPL-2.0-or-later
// Wrong input of every kind: a clear message that names the thing, and nothing lost.

import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync, writeFileSync } from 'node:fs';
import { createConnection, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { freePort, type Lab, sleep, until } from '../lab/index.js';
import { assertSays, fioVerify, smallCluster, type Story } from './scenario.js';

function sparseFile(path: string, bytes: number): string {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, bytes);
  closeSync(fd);
  return path;
}

/** Starts an OSD that must end by itself; returns what it said. */
async function failingOsd(lab: Lab, num: number, params: Record<string, string | number | boolean>): Promise<{ code: number | null; text: string }> {
  const child = await lab.startOsd(num, params, { wait: false });
  const exit = await until(`OSD ${num} ends by itself`, () => child.exit ?? undefined, { timeoutMs: 40_000, diagnose: () => child.story() });
  return { code: exit.code, text: child.lastLines(40).join('\n') };
}

const osdRefusals: Story = {
  name: 'osd-refusals',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make();
    await lab.startEtcd();
    await lab.startOsd(1);
    const inUse = await failingOsd(lab, 11, { data_device: lab.osdFile(1) });
    assert.equal(inUse.code, 1);
    assertSays(inUse.text, /osd1\.data/, /in use|lock/i);

    const small = await failingOsd(lab, 12, { data_device: sparseFile(join(lab.dir, 'small.data'), 65536) });
    assert.equal(small.code, 1);
    assertSays(small.text, /small\.data/, /small|at least/i);

    const absent = await failingOsd(lab, 13, { data_device: join(lab.dir, 'absent.data') });
    assert.equal(absent.code, 1);
    assertSays(absent.text, /absent\.data/);

    await lab.osds.get(1)?.stop();
    const foreign = await failingOsd(lab, 14, { data_device: lab.osdFile(1) });
    assert.equal(foreign.code, 1);
    assertSays(foreign.text, /osd1\.data/, /\b14\b/, /\b1\b/);

    const geometry = await failingOsd(lab, 1, { block_size: 262144 });
    assert.equal(geometry.code, 1);
    assertSays(geometry.text, /262144/, /131072/);

    await lab.startOsd(2);
    const twin = await failingOsd(lab, 2, { data_device: sparseFile(join(lab.dir, 'twin.data'), 256 << 20) });
    assert.equal(twin.code, 0, 'its number is up already: systemd may try again later');
    assertSays(twin.text, /OSD 2 is already up at 127\.0\.0\.1 port \d+/);
  },
};

const mismatch: Story = {
  name: 'pool-and-osd-disagree',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make();
    await smallCluster(lab);
    const pools = JSON.parse((await lab.etcd.get('/vitastor/config/pools')) ?? '{}') as Record<string, unknown>;
    pools['2'] = { name: 'big', scheme: 'replicated', pg_size: 1, pg_minsize: 1, pg_count: 1, failure_domain: 'host', block_size: 1048576 };
    await lab.etcd.put('/vitastor/config/pools', JSON.stringify(pools));
    // The monitor makes no PGs for it; one put by hand must be refused by the OSD.
    await until('OSD 1 refuses a pool of another block size', async () => {
      const config = JSON.parse((await lab.etcd.get('/vitastor/pg/config')) ?? '{}') as { items?: Record<string, unknown> };
      config.items = { ...config.items, 2: { 1: { osd_set: [1], primary: 1 } } };
      await lab.etcd.put('/vitastor/pg/config', JSON.stringify(config));
      await sleep(300);
      return /pool 2 .*1048576.*131072/.test(lab.osds.get(1)?.lastLines(60).join('\n') ?? '');
    }, { timeoutMs: 20_000, diagnose: () => lab.diagnose() });
    await fioVerify(lab, { depth: 8, seconds: 1, megabytes: 8 });
  },
};

const garbageKeys: Story = {
  name: 'garbage-in-etcd',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make();
    await smallCluster(lab);
    const garbage = ['{"name":', '[]', '"text"', '{"items":{"1":7}}', '{"state":7}', 'null'];
    const keys = [
      'config/inode/1/77', 'config/osd/9', 'config/node_placement', 'osd/stats/9', 'osd/state/9', 'pg/state/1/99', 'pg/history/1/99', 'pgstats/1/99', 'osd/space/9',
      'osd/inodestats/9', 'inode/stats/1/77', 'pool/stats/77', 'mon/member/abc', 'history/last_clean_pgs', 'index/maxid/9', 'index/image/none', 'stats',
    ];
    for (const text of garbage) {
      for (const key of keys) await lab.etcd.put(`/vitastor/${key}`, text);
      await sleep(200);
    }
    for (const child of lab.daemons()) assert.equal(child.exit, null, `${child.name} must survive garbage:\n${child.story()}`);
    await fioVerify(lab, { depth: 8, seconds: 1, megabytes: 8 });
    const ls = await lab.cli(['ls']);
    assert.equal(ls.code, 0, ls.stderr);
    assertSays(ls.stdout, /testimg/);
    // The state key of an OSD that runs: it comes back under the same lease, and nothing else happens to the OSD.
    const before = await lab.etcd.origin('/vitastor/osd/state/1');
    await lab.etcd.delete('/vitastor/osd/state/1');
    const after = await until('OSD 1 has put its key again', () => lab.etcd.origin('/vitastor/osd/state/1'), { timeoutMs: 20_000, diagnose: () => lab.diagnose() });
    assert.equal(after.lease, before?.lease);
    await lab.waitActive({ clean: true });
    await fioVerify(lab, { depth: 8, seconds: 1, megabytes: 8 });
    // The configuration of pools and PGs themselves: what was known stays in force, with a message that names the key.
    const pools = await lab.etcd.get('/vitastor/config/pools');
    await lab.etcd.put('/vitastor/config/pools', '{"1":{"name":"testpool",');
    await until('an OSD names the broken key', () => /config\/pools/.test(lab.osds.get(1)?.lastLines(60).join('\n') ?? ''), { timeoutMs: 10_000, diagnose: () => lab.diagnose() });
    await lab.etcd.put('/vitastor/config/pools', pools ?? '');
    await lab.waitActive();
    await fioVerify(lab, { depth: 8, seconds: 1, megabytes: 8 });
  },
};

/** A port that accepts and never answers. */
async function silentServer(): Promise<{ port: number; close: () => void }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

const etcdAddresses: Story = {
  name: 'etcd-addresses',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make();
    await smallCluster(lab);
    const good = lab.etcdAddresses[0] ?? '';
    const silent = await silentServer();
    const config = join(lab.dir, 'empty.conf');
    writeFileSync(config, '{}\n');
    try {
      const dead = `127.0.0.1:${await freePort()}`;
      for (const list of [`${dead},${good}`, `127.0.0.1:${silent.port},${good}`, `no.such.host.invalid:2379,${good}`, `http://${dead},127.0.0.1:${silent.port},${good}`]) {
        const ls = await lab.command('cli', [...lab.programs.cli, 'ls', '--config_path', config, '--etcd_address', list], { timeoutMs: 20_000 });
        assert.equal(ls.code, 0, `vitastor-cli ls with ${list}: ${ls.stderr}`);
        assertSays(ls.stdout, /testimg/);
        const fio = await lab.rawFio([
          '-thread', '-ioengine=vitastor', `-conf=${config}`, `-etcd=${list}`, '-name=x', '-image=testimg', '-rw=randwrite', '-bs=4k', '-size=1M',
        ], { timeoutMs: 20_000 });
        assert.equal(fio.code, 0, `fio with ${list}: ${fio.stdout}${fio.stderr}`);
      }
      const none = await lab.command('cli', [...lab.programs.cli, 'ls', '--config_path', config, '--etcd_address', dead], { timeoutMs: 60_000 });
      assert.equal(none.code, 5, 'an etcd communication error');
      assertSays(none.stderr, new RegExp(dead.replaceAll('.', '\\.')));
    } finally {
      silent.close();
    }
  },
};

const garbageOnPort: Story = {
  name: 'garbage-on-osd-port',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make();
    await smallCluster(lab);
    const state = JSON.parse((await lab.etcd.get('/vitastor/osd/state/1')) ?? '{}') as { port?: number };
    const port = state.port ?? 0;
    const header = Buffer.alloc(128);
    Buffer.from('5345432503b1d72b', 'hex').copy(header);
    header.writeBigUInt64LE(1n, 8);
    header.writeBigUInt64LE(10n, 16);
    header.writeBigUInt64LE(1n << 50n, 24);
    const texts = [Buffer.from('GET / HTTP/1.1\r\n\r\n'.repeat(20)), Buffer.alloc(4096, 0xff), header, header.subarray(0, 77)];
    for (const bytes of texts) {
      const socket = createConnection(port, '127.0.0.1');
      socket.on('error', () => undefined);
      await new Promise<void>((resolve) => socket.once('connect', resolve));
      const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
      if (bytes.length === 77) socket.end(bytes);
      else socket.write(bytes);
      await Promise.race([closed, sleep(10_000).then(() => assert.fail('the connection that sent garbage stays open'))]);
    }
    assert.equal(lab.osds.get(1)?.exit, null);
    await fioVerify(lab, { depth: 8, seconds: 1, megabytes: 8 });
  },
};

const unknownNames: Story = {
  name: 'unknown-names',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make();
    await smallCluster(lab);
    const image = await lab.fio(['-name=x', '-image=nosuch', '-rw=read', '-bs=4k', '-size=1M'], { timeoutMs: 20_000 });
    assert.notEqual(image.code, 0);
    assertSays(image.stdout + image.stderr, /nosuch/);
    const pool = await lab.fio(['-name=x', '-pool=77', '-inode=1', '-size=1M', '-rw=read', '-bs=4k'], { timeoutMs: 20_000 });
    assert.notEqual(pool.code, 0);
    assertSays(pool.stdout + pool.stderr, /77/);
    const misaligned = await lab.fio(['-name=x', '-image=testimg', '-rw=write', '-bs=512', '-size=1M'], { timeoutMs: 20_000 });
    assert.notEqual(misaligned.code, 0);
    const cli = await lab.cli(['rm', 'nosuch']);
    assert.equal(cli.code, 2);
    assertSays(cli.stderr, /nosuch/);
  },
};

const diskFull: Story = {
  name: 'disk-full',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make({ osdBytes: 160 << 20, config: { client_retry_enospc: false } });
    await smallCluster(lab, { osds: 2, image: '512M' });
    await fioVerify(lab, { depth: 8, seconds: 1, megabytes: 16 });
    const full = await lab.fio(['-name=full', '-image=testimg', '-offset=32M', '-rw=write', '-bs=1M', '-size=480M', '-iodepth=4'], { timeoutMs: 60_000 });
    assert.notEqual(full.code, 0, 'a full cluster refuses writes');
    assertSays(full.stdout + full.stderr, /[Nn]o space/);
    for (const child of lab.osds.values()) assert.equal(child.exit, null);
    // What was there is there, and may still be overwritten.
    const read = await lab.fio(['-name=verify', '-image=testimg', '-rw=randread', '-bs=4k', '-size=16M', '-verify=crc32c', '-iodepth=8'], { timeoutMs: 60_000 });
    assert.equal(read.code, 0, read.stdout + read.stderr);
    const rm = await lab.cli(['rm', 'testimg']);
    assert.equal(rm.code, 0, rm.stderr);
    await lab.createImage('testimg', '64M');
    await fioVerify(lab, { depth: 8, seconds: 1, megabytes: 16 });
  },
};

export const MISUSE_STORIES: readonly Story[] = [
  osdRefusals, mismatch, garbageKeys, etcdAddresses, garbageOnPort, unknownNames, diskFull,
];
