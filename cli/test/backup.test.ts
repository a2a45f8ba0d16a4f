// SPDX-License-Identifier: GPL-2.0-or-later
// export and import on images in memory: chains, pipes, damage, interruptions, and what does not fit.

import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { VitastorError } from '@vitastor/core';
import { nativeMissing } from '@vitastor/core/testing';
import { CliRig, type CliResult } from './harness.js';

const K = 4096;
let rig: CliRig;
let dir: string;

const path = (name: string): string => join(dir, name);
async function run(...words: string[]): Promise<CliResult> {
  return rig.run(words);
}
async function ok(...words: string[]): Promise<string> {
  const result = await run(...words);
  assert.equal(result.exit, 0, `${words.join(' ')}: ${result.stdout}${result.stderr}`);
  return result.stdout;
}
async function refused(exit: number, text: RegExp, ...words: string[]): Promise<void> {
  const result = await run(...words);
  assert.equal(result.exit, exit, `${words.join(' ')}: ${result.stdout}${result.stderr}`);
  assert.match(result.stderr, text);
}
const bytes = (granules: number, seed: number): Buffer => Buffer.from(Array.from({ length: granules * K }, (_, i) => 1 + ((i * 7 + seed * 31 + (i >> 12)) % 255)));

/** vm, 2 MB: @a, @b, @c, and something on top; each with changes. */
async function chain(): Promise<void> {
  await ok('create', '-s', '2M', '-p', 'p', 'vm');
  rig.images.fill('vm', 0, bytes(40, 1));
  rig.images.fill('vm', 400 * K, bytes(3, 2));
  await ok('snap-create', 'vm@a');
  rig.images.fill('vm', 10 * K, bytes(2, 3));
  rig.images.fill('vm', 12 * K, Buffer.alloc(20 * K));
  rig.images.fill('vm', 300 * K, bytes(1, 4));
  await ok('snap-create', 'vm@b', '-p', 'q');
  rig.images.fill('vm', 11 * K, bytes(5, 5));
  rig.images.fill('vm', 511 * K, bytes(1, 6));
  await ok('snap-create', 'vm@c', '-p', 'p');
  rig.images.fill('vm', 0, bytes(1, 7));
}
const same = (a: string, b: string): void => assert.ok(rig.images.content(a).equals(rig.images.content(b)), `${a} and ${b}`);
const meta = (name: string): { import?: { complete: boolean } } | undefined =>
  (rig.get(`config/inode/${rig.images.inodeOf(name) >> 48n}/${rig.images.inodeOf(name) & 0xffffffffffffn}`) as { meta?: { import?: { complete: boolean } } }).meta;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'vitastor-backup-'));
  rig = new CliRig();
  const pool = { scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 1, failure_domain: 'host' };
  rig.put('config/pools', { 1: { ...pool, name: 'p' }, 2: { ...pool, name: 'q' } });
  rig.put('pg/config', { items: { 1: { 1: { osd_set: [1, 2], primary: 1 } }, 2: { 1: { osd_set: [1, 2], primary: 1 } } } });
});
afterEach(async () => {
  rig.stop();
  await rm(dir, { recursive: true });
});

describe('export and import', { skip: nativeMissing() }, () => {
  beforeEach(chain);

  test('a full copy, then increments, through files and pipes', async () => {
    assert.match(await ok('export', 'vm@a', path('a')), /^vm@a exported: 172 K of data in /);
    assert.match(await ok('export', 'vm@b', '--from', 'a', path('b')), /^vm@b since vm@a exported: /);
    assert.match(await ok('import', path('a'), 'copy', '-p', 'q'), /^copy@a imported: /);
    assert.match(await ok('import', path('b'), 'copy'), /^copy@b imported: /);
    rig.bytesOut = [];
    assert.equal(await ok('export', 'vm@c', '--from', 'b'), '');
    rig.stdinPieces = [...rig.bytesOut];
    await ok('import', 'copy');
    for (const snap of ['a', 'b', 'c']) same(`vm@${snap}`, `copy@${snap}`);
    same('vm@c', 'copy');
    assert.equal(meta('copy')?.import?.complete, true);
    assert.match(await ok('import', path('b'), 'copy').catch(String), /Snapshot copy@b exists/);
    await ok('export', 'vm@c', '--from', 'a', path('ac'));
    await ok('import', path('a'), 'short', '-p', 'p');
    await ok('import', path('ac'), 'short');
    same('short', 'vm@c');
    assert.match(await ok('import', path('ac'), 'short'), /short@c is there already/);
  });

  test('an image that is written to: no snapshot is made of it', async () => {
    const result = await run('export', 'vm', path('now'));
    assert.match(result.stderr, /warning: vm may be written to while it is exported/);
    await ok('import', path('now'), 'copy', '-p', 'p');
    same('vm', 'copy');
    assert.equal(meta('copy'), undefined);
    await ok('export', 'vm', '--from', 'c', path('top'));
    await ok('export', 'vm@c', path('c'));
    await ok('import', path('c'), 'two', '-p', 'p');
    await ok('import', path('top'), 'two');
    same('vm', 'two');
  });

  test('raw: sparse in a file, whole in a pipe, brought forward in place', async () => {
    await ok('export', 'vm@a', '--format', 'raw', path('raw'));
    assert.ok((await readFile(path('raw'))).equals(rig.images.content('vm@a')));
    assert.ok((await stat(path('raw'))).blocks < 2 * 1024 * 2, 'holes');
    rig.bytesOut = [];
    await ok('export', 'vm@b', '--format', 'raw');
    assert.ok(Buffer.concat(rig.bytesOut).equals(rig.images.content('vm@b')));
    await ok('export', 'vm@c', '--from', 'a', '--format', 'raw', path('raw'));
    assert.ok((await readFile(path('raw'))).equals(rig.images.content('vm@c')));
    await ok('import', path('raw'), 'copy', '--format', 'raw', '-p', 'p');
    same('copy', 'vm@c');
    rig.stdinPieces = [...rig.bytesOut];
    await ok('import', 'piped', '--format', 'raw', '-p', 'p', '--size', '2M');
    same('piped', 'vm@b');
    await refused(17, /already exists: --force/, 'import', path('raw'), 'piped', '--format', 'raw');
    await ok('import', path('raw'), 'piped', '--format', 'raw', '--force');
    same('piped', 'vm@c');
    await truncate(path('raw'), 4096);
    await refused(22, /has 4096 bytes, and a copy of vm@a has 2097152/, 'export', 'vm@c', '--from', 'a', '--format', 'raw', path('raw'));
    await refused(22, /give FILE, or use a stream/, 'export', 'vm@c', '--from', 'a', '--format', 'raw');
    await refused(22, /give --size/, 'import', '-', 'x', '--format', 'raw', '-p', 'p');
  });

  test('sizes that change', async () => {
    await ok('export', 'vm@c', path('c'));
    await ok('import', path('c'), 'copy', '-p', 'p');
    await ok('modify', 'vm', '--resize', '3M');
    rig.images.fill('vm', 600 * K, bytes(2, 9));
    await ok('snap-create', 'vm@d');
    await ok('export', 'vm@d', '--from', 'c', path('d'));
    await ok('import', path('d'), 'copy');
    same('copy', 'vm@d');
    assert.equal(rig.images.content('copy').length, 3 << 20);
  });

  test('a damaged or cut off stream: said, marked, and mended by repeating it', async () => {
    await ok('export', 'vm@a', path('a'));
    await ok('export', 'vm@b', '--from', 'a', path('b'));
    for (const [file, wrong] of [['a', 'cut'], ['a', 'bit'], ['b', 'cut'], ['b', 'bit']] as const) {
      const whole = await readFile(path(file));
      const damaged = Buffer.from(wrong === 'cut' ? whole.subarray(0, whole.length - 20) : whole);
      if (wrong === 'bit') damaged[damaged.length - 3000] = (damaged[damaged.length - 3000] ?? 0) ^ 1;
      await writeFile(path('wrong'), damaged);
      await refused(22, /damaged|cut off/, 'import', '--dry-run', path('wrong'));
      await refused(22, file === 'a' ? /(damaged|cut off).*; copy is incomplete, and marked so: repeat the import/ : /(damaged|cut off).*; copy holds a part of the increment since vm@a/,
        'import', path('wrong'), 'copy', '-p', 'q');
      assert.equal(meta('copy')?.import?.complete, false);
      if (file === 'a' && wrong === 'cut') await refused(17, /copy is incomplete, of another stream/, 'import', await otherStream(), 'copy');
      if (file === 'b' && wrong === 'cut') {
        await refused(22, /part of another increment/, 'import', await increment(), 'copy');
        same('copy@a', 'vm@a');
      }
      if (wrong === 'cut') continue;
      assert.match(await ok('import', path(file), 'copy'), /the import begins anew/);
      same(`copy@${file}`, `vm@${file}`);
    }
  });
  async function otherStream(): Promise<string> {
    await ok('export', 'vm@c', path('other'));
    return path('other');
  }
  async function increment(): Promise<string> {
    await ok('export', 'vm@c', '--from', 'a', path('incr'));
    return path('incr');
  }

  test('what does not fit is refused, and --force says so', async () => {
    await ok('export', 'vm@a', path('a'));
    await ok('export', 'vm@b', '--from', 'a', path('b'));
    await ok('export', 'vm@c', '--from', 'b', path('c'));
    await refused(2, /Image none does not exist, and the stream holds only what has changed since vm@a/, 'import', path('b'), 'none');
    await ok('import', path('a'), 'copy', '-p', 'p');
    await refused(22, /copy stands on copy@a, and the stream goes on from vm@b; --force/, 'import', path('c'), 'copy');
    rig.images.fill('copy', 0, bytes(1, 8));
    await refused(22, /copy was written to since vm@a/, 'import', path('b'), 'copy');
    await ok('import', path('b'), 'copy', '--force');
    await ok('create', '-s', '2M', '-p', 'p', 'plain');
    await refused(22, /plain has no snapshot/, 'import', path('b'), 'plain');
    await refused(17, /Image plain already exists/, 'import', path('a'), 'plain');
    rig.images.fill('plain', 100 * K, bytes(10, 8));
    rig.images.fill('plain', 405 * K, bytes(10, 8));
    await ok('import', path('a'), 'plain', '--force');
    same('plain', 'vm@a');
    await ok('create', '-s', '1M', '-p', 'p', 'small');
    await ok('snap-create', 'small@a');
    await refused(22, /small@a has 1048576 bytes, and the vm@a that the stream goes on from had 2097152/, 'import', path('b'), 'small');
    await refused(22, /has 1048576 bytes, and the stream 2097152/, 'import', path('a'), 'small', '--force').catch(async () => refused(17, /Snapshot small@a exists/, 'import', path('a'), 'small', '--force'));
    await refused(22, /makes its snapshot itself/, 'import', path('a'), 'new@a', '-p', 'p');
    // The same names, another image.
    await ok('create', '-s', '2M', '-p', 'p', 'other');
    await ok('snap-create', 'other@a');
    await ok('export', 'other@a', path('oa'));
    await ok('import', path('oa'), 'foreign', '-p', 'p');
    await refused(22, /foreign@a was imported from another other@a/, 'import', path('b'), 'foreign');
    // In the cluster that it was made in, an increment goes onto the snapshot itself.
    await ok('create', '--parent', 'vm@a', 'clone');
    await ok('import', path('b'), 'clone');
    same('clone', 'vm@b');
  });

  test('files: written over only when told, and never half there', async () => {
    await writeFile(path('a'), 'precious');
    await refused(17, /it exists; --force writes over it/, 'export', 'vm@a', path('a'));
    rig.images.bad.add(BigInt(39 * K));
    await refused(5, /read of vm@a: error 5/, 'export', 'vm@a', path('a'), '--force');
    assert.equal(await readFile(path('a'), 'utf8'), 'precious');
    await refused(5, /read of vm@a/, 'export', 'vm@a', '--format', 'raw', path('new'));
    assert.deepEqual(await readdir(dir), ['a']);
    rig.images.bad.clear();
    await ok('export', 'vm@a', path('a'), '--force');
    rig.images.hangs = true;
    await refused(5, /inactive/, 'export', 'vm@a', path('new'));
    assert.deepEqual(await readdir(dir), ['a']);
  });

  test('raw in place that fails says what the file is now', async () => {
    await ok('export', 'vm@a', '--format', 'raw', path('raw'));
    rig.images.bad.add(BigInt(511 * K));
    await refused(5, /raw is neither vm@a nor complete now: repeat the command/, 'export', 'vm@c', '--from', 'a', '--format', 'raw', path('raw'));
    rig.images.bad.clear();
    await ok('export', 'vm@c', '--from', 'a', '--format', 'raw', path('raw'));
    assert.ok((await readFile(path('raw'))).equals(rig.images.content('vm@c')));
  });

  test('writes that fail, OSDs that do not answer, Ctrl-C: nothing half done is silent', async () => {
    await ok('export', 'vm@a', path('a'));
    rig.images.onWrite = (offset) => { if (offset > 0n) throw new VitastorError('ERR_IO', 'write of copy: error 5'); };
    await refused(5, /write of copy: error 5; copy is incomplete, and marked so/, 'import', path('a'), 'copy', '-p', 'p');
    rig.images.onWrite = () => undefined;
    await ok('import', path('a'), 'copy');
    same('copy', 'vm@a');
    rig.images.hangs = true;
    await refused(5, /no answer from the OSDs of image two for 1 s.*; two is incomplete/, 'import', path('a'), 'two', '-p', 'p', '--client_wait_up_timeout', '1');
    rig.images.hangs = false;
    rig.stdinPieces = [(await readFile(path('a'))).subarray(0, 70_000), null];
    const running = run('import', 'three', '-p', 'p');
    rig.clock.after(100, () => rig.signal.abort());
    const result = await running;
    assert.deepEqual([result.exit, /interrupted; three is incomplete/.test(result.stderr)], [125, true], result.stderr);
  });

  test('layers that change while they are exported', async () => {
    const client = rig.images.client.bind(rig.images);
    rig.images.client = () => {
      const inner = client();
      return { ...inner, close: inner.close, async *mapLayers(request) {
        yield* inner.mapLayers(request);
        rig.put('config/inode/1/1', { name: 'vm@a', size: 2097152, readonly: true, deleted: true });
      } };
    };
    await refused(11, /vm@a was changed by someone else meanwhile/, 'export', 'vm@c', path('c'));
    assert.deepEqual(await readdir(dir), []);
  });

  test('what is being removed is not copied', async () => {
    await ok('modify', 'vm@b', '--deleted', '1');
    for (const words of [['export', 'vm@c', path('x')], ['export', 'vm@b', path('x')], ['diff', 'vm', '--from', 'a'], ['dd', 'iimg=vm', 'of=/dev/null']])
      await refused(16, /vm@b is being removed/, ...words);
    await ok('diff', 'vm', '--from', 'c');
    assert.deepEqual(await readdir(dir), []);
  });

  test('JSON, and words that are wrong', async () => {
    const { json } = await rig.json(['export', 'vm@b', '--from', 'a', path('b')]);
    const counts = { data_bytes: 69632, zero_bytes: 24576 };
    assert.deepEqual({ ...(json as object), seconds: 0 }, { image: 'vm@b', from: 'vm@a', format: 'stream', size: 2097152, ...counts, seconds: 0 });
    await ok('export', 'vm@a', path('a'));
    const imported = await rig.json(['import', path('a'), 'copy', '-p', 'p']);
    assert.deepEqual({ ...(imported.json as object), seconds: 0 }, {
      image: 'copy', snapshot: 'copy@a', from: '', size: 2097152, data_bytes: 43 * K, zero_bytes: 0, was_there: false, seconds: 0,
    });
    assert.deepEqual((await rig.json(['import', '--dry-run', path('b')])).json, { image: 'vm', snapshot: 'vm@b', from: 'vm@a', size: 2097152, ...counts });
    for (const words of [['export'], ['import'], ['export', 'vm@a', 'x', 'y'], ['import', 'a', 'b', 'c'], ['export', 'vm@a', '--format', 'qcow2', 'x'], ['import', 'x', 'y', '--format', 'vmdk'],
      ['export', 'vm@a', '--iodepth', '0', 'x'], ['import', '--dry-run', 'x', '--format', 'raw'], ['import', 'x', 'y', '--size', '1M'], ['export', 'vm@a', '--iodepth', '5000', 'x']])
      assert.equal((await run(...words)).exit, 22, words.join(' '));
    assert.equal((await run('export', 'vm@a', '--json')).exit, 22);
    await refused(2, /cannot open .*nothing/, 'import', path('nothing'), 'x');
    await refused(2, /none not found/, 'export', 'none', path('x'));
    await refused(2, /Snapshot vm@z does not exist/, 'export', 'vm@b', '--from', 'z', path('x'));
    await refused(22, /vm@c is newer than vm@a/, 'export', 'vm@a', '--from', 'c', path('x'));
    await writeFile(path('junk'), bytes(2, 1));
    await refused(22, /this is no stream of vitastor-cli export; for the bytes of a disk use --format raw/, 'import', path('junk'), 'x', '-p', 'p');
    assert.equal(rig.keys('index/image/x').length, 0);
  });
});

/** Small numbers from a seed. */
function dice(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

describe('random chains', { skip: nativeMissing() }, () => {
  for (let seed = 1; seed <= 16; seed++) {
    test(`seed ${seed}: restored in random steps, over what was there, and raw`, async () => {
      const roll = dice(seed);
      const pool = (): string => (roll(2) ? 'p' : 'q');
      let granules = 20 + roll(600);
      await ok('create', '-s', String(granules * K), '-p', pool(), 'vm');
      const snaps = 3 + roll(3);
      for (let snap = 0; snap < snaps; snap++) {
        for (let i = roll(25); i > 0; i--) {
          const at = roll(granules);
          const count = Math.min(granules - at, 1 + roll(roll(3) ? 6 : 120));
          rig.images.fill('vm', at * K, roll(3) ? bytes(count, seed + i) : Buffer.alloc(count * K));
        }
        await ok('snap-create', `vm@${snap}`, '-p', pool());
        if (roll(4) === 0) {
          granules += 1 + roll(100);
          await ok('modify', 'vm', '--resize', String(granules * K));
        }
      }
      const next = (snap: number): number => snap + 1 + roll(snaps - snap - 1);
      for (let copy = 0; copy < 3; copy++) {
        let at = roll(snaps);
        const name = `copy${copy}`;
        await ok('export', `vm@${at}`, path(name), '--iodepth', String(1 + roll(4)));
        if (roll(2)) {
          await ok('create', '-s', String(rig.images.content(`vm@${at}`).length), '-p', pool(), name);
          for (let i = roll(9); i > 0; i--) rig.images.fill(name, roll(15) * K, bytes(5, i));
        }
        await ok('import', path(name), name, '--force', '--iodepth', String(1 + roll(5)), ...(rig.keys('index/image').includes(`index/image/${name}`) ? [] : ['-p', pool()]));
        same(name, `vm@${at}`);
        await ok('export', `vm@${at}`, '--format', 'raw', path(`${name}.raw`));
        while (at < snaps - 1) {
          const to = next(at);
          rig.bytesOut = [];
          await ok('export', `vm@${to}`, '--from', String(at));
          const stream = Buffer.concat(rig.bytesOut);
          rig.stdinPieces = [];
          for (let i = 0; i < stream.length;) {
            const size = 1 + roll(50_000);
            rig.stdinPieces.push(stream.subarray(i, i + size));
            i += size;
          }
          await ok('import', name);
          same(name, `vm@${to}`);
          same(`${name}@${to}`, `vm@${to}`);
          await ok('export', `vm@${to}`, '--from', String(at), '--format', 'raw', path(`${name}.raw`));
          assert.ok((await readFile(path(`${name}.raw`))).equals(rig.images.content(`vm@${to}`)), 'raw');
          at = to;
        }
      }
    });
  }
});
