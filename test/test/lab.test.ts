// SPDX-License-Identifier: GPL-2.0-or-later
// The lab itself: what tests rely on when they start and end real processes.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Child, EtcdHttp, Lab, freePort, processesNaming, until } from '../src/lab/index.js';

async function inDirectory(work: (dir: string) => Promise<void>): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'vitastor-lab-test-'));
  try {
    await work(dir);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** A Node process running `script`. */
function node(dir: string, script: string, onDeath?: (child: Child) => void): Child {
  return new Child({
    name: 'script',
    argv: [process.execPath, '-e', script],
    logFile: join(dir, 'script.log'),
    capture: true,
    ...(onDeath ? { onDeath } : {}),
  });
}

describe('Child', () => {
  it('keeps output and tells how it ended', () =>
    inDirectory(async (dir) => {
      const deaths: string[] = [];
      const child = node(dir, 'console.log("one"); console.error("two"); process.exit(7)', (dead) => deaths.push(dead.name));
      assert.deepEqual(await child.exited, { code: 7, signal: null });
      assert.equal(child.stdout, 'one\n');
      assert.equal(child.stderr, 'two\n');
      assert.deepEqual(deaths, ['script']);
      assert.match(child.story(), /exit code 7/);
    }));

  it('names a program that cannot be started', () =>
    inDirectory(async (dir) => {
      const child = new Child({ name: 'nothing', argv: [join(dir, 'nothing')], logFile: join(dir, 'log') });
      const exit = await child.exited;
      assert.notEqual(exit.code, 0);
      assert.match(child.story(), /nothing/);
    }));

  it('stops waiting for a line when the process ends', () =>
    inDirectory(async (dir) => {
      const child = node(dir, 'console.log("starting"); setTimeout(() => {}, 50)');
      assert.equal(await child.waitForLine(/start/, 10_000), 'starting');
      await assert.rejects(child.waitForLine(/never/, 60_000), /ended before it printed/);
    }));

  it('kills what does not stop, and pauses what runs', () =>
    inDirectory(async (dir) => {
      const child = node(dir, 'process.on("SIGTERM", () => console.log("no")); setInterval(() => {}, 1000); console.log("up")');
      await child.waitForLine(/up/, 10_000);
      child.pause();
      await until('the process is stopped', () => processState(child.pid) === 'T', { timeoutMs: 10_000, everyMs: 5 });
      const exit = await child.stop(300);
      assert.equal(exit.signal, 'SIGKILL');
      assert.equal(child.lastLines().at(-1), 'no');
    }));
});

/** The kernel's letter for what a process does: T is stopped. */
function processState(pid: number): string {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return text.charAt(text.lastIndexOf(')') + 2);
}

describe('Lab', () => {
  it('runs etcd, keeps its data over kill -9, and leaves nothing behind', async () => {
    const lab = await Lab.create();
    try {
      await lab.startEtcd();
      assert.equal(await lab.etcd.get('/vitastor/config/global'), '{"immediate_commit":"all"}');
      await lab.etcd.put('/a/1', 'x');
      await lab.etcd.put('/a/2', 'y');
      await lab.etcd.put('/b', 'z');
      assert.deepEqual([...(await lab.etcd.prefix('/a/'))], [['/a/1', 'x'], ['/a/2', 'y']]);
      await lab.etcd.compact();
      await lab.kill9All();
      assert.equal(await lab.etcd.alive(), false);
      await lab.restartAll();
      assert.equal(await lab.etcd.get('/b'), 'z');
      assert.match(await lab.diagnose(), /no monitor is elected/);
    } finally {
      await lab.stopAll();
    }
    assert.deepEqual(processesNaming(lab.dir), []);
  });

  it('runs three etcd members that outlive one', async () => {
    const lab = await Lab.create();
    try {
      await lab.startEtcd(3);
      assert.equal(lab.etcdAddresses.length, 3);
      await lab.etcds.get('etcd1')?.kill9();
      await until('two members take a write', () => lab.etcd.put('/a', 'b').then(() => true), { timeoutMs: 30_000 });
      const [, , third = ''] = lab.etcdAddresses;
      assert.equal(await new EtcdHttp(third).get('/a'), 'b');
    } finally {
      await lab.stopAll();
    }
  });

  it('comes up in a directory that was used before, on the same ports', () =>
    inDirectory(async (dir) => {
      const first = await Lab.create({ dir, etcdUnsafe: true });
      let addresses: string[] = [];
      try {
        await first.startEtcd();
        await first.etcd.put('/kept', 'yes');
        addresses = first.etcdAddresses;
      } finally {
        await first.stopAll();
      }
      const second = await Lab.create({ dir, etcdUnsafe: true });
      try {
        await second.startEtcd();
        assert.equal(await second.etcd.get('/kept'), 'yes');
        assert.equal(second.etcdAddresses.length, addresses.length);
      } finally {
        await second.stopAll();
      }
    }));

  it('dies with the process that made it, also by kill -9', () =>
    inDirectory(async (dir) => {
      const index = new URL('../src/lab/index.js', import.meta.url).href;
      const script = `import { Lab } from ${JSON.stringify(index)};
        const lab = await Lab.create({ dir: process.argv[1], etcdUnsafe: true });
        await lab.startEtcd();
        console.log('up');
        setInterval(() => {}, 1000);`;
      const owner = spawn(process.execPath, ['--input-type=module', '-e', script, dir], { stdio: ['ignore', 'pipe', 'inherit'] });
      try {
        await new Promise<void>((resolve, reject) => {
          owner.stdout.once('data', () => resolve());
          owner.once('close', (code) => reject(new Error(`ended with ${String(code)}`)));
        });
        assert.notDeepEqual(processesNaming(join(dir, 'etcd1')), []);
      } finally {
        owner.kill('SIGKILL');
      }
      await until('etcd is gone', () => processesNaming(join(dir, 'etcd1')).length === 0, { timeoutMs: 10_000, everyMs: 10 });
    }));

  it('reads fio’s report', async () => {
    const lab = await Lab.create();
    try {
      const { code, jobs } = await lab.rawFio(['-name=n', '-thread', '-ioengine=null', '-size=1M', '-bs=4k', '-rw=randwrite']);
      assert.equal(code, 0);
      assert.equal(jobs.length, 1);
      assert.equal(jobs[0]?.write.ios, 256);
      assert.equal(jobs[0]?.write.bytes, 1 << 20);
      assert.equal(jobs[0]?.read.ios, 0);
      const bad = await lab.rawFio(['-name=n', '-ioengine=nosuch', '-size=1M']);
      assert.notEqual(bad.code, 0);
    } finally {
      await lab.stopAll();
    }
  });
});

describe('freePort', () => {
  it('never gives the same port twice', async () => {
    const ports = new Set<number>();
    for (let i = 0; i < 20; i++) ports.add(await freePort());
    assert.equal(ports.size, 20);
  });
});
