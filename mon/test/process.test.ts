// SPDX-License-Identifier: GPL-2.0-or-later
// The real process on a real, private etcd.

import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  decodePgConfig,
  Etcd3Adapter,
  KeySpace,
  stringifyJson,
  SystemClock,
  SystemRandom,
  type JsonValue,
  type PgItem,
  type WatchEvent,
} from '@vitastor/core';

const MISSING: string | false = spawnSync('etcd', ['--version'], { stdio: 'ignore' }).error
  ? 'left out: the program etcd is not installed'
  : false;
const MAIN = fileURLToPath(new URL('../src/main.js', import.meta.url));
/** Nothing here takes a second; this only ends a test that hangs. */
const TEST_TIMEOUT_MS = 60_000;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  assert.ok(typeof address === 'object' && address !== null);
  return address.port;
}

/** A child whose output can be waited for. */
class Child {
  readonly process: ChildProcess;
  output = '';
  #wake: () => void = () => undefined;

  constructor(command: string, args: readonly string[]) {
    this.process = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        this.output += chunk.toString();
        this.#wake();
      });
    }
    this.process.on('exit', () => this.#wake());
  }

  get ended(): boolean {
    return this.process.exitCode !== null || this.process.signalCode !== null;
  }

  async says(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.output)) {
      if (this.ended) throw new Error(`ended without saying ${pattern}: ${this.output}`);
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  async end(signal: NodeJS.Signals = 'SIGKILL'): Promise<number | null> {
    if (!this.ended) {
      this.process.kill(signal);
      await once(this.process, 'exit');
    }
    return this.process.exitCode;
  }
}

describe('the process', { skip: MISSING, timeout: TEST_TIMEOUT_MS }, () => {
  const keys = new KeySpace();
  const children: Child[] = [];
  let dir = '';
  let address = '';
  let etcd: Etcd3Adapter;

  function start(command: string, args: readonly string[]): Child {
    const child = new Child(command, args);
    children.push(child);
    return child;
  }

  async function startMonitor(...args: string[]): Promise<{ child: Child; port: number }> {
    const port = await freePort();
    const child = start(process.execPath, [
      MAIN,
      '--etcd_address',
      address,
      '--mon_http_ip',
      '127.0.0.1',
      '--mon_http_port',
      String(port),
      ...args,
    ]);
    return { child, port };
  }

  async function put(path: string, value: JsonValue): Promise<void> {
    await etcd.txn(
      { compare: [], success: [{ op: 'put', key: keys.at(path), value: stringifyJson(value) }] },
      5000,
    );
  }

  /** The PGs of pool 1 as soon as they are as wished. */
  async function pgs(wished: (items: readonly PgItem[]) => boolean): Promise<readonly PgItem[]> {
    const first = await etcd.txn(
      { compare: [], success: [{ op: 'range', range: { key: keys.pgConfig } }] },
      5000,
    );
    const items = (text: string): readonly PgItem[] =>
      decodePgConfig(keys.pgConfig, text).config.items.get(1) ?? [];
    const now = items(first.responses[0]?.[0]?.value ?? '{}');
    if (wished(now)) return now;
    return new Promise((resolve) => {
      const watch = etcd.watch([{ key: keys.pgConfig }], first.revision + 1n, {
        onEvents: (events: readonly WatchEvent[]) => {
          const found = items(events[events.length - 1]?.value ?? '{}');
          if (!wished(found)) return;
          watch.close();
          resolve(found);
        },
        onEnd: () => undefined,
      });
    });
  }

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'vitastor-mon-'));
    const client = await freePort();
    const peer = `http://127.0.0.1:${await freePort()}`;
    address = `127.0.0.1:${client}`;
    const server = start('etcd', [
      '--data-dir',
      join(dir, 'etcd'),
      '--unsafe-no-fsync',
      '--listen-client-urls',
      `http://${address}`,
      '--advertise-client-urls',
      `http://${address}`,
      '--listen-peer-urls',
      peer,
      '--initial-advertise-peer-urls',
      peer,
      '--initial-cluster',
      `default=${peer}`,
    ]);
    await server.says(
      /ready to serve client requests|serving insecure client requests|serving client traffic insecurely/,
    );
    etcd = new Etcd3Adapter({
      addresses: [address],
      clock: new SystemClock(),
      random: new SystemRandom(),
    });
  });

  after(async () => {
    etcd?.close();
    await Promise.all(children.map((child) => child.end()));
    await rm(dir, { recursive: true, force: true });
  });

  test('PGs for three OSDs, primaries that move, hand-over, metrics, a clean end', async () => {
    const first = await startMonitor('--mon_change_timeout', '100');
    await first.child.says(/this monitor is master/);
    const second = await startMonitor('--mon_change_timeout', '100');
    await second.child.says(/standing by/);
    for (const num of [1, 2, 3]) {
      await put(`osd/stats/${num}`, {
        time: (new SystemClock().wallMs() / 1000).toFixed(3),
        size: 2 ** 30,
        free: 2 ** 30,
        host: `host${num}`,
        data_block_size: 131072,
        bitmap_granularity: 4096,
        immediate_commit: 'all',
      });
      await put(`osd/state/${num}`, {
        state: 'up',
        addresses: ['127.0.0.1'],
        port: 1,
        host: `host${num}`,
      });
    }
    await put('config/pools', {
      1: { name: 'p', scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 64 },
    });
    const created = await pgs(
      (items) =>
        items.length === 64 &&
        items.every((item) => item.primary !== 0 && !item.osdSet.includes(0)),
    );
    assert.deepEqual([...new Set(created.map((item) => item.primary))].sort(), [1, 2, 3]);
    assert.ok(created.every((item) => new Set(item.osdSet).size === 2));

    const metrics = await fetch(`http://127.0.0.1:${first.port}/metrics`);
    const text = await metrics.text();
    assert.equal(metrics.status, 200);
    assert.match(metrics.headers.get('content-type') ?? '', /text\/plain; version=0\.0\.4/);
    assert.match(text, /^vitastor_osd_status\{host="host1",osd_num="1"\} 1$/m);
    assert.match(text, /^vitastor_pg_count\{pg_state="offline",pool_id="1",pool_name="p"\} 64$/m);
    assert.match(text, /^vitastor_monitor_info\{.*\} 1$/m);
    assert.equal((await fetch(`http://127.0.0.1:${second.port}/metrics`)).status, 503);

    await etcd.txn(
      { compare: [], success: [{ op: 'delete', range: { key: keys.osdState(1) } }] },
      5000,
    );
    await pgs((items) => items.length === 64 && items.every((item) => item.primary > 1));

    assert.equal(await first.child.end('SIGTERM'), 0);
    await second.child.says(/this monitor is master/);
    assert.deepEqual(
      (await pgs(() => true)).map((item) => item.osdSet),
      created.map((item) => item.osdSet),
    );
    assert.match(
      first.child.output,
      new RegExp(`etcd address ${address.replace(/\./g, '\\.')} \\(command line\\)`),
    );
    assert.match(first.child.output, /mon_change_timeout = 100 \(command line\)/);

    // A killed one leaves nothing that the next cannot take.
    await second.child.end('SIGKILL');
    const third = await startMonitor('--etcd_mon_ttl', '1');
    await third.child.says(/standing by/);
    assert.equal(await third.child.end('SIGINT'), 0);
  });

  test('where settings came from is in the log, and what was not understood', async () => {
    const path = join(dir, 'vitastor.conf');
    await writeFile(
      path,
      JSON.stringify({ etcd_address: [address], osd_out_time: 'soon', mon_stats_timeout: 500 }),
    );
    const port = await freePort();
    const child = start(process.execPath, [
      MAIN,
      '--config_path',
      path,
      '--mon_http_port',
      String(port),
      '--etcd_prefix',
      'other/',
    ]);
    await child.says(/this monitor is master/);
    assert.match(child.output, /mon_stats_timeout = 500 \(file .*vitastor\.conf\)/);
    assert.match(child.output, /osd_out_time = .*soon.*is not a/);
    assert.equal(await child.end('SIGINT'), 0);
  });

  test('no address, a bad file, a strange argument: one line and exit code 1', async () => {
    const bad = join(dir, 'bad.conf');
    await writeFile(bad, '{"etcd_address": ');
    const good = join(dir, 'empty.conf');
    await writeFile(good, '{}');
    for (const [args, expected] of [
      [['--config_path', good], /etcd_address is not set: give --etcd_address/],
      [['--config_path', bad], /bad\.conf is not valid JSON at line 1/],
      [['--config_path', join(dir, 'none.conf')], /none\.conf does not exist/],
      [['now'], /unexpected argument "now"/],
    ] as const) {
      const child = start(process.execPath, [MAIN, ...args]);
      if (!child.ended) await once(child.process, 'close');
      assert.equal(child.process.exitCode, 1);
      assert.match(child.output, expected);
    }
    const help = start(process.execPath, [MAIN, '--help']);
    await once(help.process, 'close');
    assert.equal(help.process.exitCode, 0);
    assert.match(help.output, /USAGE/);
  });
});
