// SPDX-License-Identifier: GPL-2.0-or-later
// The program itself, against a real etcd.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ETCD_MISSING, EtcdServer } from '@vitastor/core/testing';

const program = fileURLToPath(new URL('../../bin/vitastor-cli', import.meta.url));

interface Run {
  exit: number;
  stdout: string;
  stderr: string;
}

function run(words: readonly string[], path = program): Promise<Run> {
  return new Promise((resolve) => {
    execFile(path, words, (error, stdout, stderr) => resolve({ exit: typeof error?.code === 'number' ? error.code : error ? -1 : 0, stdout, stderr }));
  });
}

describe('vitastor-cli as a program', { skip: ETCD_MISSING, timeout: 60_000 }, () => {
  let etcd: EtcdServer;
  let dir: string;
  before(async () => {
    etcd = await EtcdServer.start();
    dir = await mkdtemp(join(tmpdir(), 'vitastor-cli-'));
    await writeFile(join(dir, 'v.conf'), JSON.stringify({ etcd_address: [`http://${etcd.address}/v3`], etcd_prefix: '/p' }));
  });
  after(async () => {
    await etcd?.stop();
    if (dir) await rm(dir, { recursive: true });
  });

  test('a life: pool, image, listing, removal of what has no data, status', async () => {
    const conf = ['--config_path', join(dir, 'v.conf')];
    const ok = async (...words: string[]): Promise<string> => {
      const result = await run([...words, ...conf]);
      assert.deepEqual([result.exit, result.stderr], [0, '']);
      return result.stdout;
    };
    assert.equal(await ok('create-pool', 'testpool', '-s', '2', '-n', '4', '--force'), 'Pool testpool created\n');
    assert.equal(await ok('create', '-s', '10G', 'testimg'), 'Image testimg created\n');
    assert.equal(await ok('modify', 'testimg', '--rename', 'other'), 'Image testimg modified\n');
    assert.match(await ok('ls'), /^other {2}testpool {2}10 G {6}- +$/m);
    assert.match(await ok('status'), /etcd: 1 \/ 1 up, .* database size\n[\s\S]*pools: 0 \/ 1 active/);
    assert.equal((await run(['rm-pool', 'testpool', ...conf])).exit, 39);
    assert.deepEqual(JSON.parse(await ok('rm-pool', '-f', 'testpool', '--json')), {});
  });

  test('errors and their exit codes; a dead address beside a living one', async () => {
    assert.deepEqual(await run(['frobnicate']), { exit: 22, stdout: '', stderr: 'unknown command: frobnicate\n' });
    assert.equal((await run(['--help'])).exit, 0);
    assert.match((await run(['df', '--etcd_address', `127.0.0.1:1,${etcd.address}`])).stdout, /^NAME/);
    const dead = await run(['df', '--etcd_address', '127.0.0.1:1', '--etcd_slow_timeout', '300', '--max_etcd_attempts', '1']);
    assert.equal(dead.exit, 5);
    assert.match(dead.stderr, /etcd at 127\.0\.0\.1:1 did not answer/);
  });

  test('the name vitastor-rm means rm-data', async () => {
    const link = join(dir, 'vitastor-rm');
    await symlink(program, link);
    const result = await run(['--pool', '1', '--inode', '1', '--etcd_address', etcd.address], link);
    assert.deepEqual([result.exit, result.stderr], [2, 'Pool 1 does not exist\n']);
  });
});
