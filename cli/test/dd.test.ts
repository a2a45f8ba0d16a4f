// SPDX-License-Identifier: GPL-2.0-or-later
// dd: every kind of input with every kind of output, all options, errors, and what is left out.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { VitastorError } from '@vitastor/core';
import { nativeMissing } from '@vitastor/core/testing';
import { ddOptions } from '../src/copy/dd-options.js';
import { isZero } from '../src/copy/endpoints.js';
import { CliRig, type CliResult } from './harness.js';

const KIB4 = 4096;
let rig: CliRig;
let dir: string;

/** Not two granules the same; `holes`: every third one is zero. */
function pattern(bytes: number, seed: number, holes = true): Buffer {
  const data = Buffer.alloc(bytes);
  for (let at = 0; at < bytes; at++) if (!holes || Math.floor(at / KIB4) % 3 !== 1) data[at] = 1 + ((at * 7 + Math.floor(at / KIB4) * 31 + seed) % 255);
  return data;
}

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'vitastor-dd-'));
  rig = new CliRig();
  const pool = { scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 1, failure_domain: 'host' };
  rig.put('config/pools', { 1: { ...pool, name: 'p' }, 2: { ...pool, name: 'q' } });
  rig.put('pg/config', { items: { 1: { 1: { osd_set: [1, 2], primary: 1 } }, 2: { 1: { osd_set: [1, 2], primary: 1 } } } });
  await image('vm', 40 * KIB4);
});
afterEach(async () => {
  rig.stop();
  await rm(dir, { recursive: true });
  assert.equal(rig.images.opened, 0, 'images are closed');
});

const path = (name: string): string => join(dir, name);
async function image(name: string, bytes: number): Promise<void> {
  assert.equal((await rig.run(['create', '-s', String(bytes), '-p', 'p', name])).exit, 0);
}
async function dd(...words: string[]): Promise<CliResult> {
  return rig.run(['dd', ...words]);
}
async function ok(...words: string[]): Promise<CliResult> {
  const result = await dd(...words);
  assert.equal(result.exit, 0, `${words.join(' ')}: ${result.stdout}${result.stderr}`);
  assert.match(result.stderr, /^\d+ bytes \([\d.]+ [BKMG]\) copied, [\d.]+ s/);
  return result;
}
async function refused(exit: number, text: RegExp, ...words: string[]): Promise<void> {
  const result = await dd(...words);
  assert.equal(result.exit, exit, `${words.join(' ')}: ${result.stdout}${result.stderr}`);
  assert.match(result.stderr, text);
}
/** Granules that were written to. */
const written = (name: string): number => rig.images.layer(rig.images.inodeOf(name)).size;

describe('dd between files, images and pipes', () => {
  test('every input with every output', async () => {
    const data = pattern(40 * KIB4, 1);
    await writeFile(path('in'), data);
    rig.images.fill('vm', 0, data);
    const inputs = [[`if=${path('in')}`], ['iimg=vm'], []];
    for (const [number, input] of inputs.entries()) {
      for (const bs of ['4k', '12k', '1M']) {
        const set = (): void => { rig.stdinPieces = [data.subarray(0, 5), data.subarray(5, 70_001), data.subarray(70_001)]; };
        set();
        await ok(...input, `of=${path('out')}`, `bs=${bs}`);
        assert.ok((await readFile(path('out'))).equals(data), `${input} to a file, ${bs}`);
        await rm(path('out'));
        set();
        const name = `new${number}${bs}`;
        await ok(...input, `oimg=${name}`, '-p', 'p', `bs=${bs}`, ...(input.length ? [] : [`size=${data.length}`]));
        assert.ok(rig.images.content(name).equals(data), `${input} to an image, ${bs}`);
        assert.ok(bs !== '4k' || written(name) < 28, 'zeroes are left out');
        set();
        rig.bytesOut = [];
        await ok(...input, `bs=${bs}`);
        assert.ok(Buffer.concat(rig.bytesOut).equals(data), `${input} to a pipe, ${bs}`);
      }
    }
    assert.ok(rig.images.flushes >= 9);
  });

  test('skip, seek, count: blocks, bytes, both names', async () => {
    const data = pattern(40 * KIB4, 2, false);
    rig.images.fill('vm', 0, data);
    await ok('iimg=vm', `of=${path('a')}`, 'bs=4k', 'skip=3', 'count=5', 'seek=2');
    assert.ok((await readFile(path('a'))).equals(Buffer.concat([Buffer.alloc(2 * KIB4), data.subarray(3 * KIB4, 8 * KIB4)])));
    await ok('--iimg', 'vm', '--of', path('b'), '--iseek', '12kB', '--count', '8192B', '--oseek', '1', '--bs', '8k');
    assert.ok((await readFile(path('b'))).equals(Buffer.concat([Buffer.alloc(2 * KIB4), data.subarray(3 * KIB4, 5 * KIB4)])));
    rig.stdinPieces = [data];
    await ok(`of=${path('c')}`, 'bs=1000', 'skip=2', 'count=3');
    assert.ok((await readFile(path('c'))).equals(data.subarray(2000, 5000)));
    await ok('iimg=vm', 'oimg=part', '-p', 'q', 'bs=4k', 'skip=30');
    assert.ok(rig.images.content('part').equals(data.subarray(30 * KIB4)), 'the size from skip on');
    await ok('iimg=vm', 'oimg=vm', 'bs=4k', 'count=4', 'seek=20');
    assert.ok(rig.images.content('vm').subarray(20 * KIB4, 24 * KIB4).equals(data.subarray(0, 4 * KIB4)));
    await refused(22, /same image, and the ranges may overlap/, 'iimg=vm', 'oimg=vm', 'bs=4k', 'count=4', 'seek=3');
    await ok('iimg=vm', `of=${path('d')}`, 'skip=163840B');
    assert.equal((await stat(path('d'))).size, 0);
    await refused(22, /skip: image vm has 163840 bytes, and 1073741824 are to be left out/, 'iimg=vm', `of=${path('d')}`, 'skip=1GB');
  });

  test('a pipe that goes on behind count is let go', async () => {
    rig.stdinPieces = [pattern(3 * KIB4, 3), null];
    await ok('oimg=vm', 'bs=4k', 'count=3', 'iodepth=16');
    assert.equal(written('vm'), 2);
    rig.images.onWrite = () => { throw new VitastorError('ERR_IO', 'write of vm: error 5'); };
    rig.stdinPieces = [pattern(3 * KIB4, 4), null];
    await refused(5, /write of vm: error 5/, 'oimg=vm', 'bs=4k');
  });

  test('over what is there: zeroes replace, where something else is; nosparse writes all', async () => {
    rig.images.fill('vm', 0, pattern(10 * KIB4, 5, false));
    const data = pattern(40 * KIB4, 6);
    await writeFile(path('in'), data);
    await ok(`if=${path('in')}`, 'oimg=vm', 'bs=4k');
    assert.ok(rig.images.content('vm').equals(data));
    assert.equal(written('vm'), 27 + 3);
    await ok(`if=${path('in')}`, 'oimg=vm', 'bs=4k', 'conv=nosparse');
    assert.equal(written('vm'), 40);
    await writeFile(path('out'), Buffer.alloc(50 * KIB4, 0xee));
    await ok('iimg=vm', `of=${path('out')}`, 'bs=4k');
    const out = await readFile(path('out'));
    assert.ok(out.subarray(0, 40 * KIB4).equals(data) && out.subarray(40 * KIB4).equals(Buffer.alloc(10 * KIB4, 0xee)), 'what is behind stays');
    await ok('iimg=vm', `of=${path('out')}`, 'bs=4k', 'count=2', 'seek=1', 'conv=trunc');
    assert.ok((await readFile(path('out'))).equals(Buffer.concat([data.subarray(0, KIB4), data.subarray(0, 2 * KIB4)])));
  });

  test('an image that is empty is not read for zeroes; one whose statistics are behind is', async () => {
    await writeFile(path('in'), Buffer.alloc(40 * KIB4));
    rig.images.bad.add(0n);
    await ok(`if=${path('in')}`, 'oimg=vm', 'bs=4k');
    assert.equal(written('vm'), 0);
    rig.put('inode/stats/1/1', { raw_used: '131072' });
    await refused(5, /read of vm: error 5/, `if=${path('in')}`, 'oimg=vm', 'bs=4k');
    rig.images.bad.clear();
    rig.put('inode/stats/1/1', { raw_used: '0' });
    rig.images.fill('vm', 0, pattern(2 * KIB4, 5));
    await ok(`if=${path('in')}`, 'oimg=vm', 'bs=4k');
    assert.ok(rig.images.content('vm').equals(Buffer.alloc(40 * KIB4)));
  });

  test('holes of a file stay holes; size; append', async () => {
    await truncate(path('in'), 0).catch(() => writeFile(path('in'), ''));
    await truncate(path('in'), 64 << 20);
    await ok(`if=${path('in')}`, `of=${path('out')}`);
    const made = await stat(path('out'));
    assert.deepEqual([made.size, made.blocks], [64 << 20, 0]);
    await writeFile(path('small'), 'hello');
    await ok(`if=${path('small')}`, `of=${path('sized')}`, 'size=1M');
    assert.equal((await stat(path('sized'))).size, 1 << 20);
    await ok(`if=${path('small')}`, `of=${path('small2')}`, 'oflag=append');
    await ok(`if=${path('small')}`, `of=${path('small2')}`, 'oflag=append', 'bs=1', 'iodepth=8');
    assert.equal(await readFile(path('small2'), 'utf8'), 'hellohello');
    await ok(`if=${path('small')}`, 'of=/dev/null');
    await refused(22, /size: 4096 bytes do not hold/, `if=${path('in')}`, `of=${path('x')}`, 'size=4k');
  });

  test('direct: memory, blocks and ends that fit', async (t) => {
    const missing = nativeMissing();
    if (missing !== false) return t.skip(missing);
    const data = pattern(20 * KIB4 + 100, 8);
    await writeFile(path('in'), data);
    try {
      await (await import('node:fs/promises')).open(path('in'), 0o40000).then((file) => file.close());
    } catch { return t.skip('this file system knows no O_DIRECT'); }
    await ok(`if=${path('in')}`, `of=${path('out')}`, 'iflag=direct', 'oflag=direct', 'bs=8k');
    assert.ok((await readFile(path('out'))).equals(data));
    await ok(`if=${path('in')}`, 'oimg=vm', 'iflag=direct', 'count=5', 'bs=8k');
    assert.ok(rig.images.content('vm').subarray(0, 10 * KIB4).equals(data.subarray(0, 10 * KIB4)));
    await refused(22, /bs: .*multiples of 4096/, `if=${path('in')}`, 'iflag=direct', 'bs=1000', 'of=/dev/null');
    await refused(22, /oflag=direct needs bs/, `if=${path('in')}`, 'oflag=direct', 'bs=1000', `of=${path('out')}`);
  });

  test('noerror: what cannot be read is zero, and said', async () => {
    const data = pattern(40 * KIB4, 9, false);
    rig.images.fill('vm', 0, data);
    rig.images.bad.add(BigInt(7 * KIB4));
    await refused(5, /read of vm: error 5/, 'iimg=vm', `of=${path('out')}`);
    await refused(5, /4096 bytes of image vm could not be read, and are zeroes in .*out/, 'iimg=vm', `of=${path('out')}`, 'conv=noerror');
    data.fill(0, 7 * KIB4, 8 * KIB4);
    assert.ok((await readFile(path('out'))).equals(data));
  });

  test('many blocks under way come in order through a pipe', async () => {
    const data = pattern(40 * KIB4, 10, false);
    rig.images.fill('vm', 0, data);
    rig.bytesOut = [];
    await ok('iimg=vm', 'bs=4k', 'iodepth=32');
    assert.ok(Buffer.concat(rig.bytesOut).equals(data));
    const pipe = spawn('mkfifo', [path('fifo')]);
    await new Promise((resolve) => pipe.once('close', resolve));
    const reader = readFile(path('fifo'));
    await ok('iimg=vm', `of=${path('fifo')}`, 'bs=4k', 'iodepth=8');
    assert.ok((await reader).equals(data));
  });
});

describe('dd says', () => {
  test('figures: none, noxfer, progress, JSON', async () => {
    assert.equal((await dd('iimg=vm', `of=${path('a')}`, 'status=none')).stderr, '');
    assert.equal((await dd('iimg=vm', `of=${path('a')}`, 'status=noxfer')).stderr, '');
    assert.match((await dd('iimg=vm', `of=${path('a')}`, 'status=progress')).stderr, /163840 bytes \(160 K\) copied/);
    const { exit, json } = await rig.json(['dd', 'iimg=vm', `of=${path('a')}`]);
    assert.equal(exit, 0);
    assert.deepEqual(Object.keys(json as object), ['copied', 'seconds']);
    assert.equal((json as { copied: number }).copied, 163840);
    await refused(22, /seek makes no sense/, 'iimg=vm', 'seek=1');
    assert.equal((await rig.run(['dd', 'iimg=vm', '--json'])).exit, 22);
  });

  test('what is missing or misspelled', async () => {
    await refused(2, /Image nobody does not exist/, 'iimg=nobody', 'of=/dev/null');
    await refused(2, /conv=nocreat does not let it be made/, 'if=/dev/null', 'oimg=nobody', 'conv=nocreat');
    await refused(2, /none\/file does not exist|ENOENT/, `if=${path('none')}/file`, 'oimg=vm');
    await refused(2, /conv=nocreat/, 'iimg=vm', `of=${path('none')}`, 'conv=nocreat');
    await refused(22, /is a directory/, `if=${dir}`, 'oimg=vm');
    await refused(22, /is a directory/, 'iimg=vm', `of=${dir}`);
    await refused(22, /"img=vm" means nothing here, did you mean i?i?oi?mg\?|did you mean/, 'img=vm');
    await refused(22, /"vm" means nothing here/, 'vm');
    await refused(22, /status: "progres" is none of none, noxfer, progress, did you mean progress\?/, 'iimg=vm', 'status=progres');
    await refused(22, /conv: "sparse" is none of/, 'iimg=vm', 'conv=sparse');
    await refused(22, /bs: "1X" is not a size/, 'iimg=vm', 'bs=1X');
    await refused(22, /option --skp means nothing to dd, did you mean --skip\?/, 'iimg=vm', '--skp', '1');
    await refused(22, /if and iimg exclude each other/, 'iimg=vm', 'if=x');
    await refused(22, /more than 1G/, 'iimg=vm', 'bs=1G', 'iodepth=2');
    await refused(22, /size of standard input is not known/, 'oimg=new', '-p', 'p');
  });

  test('images: unaligned, too small, read-only', async () => {
    await writeFile(path('odd'), Buffer.alloc(5000, 1));
    await refused(22, /an image has a multiple of 4096 bytes, and .*odd gives 5000/, `if=${path('odd')}`, 'oimg=new', '-p', 'p');
    await refused(22, /the length of the input: image vm is written to in multiples of 4096 bytes, and 5000 is none/, `if=${path('odd')}`, 'oimg=vm');
    await refused(22, /bs: image vm is read in multiples of 4096 bytes, and 1000 is none/, 'iimg=vm', 'bs=1000', 'of=/dev/null');
    await refused(22, /count: /, 'iimg=vm', 'count=100B', 'of=/dev/null');
    await refused(22, /seek: image vm/, 'if=/dev/zero', 'count=0', 'seek=512B', 'oimg=vm');
    rig.stdinPieces = [Buffer.alloc(5000, 1)];
    await refused(22, /standard input ends 904 bytes behind a multiple of 4096, which image vm cannot hold/, 'oimg=vm');
    rig.stdinPieces = [Buffer.alloc(41 * KIB4, 1)];
    await refused(22, /image vm is full: it has 163840 bytes/, 'oimg=vm', 'bs=4k');
    await writeFile(path('long'), Buffer.alloc(41 * KIB4, 1));
    await refused(22, /has 163840 bytes, and what is copied ends at 167936: .*--resize/, `if=${path('long')}`, 'oimg=vm');
    assert.equal((await rig.run(['snap-create', 'vm@s'])).exit, 0);
    await refused(22, /vm@s is read-only: a snapshot cannot be written to/, `if=${path('odd')}`, 'oimg=vm@s');
    await ok('iimg=vm@s', 'of=/dev/null');
    await refused(22, /exists, and not in pool q/, 'if=/dev/zero', 'count=1', 'oimg=vm', '-p', 'q');
  });

  test('OSDs that do not answer end it, with the reason', async () => {
    rig.images.hangs = true;
    await refused(5, /no answer from the OSDs of image vm for 1 s \(client_wait_up_timeout\): vitastor-cli pg-list \^active/, 'iimg=vm', 'of=/dev/null', '--client_wait_up_timeout', '1');
  });

  test('Ctrl-C ends it, also where a pipe gives nothing', async () => {
    rig.stdinPieces = [pattern(3 * KIB4, 3), null];
    const running = dd(`of=${path('out')}`);
    rig.clock.after(50, () => rig.signal.abort());
    const result = await running;
    assert.deepEqual([result.exit, /interrupted/.test(result.stderr)], [125, true]);
  });

  test('Ctrl-C ends it', async () => {
    rig.images.hangs = true;
    const running = dd('iimg=vm', 'of=/dev/null');
    rig.clock.after(50, () => rig.signal.abort());
    const result = await running;
    assert.equal(result.exit, 125, result.stderr);
    assert.match(result.stderr, /interrupted/);
  });
});

test('options that make no sense together', () => {
  for (const [words, text] of [
    [['oimg=a', 'oflag=append'], /oflag=append is for files/], [['oimg=a', 'conv=trunc'], /conv=trunc is for files/], [['of=a', 'oflag=append', 'seek=1'], /seek makes no sense/],
    [['of=a', 'oflag=append', 'conv=trunc'], /cuts it off/], [['of=a', 'pool=1'], /--pool is for images/], [['size=1M'], /size is for an output that is made/],
    [['of=a', 'size=1M', 'conv=nocreat'], /size is for/], [['skip=1', 'iseek=1'], /are the same/], [['iflag=direct'], /iflag=direct is for files/], [['oflag=direct'], /oflag=direct is for files/],
    [['of='], /name of the file is missing/], [['count=9999999T'], /beyond every disk|not a size/],
  ] as const) assert.throws(() => ddOptions({}, words), (error) => error instanceof VitastorError && text.test(error.message), words.join(' '));
  const options = ddOptions({}, ['if=a', 'of=b']);
  assert.deepEqual([options.blockBytes, options.depth, options.limit, options.from, options.to], [1 << 20, 4, null, 0n, 0n]);
});

test('zeroes are found as such', () => {
  assert.ok(isZero(Buffer.alloc(0)) && isZero(Buffer.alloc(9)) && isZero(Buffer.alloc(1 << 20)) && isZero(Buffer.alloc(9)));
  for (const at of [0, 4, 8]) {
    const data = Buffer.alloc(9);
    data[at] = 1;
    assert.ok(!isZero(data));
  }
});
