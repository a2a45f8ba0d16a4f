// SPDX-License-Identifier: GPL-2.0-or-later
// vitastor-disk as a program, on files: superblocks, layout, errors. Stores with data: the story disk-tools of npm run e2e.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, open, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('../../bin/vitastor-disk', import.meta.url));

interface Run {
  exit: number | null;
  stdout: string;
  stderr: string;
}

async function run(words: readonly string[], stdin = '', path = program): Promise<Run> {
  const child = spawn(process.execPath, [path, ...words], { stdio: 'pipe' });
  child.stdin.on('error', () => undefined); // it may end before it reads
  child.stdin.end(stdin);
  const exit = new Promise<number | null>((resolve) => child.on('close', resolve));
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { exit: await exit, stdout, stderr };
}

describe('vitastor-disk as a program', { timeout: 60_000 }, () => {
  let dir = '';
  let device = '';
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'vitastor-disk-'));
    device = join(dir, 'osd1.img');
    await writeFile(device, '');
    await truncate(device, 64 * 1024 * 1024);
  });
  after(async () => {
    if (dir) await rm(dir, { recursive: true });
  });

  const ok = async (...words: string[]): Promise<string> => {
    const result = await run(words);
    assert.deepEqual([result.exit, result.stderr], [0, '']);
    return result.stdout;
  };

  test('write-sb, read-sb, update-sb, udev; the bytes are those of Vitastor', async () => {
    const parameters = { osd_num: 7, data_device: device, data_offset: 4096, immediate_commit: 'all' };
    assert.deepEqual(await run(['write-sb', device], JSON.stringify(parameters)), { exit: 0, stdout: '', stderr: '' });
    assert.deepEqual(JSON.parse(await ok('read-sb', device)), parameters);
    const head = (await readFile(device)).subarray(0, 4096);
    assert.equal(head.toString('latin1', 0, 8), 'VITADisk');
    const size = head.readUInt32LE(12);
    assert.deepEqual(JSON.parse(head.toString('utf8', 16, size)), parameters);
    assert.ok(head.subarray(size).every((byte) => byte === 0));
    assert.equal(await ok('update-sb', device, '--data_size', '33554432', '--immediate_commit', ''), '');
    assert.deepEqual(JSON.parse(await ok('read-sb', device)), { osd_num: 7, data_device: device, data_offset: 4096, data_size: 33554432 });
    assert.equal(await ok('udev', device), `VITASTOR_OSD_NUM=7\nVITASTOR_ALIAS=osd7-data\nVITASTOR_DATA_DEVICE=${device}\n`);
  });

  test('a superblock of another device, a damaged one, none', async () => {
    const other = join(dir, 'other.img');
    await writeFile(other, (await readFile(device)).subarray(0, 65536));
    const foreign = await run(['read-sb', other]);
    assert.equal(foreign.exit, 1);
    assert.match(foreign.stderr, /superblock is of OSD 7/);
    assert.equal((await run(['read-sb', '--force', other])).exit, 0);
    assert.equal((await run(['udev', other])).exit, 1);
    const file = await open(other, 'r+');
    await file.write(Buffer.from('!'), 0, 1, 20);
    await file.close();
    const damaged = await run(['read-sb', '--force', other]);
    assert.equal(damaged.exit, 1);
    assert.match(damaged.stderr, /damaged/);
    await truncate(other, 0);
    await truncate(other, 65536);
    assert.match((await run(['read-sb', other])).stderr, /no superblock/);
    assert.deepEqual(JSON.parse((await run(['read-sb', other, '--json'])).stdout), { error_code: 2, error_text: `${other}: there is no superblock of vitastor-disk` });
  });

  test('what write-sb refuses changes nothing', async () => {
    const before = (await readFile(device)).subarray(0, 8192);
    for (const [stdin, pattern] of [
      ['{', /not JSON/], ['[]', /not a JSON object/], ['{}', /osd_num/], [JSON.stringify({ osd_num: 1, data_device: '/dev/elsewhere' }), /not of this device/],
      [JSON.stringify({ osd_num: 1, data_device: device, filler: 'x'.repeat(5000) }), /needs 8192 bytes/],
    ] as const) {
      const result = await run(['write-sb', device], stdin);
      assert.equal(result.exit, 1, stdin);
      assert.match(result.stderr, pattern);
    }
    assert.deepEqual((await readFile(device)).subarray(0, 8192), before);
    assert.equal((await run(['write-sb', device], JSON.stringify({ osd_num: 1, data_device: device, data_offset: 16384, filler: 'x'.repeat(5000) }))).exit, 0);
  });

  test('simple-offsets in each form; a store that does not exist; names of programs', async () => {
    const fresh = join(dir, 'fresh.img');
    await writeFile(fresh, '');
    await truncate(fresh, 1024 ** 3);
    assert.equal(await ok('simple-offsets', fresh, '--format', 'options'), `--data_device ${fresh} --journal_offset 0 --meta_offset 0 --data_offset 0\n`);
    assert.equal(await ok('simple-offsets', fresh, '--journal_offset', '4k', '--format', 'env'), `data_device=${fresh}\njournal_offset=4096\nmeta_offset=4096\ndata_offset=4096\n`);
    assert.deepEqual(JSON.parse(await ok('simple-offsets', fresh, '--format', 'json')), { data_device: fresh, journal_offset: 0, meta_offset: 0, data_offset: 0 });
    assert.match(await ok('simple-offsets', '/nowhere', '--device_size', '1t'), /metadata log .* at byte 16384\n {2}data +10\d\d\.\d G/);
    assert.match((await run(['simple-offsets', fresh, '--device_size', '1m'])).stderr, /too small .* at least \d+ bytes/);
    const check = await run(['check', fresh]);
    assert.equal(check.exit, 1);
    assert.match(check.stderr, /holds no store/);
    assert.equal((await run(['check'])).exit, 1);
    assert.equal((await run(['frobnicate'])).stderr, 'unknown command: frobnicate; see --help\n');
    assert.match((await run(['prepare', fresh])).stderr, /not available: make partitions by hand/);
    assert.match((await run(['resize', fresh])).stderr, /holds no store/);
    const link = join(dir, 'vitastor-dump-journal');
    await symlink(program, link);
    assert.match((await run([fresh], '', link)).stderr, /holds no store/);
    assert.match(await ok('--help', '--all'), /vitastor-disk check .*\n/);
  });
});
