// SPDX-License-Identifier: GPL-2.0-or-later
// The QEMU driver in Debian's unmodified QEMU, by LD_PRELOAD: images in and out, maps, bad input, odd lengths, several processes, snapshots and new sizes
// under an open image. The commands are those of spec/commands.md 4, filled in.

import assert from 'node:assert/strict';
import { readFileSync, existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Lab, until } from '../lab/index.js';
import { address, dataBytes, map, mustQemu, mustQemuIo, plainQemu, qemu, qemuIo, QemuSession } from './qemu-rig.js';
import { assertSays, smallCluster, type Story } from './scenario.js';

const MIB = 1024 ** 2;
const Q1 = "qemu-img convert -f qcow2 debian10.qcow2 -p -O raw 'vitastor:etcd_host=<IP>\\:2379/v3:image=testimg'";

/** Says so and gives false where there is no driver to test. */
function hasDriver(lab: Lab, say: (text: string) => void): boolean {
  if (lab.programs.qemuDriver) return true;
  say('left out: qemu-img or the driver (build/<preset>/qemu/block-vitastor.so) is not there; `npm run build` says why');
  return false;
}

/** A disk as installers leave it: data here and there, most of it empty. */
async function makeSource(lab: Lab, file: string): Promise<void> {
  await plainQemu(lab, ['qemu-img', 'create', '-q', '-f', 'qcow2', file, '64M']);
  const writes = ['write -P 1 0 1M', 'write -P 2 5M 64k', 'write -P 3 20M 10M', 'write -P 4 40960 512', 'write -P 5 41000k 4k', 'write -P 6 63M 1M', 'write -z 21M 1M'];
  await plainQemu(lab, ['qemu-io', ...writes.flatMap((command) => ['-c', command]), file]);
}

const convert: Story = {
  name: 'qemu-img',
  short: true,
  run: async ({ lab: make, say }) => {
    const lab = await make();
    if (!hasDriver(lab, say)) return;
    await smallCluster(lab, { image: '64M' });
    const base = address(lab);
    const source = join(lab.dir, 'debian10.qcow2');
    await makeSource(lab, source);

    // Q1 to the letter but for the port, with the variable of Q2 in front, by a shell.
    const manual = join(lab.programs.root, '../shared/spec/commands.md');
    if (existsSync(manual)) assert.ok(readFileSync(manual, 'utf8').includes(Q1), `Q1 stands otherwise in the specification: ${Q1}`);
    const port = /:(\d+)$/.exec(lab.etcdAddresses[0] ?? '')?.[1] ?? '';
    const line = `LD_PRELOAD=${dirname(lab.programs.qemuDriver)}/block-vitastor.so ${Q1.replace('<IP>', '127.0.0.1').replace('2379', port).replace('debian10.qcow2', source)}`;
    const q2 = await lab.command('shell', ['sh', '-c', line]);
    assert.equal(q2.code, 0, `${line}\n${q2.stdout}${q2.stderr}`);
    assert.match(q2.stdout, /100\.00\/100%/);
    const image = `${base}:image=testimg`;
    assert.match(await mustQemu(lab, ['qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', source, image]), /identical/);

    // Holes are seen: 11 MB and some granules are not zero, of an image of 64 MB.
    const extents = await map(lab, image);
    assert.equal(extents.reduce((sum, extent) => sum + extent.length, 0), 64 * MIB);
    assert.ok(dataBytes(extents) >= 11 * MIB && dataBytes(extents) <= 12 * MIB, `data: ${dataBytes(extents)}`);
    const info = JSON.parse(await mustQemu(lab, ['qemu-img', 'info', '--output=json', image])) as Record<string, unknown>;
    assert.equal(info['format'], 'raw');
    assert.equal(info['virtual-size'], 64 * MIB);
    assert.equal(info['filename'], `vitastor://?image=testimg&etcd_host=127.0.0.1:${port}/v3`);
    assert.match(await mustQemu(lab, ['qemu-img', 'compare', '-f', 'raw', '-F', 'raw', String(info['filename']), image]), /identical/);

    // Q3: an inode by number, without metadata. Q4: out again.
    const inode = `${base}:pool=1:inode=77:size=${64 * MIB}`;
    await mustQemu(lab, ['qemu-img', 'convert', '-f', 'qcow2', source, '-p', '-O', 'raw', inode]);
    const out = join(lab.dir, 'out.qcow2');
    await mustQemu(lab, ['qemu-img', 'convert', '-f', 'raw', inode, '-O', 'qcow2', out]);
    assert.match(await plainQemu(lab, ['qemu-img', 'compare', source, out]), /identical/);
    assert.ok(statSync(out).blocks * 512 < 14 * MIB, 'holes stay holes');

    // Over data that was there: what the new disk has as zeroes reads as zeroes.
    await mustQemuIo(lab, image, 'write -P 9 0 64M');
    await mustQemu(lab, ['qemu-img', 'convert', '-n', '-f', 'qcow2', source, '-O', 'raw', image]);
    assert.match(await mustQemu(lab, ['qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', source, image]), /identical/);
    assert.ok(dataBytes(await map(lab, image)) <= 14 * MIB, 'zeroes have freed what was there');
    // A qcow2 inside an image.
    await mustQemu(lab, ['qemu-img', 'convert', '-f', 'qcow2', source, '-O', 'qcow2', inode]);
    assert.match(await mustQemu(lab, ['qemu-img', 'compare', '-f', 'qcow2', '-F', 'qcow2', source, inode]), /identical/);
    assert.match(await mustQemu(lab, ['qemu-img', 'bench', '-f', 'raw', '-t', 'none', '-c', '2000', '-d', '128', '-s', '4096', '-w', inode]), /Run completed/);
  },
};

const misuse: Story = {
  name: 'qemu-misuse',
  short: true,
  run: async ({ lab: make, say }) => {
    const lab = await make();
    if (!hasDriver(lab, say)) return;
    await smallCluster(lab, { image: '16M' });
    const base = address(lab);
    const strange = 'name/with spaces & ü';
    await lab.createImage(strange, '16M');
    await mustQemuIo(lab, `${base}:image=${strange}`, 'write -P 1 0 64k', 'read -P 1 0 64k');
    const uri = `vitastor://?image=${encodeURIComponent(strange)}&etcd-host=${(lab.etcdAddresses[0] ?? '').replace('http://', '')}&skip-parents=0&use_rdma=0`;
    await mustQemuIo(lab, uri, 'read -P 1 0 64k');
    const drive = ['qemu-io', '-c', 'read -P 1 0 64k', '--image-opts',
      `driver=raw,file.driver=vitastor,file.image=${strange},file.etcd_host=${(lab.etcdAddresses[0] ?? '').replace('http://', '')}`];
    assert.match(await mustQemu(lab, drive), /read 65536\/65536/);

    const refused: [string, ...RegExp[]][] = [
      [`${base}:imgae=testimg`, /unknown option 'imgae'/, /did you mean 'image'/],
      [`${base}:image=nothere`, /image nothere does not exist/, /vitastor-cli ls/],
      [`${base}:image=testimg:pool=1:inode=1`, /either image, or inode and pool/],
      [`${base}:image=testimg:image=testimg`, /'image' is given twice/],
      [`${base}:image=`, /image= is empty/],
      [`${base}:pool=1:inode=5000`, /inode 5000 of pool 1/, /size=BYTES/],
      [`${base}:inode=5`, /pool=N/],
      [`${base}:pool=9:inode=5:size=1M`, /pool 9 does not exist/],
      [`${base}:pool=1:inode=5:size=1000`, /multiple of 512/],
      [`${base}:testimg`, /no key=value/, /vitastor:image=testimg/],
      [base, /no image given/],
      ['vitastor:etcd_host=127.0.0.1\\:1:image=testimg', /etcd does not answer/, /127\.0\.0\.1/],
      ['vitastor:config_path=/nonexistent.conf:image=testimg', /nonexistent\.conf/],
      ['vitastor://image=testimg', /after 'vitastor:\/\/'/],
      ['vitastor://?image=%zz', /%-escape/],
    ];
    for (const [name, ...patterns] of refused) {
      const result = await qemu(lab, ['qemu-img', 'info', name]);
      assert.equal(result.code, 1, `${name}\n${result.stdout}${result.stderr}`);
      assertSays(result.stderr, ...patterns);
    }
    // Creation and sizes are vitastor-cli's: the message has the command.
    const image = `${base}:image=testimg`;
    for (const [argv, ...patterns] of [
      [['create', '-f', 'raw', `${base}:image=nothere`, '1G'], /nothere does not exist/, /vitastor-cli create -s 1073741824 nothere/],
      [['create', '-f', 'raw', image, '1G'], /16777216 bytes, 1073741824 are needed/, /vitastor-cli modify --resize 1073741824 testimg/],
      [['resize', '-f', 'raw', image, '+16M'], /vitastor-cli modify --resize 33554432 testimg/],
    ] as [string[], ...RegExp[]][]) {
      const result = await qemu(lab, ['qemu-img', ...argv]);
      assert.equal(result.code, 1, `${argv.join(' ')}\n${result.stdout}${result.stderr}`);
      assertSays(result.stderr, ...patterns);
    }
    await mustQemu(lab, ['qemu-img', 'create', '-f', 'raw', image, '16M']);
    const done = await lab.cli(['modify', '--readonly', 'testimg']);
    assert.equal(done.code, 0, done.stderr);
    assertSays(await qemuIo(lab, image, 'write 0 4k'), /testimg is read-only/);
    assert.match(await mustQemu(lab, ['qemu-io', '-r', '-f', 'raw', '-c', 'read -P 0 0 4k', image]), /read 4096/);
    const copied = await qemu(lab, ['qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', `${base}:image=${strange}`, image]);
    assert.equal(copied.code, 1, copied.stdout + copied.stderr);
    assertSays(copied.stderr, /testimg is read-only/);

    await names(lab);
    await removedWhileOpen(lab);
  },
};

/** Every name that an image may have is reached, in each of QEMU's spellings. */
async function names(lab: Lab): Promise<void> {
  const base = address(lab);
  const etcd = (lab.etcdAddresses[0] ?? '').replace('http://', '');
  for (const name of ['a/b//c', 'ü→名', 'n'.repeat(255), 'C:\\disk:1', "50%41&x=y?z#'\"", 'trailing ']) {
    await lab.createImage(name, '1M');
    const colons = `${base}:image=${name.replaceAll(/[\\:]/g, '\\$&')}`;
    const uri = `vitastor://?image=${encodeURIComponent(name)}&etcd_host=${etcd}`;
    await mustQemuIo(lab, colons, 'write -P 5 0 64k');
    await mustQemuIo(lab, uri, 'read -P 5 0 64k');
    const info = JSON.parse(await mustQemu(lab, ['qemu-img', 'info', '--output=json', colons])) as Record<string, unknown>;
    assert.equal(info['virtual-size'], MIB);
    // What QEMU says it is called opens it again.
    await mustQemuIo(lab, String(info['filename']), 'read -P 5 0 64k');
    const snap = await lab.cli(['snap-create', `${name}@s`]);
    assert.equal(snap.code, 0, snap.stderr);
    assert.match(await mustQemu(lab, ['qemu-io', '-r', '-f', 'raw', '-c', 'read -P 5 0 64k', `${colons}@s`]), /read 65536/);
    assertSays(await qemuIo(lab, `${colons}@s`, 'write 0 4k'), /is read-only/);
    const gone = await qemu(lab, ['qemu-img', 'info', `${colons}@nothere`]);
    assert.equal(gone.code, 1);
    assertSays(gone.stderr, /@nothere does not exist/);
  }
  const long = await qemu(lab, ['qemu-img', 'info', `${base}:image=${'n'.repeat(4096)}`]);
  assert.equal(long.code, 1);
  assertSays(long.stderr, /n{100}|too long/);
}

/** Whoever has it open gets errors, and neither ends by a signal nor hangs. */
async function removedWhileOpen(lab: Lab): Promise<void> {
  await lab.createImage('victim', '8M');
  const file = `${address(lab)}:image=victim`;
  const session = new QemuSession(lab, file, ['-t', 'none']);
  await session.write(7, '0', '4M');
  const removed = await lab.cli(['rm', 'victim', '--progress', '0']);
  assert.equal(removed.code, 0, removed.stderr);
  // -f: with a flush after it.
  for (const command of ['write -f -P 8 0 64k', 'read 0 64k', 'discard 0 1M']) await session.run(command, /failed: No such file/);
  await session.run('length', /MiB|failed/);
  await session.close(true);
  const again = await qemu(lab, ['qemu-img', 'info', file]);
  assert.equal(again.code, 1);
  assertSays(again.stderr, /victim does not exist/);
}

const sessions: Story = {
  name: 'qemu-sessions',
  short: true,
  run: async ({ lab: make, long, say }) => {
    const lab = await make({ supervise: true });
    if (!hasDriver(lab, say)) return;
    await smallCluster(lab, { image: '16M' });
    const base = address(lab);
    const image = `${base}:image=testimg`;
    // Odd lengths, what discard and write-zeroes leave, and what the map then says.
    await mustQemuIo(lab, image, 'write -P 1 0 1M', 'write -P 2 1000 5000', 'read -P 1 0 1000', 'read -P 2 1000 5000', 'read -P 1 6000 4096', 'flush');
    await mustQemuIo(lab, image, 'discard 128k 512k', 'read -P 1 0 1000', 'read -P 0 128k 512k', 'read -P 1 640k 128k');
    await mustQemuIo(lab, image, 'write -z 700k 4k', 'read -P 0 700k 4k', 'write -z -u 512 1024', 'read -P 1 0 512', 'read -P 0 512 1024', 'read -P 2 1536 4464');
    assert.deepEqual((await map(lab, image)).map(({ start, data }) => [start, data]), [[0, true], [131072, false], [655360, true], [MIB, false]]);
    await mustQemuIo(lab, image, 'discard 0 16M');
    assert.equal(dataBytes(await map(lab, image)), 0);

    // Two processes write sectors of the same granules at once: neither undoes the other.
    const rounds = long ? 400 : 60;
    const sectors = (first: number): string[] =>
      Array.from({ length: rounds }, (_, i) => `write -P ${1 + first + ((i * 7) % 100)} ${(2 * i + first) * 512} 512`);
    await Promise.all([0, 1].map((first) => mustQemuIo(lab, image, ...sectors(first))));
    await mustQemuIo(lab, image, ...[0, 1].flatMap((first) => sectors(first).map((line) => line.replace('write', 'read'))));

    // A snapshot under an open image: the session goes on in the new layer.
    const session = new QemuSession(lab, image, ['-t', 'none']);
    await session.write(0x11, '1M', '1M');
    const snap = await lab.cli(['snap-create', 'testimg@one']);
    assert.equal(snap.code, 0, snap.stderr);
    await session.write(0x22, '1M', '256k');
    await session.write(0x33, '1310720', '512');
    await session.read(0x11, '1400k', '100k');
    await mustQemu(lab, ['qemu-io', '-r', '-f', 'raw', '-c', 'read -P 0x11 1M 1M', `${image}@one`]);
    await mustQemuIo(lab, image, 'read -P 0x22 1M 256k', 'read -P 0x33 1310720 512', 'read -P 0x11 1311232 512', 'read -P 0x11 1400k 100k');
    assertSays(await qemuIo(lab, `${image}@one`, 'write 0 4k'), /testimg@one is read-only/);
    // A discard in an image with a parent fills nothing, and write-zeroes hides what is below.
    const before = dataBytes(await map(lab, `${image}:skip-parents=1`));
    await session.run('discard 1536k 128k', /discard (\d+)\/\1 bytes/);
    await session.run('write -z -u 1792k 128k', /wrote (\d+)\/\1 bytes/);
    await session.read(0, '1792k', '128k');
    const own = await map(lab, `${image}:skip-parents=1`);
    assert.equal(dataBytes(own), before + 128 * 1024, 'the layer alone: what was written since');

    // The layer alone over the snapshot, as backups have it.
    const [below, top, whole] = ['below', 'top', 'whole'].map((name) => join(lab.dir, `${name}.qcow2`)) as [string, string, string];
    await mustQemu(lab, ['qemu-img', 'convert', '-f', 'raw', `${image}@one`, '-O', 'qcow2', below]);
    await mustQemu(lab, ['qemu-img', 'convert', '-f', 'raw', `${image}:skip-parents=1`, '-O', 'qcow2', '-o', 'cluster_size=4k,backing_fmt=qcow2', '-B', below, top]);
    await mustQemu(lab, ['qemu-img', 'convert', '-f', 'raw', image, '-O', 'qcow2', whole]);
    assert.match(await plainQemu(lab, ['qemu-img', 'compare', whole, top]), /identical/);
    assert.ok(statSync(top).blocks * 512 < 2 * MIB, 'the difference alone');

    // A new size reaches who has it open.
    assert.match(await session.run('length', /MiB/), /16 MiB/);
    const grown = await lab.cli(['modify', '--resize', '24M', 'testimg']);
    assert.equal(grown.code, 0, grown.stderr);
    await until('the session sees the new size', async () => /24 MiB/.test(await session.run('length', /MiB/)), { timeoutMs: 30_000, everyMs: 100 });
    await session.write(0x44, '20M', '64k');
    await session.read(0x44, '20M', '64k');
    await session.close();

    // One OSD is killed under a session: it goes on.
    const busy = new QemuSession(lab, image, ['-t', 'none']);
    await busy.write(0x55, '4M', '4M');
    lab.killOsd(2);
    await busy.write(0x66, '6M', '4M');
    await busy.read(0x55, '4M', '2M');
    await busy.read(0x66, '6M', '4M');
    await busy.close();
  },
};

export const QEMU_STORIES: readonly Story[] = [convert, misuse, sessions];
