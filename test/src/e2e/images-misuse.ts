// SPDX-License-Identifier: GPL-2.0-or-later
// Wrong input about images: names of every kind, records that make no sense, images that vanish under their users, two tools at once. A
// clear message that names the thing, the reason and what to do, in time; and nothing is lost.

import assert from 'node:assert/strict';
import { Client } from '@vitastor/core';
import { type CommandResult, type Lab, until } from '../lab/index.js';
import { RealImages } from './image-model.js';
import { assertSays, fioReadBack, fioVerify, smallCluster, type Story } from './scenario.js';

const MIB = 1024 ** 2;
/** Nothing here needs longer, however busy the machine is: what takes longer hangs. */
const IN_TIME = { timeoutMs: 60_000 };

class Tools {
  readonly #lab: Lab;

  constructor(lab: Lab) {
    this.#lab = lab;
  }
  async ok(...args: string[]): Promise<string> {
    const result = await this.#lab.cli([...args, '--progress', '0'], IN_TIME);
    assert.equal(result.code, 0, `${args.join(' ')}: ${result.stdout}${result.stderr}`);
    return result.stdout;
  }
  /** Ends with this code and says this, as text and as JSON. */
  async refused(code: number, says: RegExp, ...args: string[]): Promise<void> {
    const result = await this.#lab.cli([...args, '--progress', '0'], IN_TIME);
    assert.equal(result.code, code, `${args.join(' ')}: ${result.stdout}${result.stderr}`);
    assertSays(result.stderr, says);
  }
  fio(image: string, rw: string): Promise<CommandResult> {
    return this.#lab.fio(['-name=x', `-image=${image}`, `-rw=${rw}`, '-bs=4k', '-size=64k'], IN_TIME);
  }
  async fioOk(image: string, rw: string): Promise<void> {
    const result = await this.fio(image, rw);
    assert.equal(result.code, 0, `fio ${rw} ${image}: ${result.stdout}${result.stderr}`);
  }
  /** fio ends by itself, and not by a signal. */
  async fioRefused(says: RegExp, image: string, rw: string): Promise<void> {
    const result = await this.fio(image, rw);
    assert.equal(result.code, 1, `fio ${rw} ${image}: ${result.stdout}${result.stderr}`);
    assertSays(result.stdout + result.stderr, says);
  }
}

async function names(lab: Lab, tools: Tools, whole: boolean): Promise<void> {
  const long = 'n'.repeat(255);
  const good = ['a-/b', "ü→名 '\"\\", long, '/', '..', 'a//b', 'two words', '%41', 'trailing '];
  for (const name of whole ? good : good.slice(0, 2)) {
    await tools.ok('create', '-s', '1M', name);
    await tools.ok('snap-create', `${name}@s/1`);
    const list = (await lab.cliJson(['ls', '--exact', name])) as { name: string }[];
    assert.deepEqual(list.map((image) => image.name), [name]);
    await tools.ok('rm', `${name}@s/1`, name);
  }
  // What fio makes of a name is fio's: a colon divides file names, nothing else is special in an option's value.
  for (const name of whole ? ['a/b', 'ü→名', long] : [`ü→/${'n'.repeat(240)}`]) {
    await tools.ok('create', '-s', '1M', name);
    await tools.fioOk(name, 'write');
    await tools.ok('rm', name);
  }
  await tools.refused(22, /Image name is missing/, 'create', '-s', '1M', '');
  await tools.refused(22, /has 256 bytes: choose one of at most 255/, 'create', '-s', '1M', `${long}n`);
  await tools.refused(22, /has 4096 bytes/, 'modify', 'testimg', '--rename', 'y'.repeat(4096));
  await tools.refused(22, /control characters/, 'create', '-s', '1M', 'new\nline');
  for (const name of whole ? ['a@b', '@', '@b'] : ['@']) await tools.refused(22, /@/, 'create', '-s', '1M', name);
  for (const name of whole ? ['testimg', 'testimg@', '@s', 'testimg@a@b', `testimg@${long}n`] : ['testimg@', 'testimg@a@b'])
    await tools.refused(22, /IMAGE@SNAPSHOT|@ character|at most 255/, 'snap-create', name);
  await tools.refused(17, /Image testimg already exists/, 'create', '-s', '1M', 'testimg');
  for (const args of [['rm'], ['flatten'], ['modify', '--resize', '1M'], ['snap-create'], ['create', 'x', '--parent']]) {
    const [command = '', ...rest] = args;
    const name = command === 'snap-create' ? 'nosuch@s' : 'nosuch';
    await tools.refused(2, /nosuch (not found|does not exist)/, ...(command === 'create' ? [...args, name] : [command, name, ...rest]));
  }
  for (const rw of ['read', 'write']) await tools.fioRefused(/image nosuch does not exist: look at `vitastor-cli ls`/, 'nosuch', rw);
}

async function readOnly(tools: Tools, whole: boolean): Promise<void> {
  await tools.ok('create', '-s', '1M', 'ro');
  await tools.fioOk('ro', 'write');
  await tools.ok('snap-create', 'ro@s');
  await tools.ok('modify', 'ro', '--readonly');
  for (const name of ['ro', 'ro@s']) {
    for (const rw of whole ? ['write', 'randrw', 'trim'] : ['randrw']) await tools.fioRefused(new RegExp(`image ${name} is read-only.*--readwrite`, 's'), name, rw);
    await tools.fioOk(name, 'read');
  }
  await tools.refused(22, /ro@s has children.*--force/, 'modify', 'ro@s', '--readwrite');
  await tools.ok('rm', 'ro@s', 'ro');
}

/** Chains that lead nowhere, put by hand. `ls` shows them, what would read through them says why it cannot, rm of the topmost works. */
async function brokenChains(lab: Lab, tools: Tools, whole: boolean): Promise<void> {
  const put = (inode: number, value: object | string): Promise<void> =>
    lab.etcd.put(`${lab.prefix}/config/inode/1/${inode}`, typeof value === 'string' ? value : JSON.stringify({ size: MIB, ...value }));
  await put(102, { name: 'ring3' });
  await tools.fioOk('ring3', 'write');
  await put(100, { name: 'ring1', parent_id: 102, readonly: true });
  await put(101, { name: 'ring2', parent_id: 100, readonly: true });
  await put(102, { name: 'ring3', parent_id: 101 });
  await put(103, { name: 'self', parent_id: 103 });
  await put(104, { name: 'on-ring', parent_id: 100 });
  await put(105, { name: 'orphan', parent_id: 9999 });
  await put(106, { name: 'poolless', parent_pool: 77, parent_id: 1 });
  await put(107, { name: 'on-garbage', parent_id: 108 });
  await put(108, '{"name":"garbage","size":');
  const loop = /form a loop.*correct parent_id/;
  const gone = /(does not exist|is missing).*correct parent_id/s;
  const broken: [name: string, code: number, says: RegExp][] = [
    ['ring3', 9, loop], ['ring1', 9, loop], ['self', 9, loop], ['on-ring', 9, loop], ['orphan', 2, gone], ['poolless', 2, gone], ['on-garbage', 2, gone],
  ];
  // Each kind is tested whole in admin, layers (core) and test_io (native); here the ones that differ most.
  for (const [name, code, says] of whole ? broken : broken.filter(([name]) => name === 'on-ring' || name === 'on-garbage')) {
    for (const args of [['ls', '-l', name], ['ls', '--tree', name]]) assert.match(await tools.ok(...args), new RegExp(name));
    await tools.refused(code, says, 'snap-create', `${name}@s`);
    await tools.refused(code, says, 'create', '--parent', name, 'child');
    await tools.refused(code, says, 'flatten', name);
    await tools.refused(code, says, 'merge-data', 'testimg', name);
    await tools.ok('modify', name, '--rename', `${name}-2`);
    await tools.ok('modify', `${name}-2`, '--rename', name);
    for (const rw of ['read', 'write']) await tools.fioRefused(says, name, rw);
  }
  for (const name of whole ? ['ring1', 'ring2', 'ring3'] : ['ring1']) await tools.refused(9, loop, 'rm', name);
  // Nobody but itself stands on `self`, and nobody on the others.
  for (const name of ['on-ring', 'orphan', 'poolless', 'on-garbage', 'self']) await tools.ok('rm', name);
  // As the message says; the data that was there is there.
  await put(102, { name: 'ring3' });
  await tools.fioOk('ring1', 'read');
  await tools.ok('rm', 'ring3', 'ring2');
  await lab.etcd.delete(`${lab.prefix}/config/inode/1/108`);
}

/** A counter that is missing, behind or garbage; records that cannot be read. */
async function records(lab: Lab, tools: Tools, whole: boolean): Promise<void> {
  const key = (path: string): string => `${lab.prefix}/${path}`;
  for (const [number, value] of (whole ? [null, '1', '"x', '-5', '[]', '1e300'] : [null, '1', '"x']).entries()) {
    if (value === null) await lab.etcd.delete(key('index/maxid/1'));
    else await lab.etcd.put(key('index/maxid/1'), value);
    const before = new Set((await lab.etcd.prefix(key('config/inode/1/'))).keys());
    await tools.ok('create', '-s', '1M', `counted${number}`);
    const fresh = [...(await lab.etcd.prefix(key('config/inode/1/'))).keys()].filter((one) => !before.has(one));
    assert.equal(fresh.length, 1, `index/maxid ${String(value)}: one more record, none replaced`);
    assert.equal(key(`config/inode/1/${await lab.etcd.get(key('index/maxid/1')) ?? ''}`), fresh[0], 'the counter is right again');
  }
  await tools.ok('rm', '--matching', 'counted*');
  await lab.etcd.put(key('index/image/taken'), '{"id":1,"pool_id":1}');
  await tools.refused(17, /taken already exists/, 'create', '-s', '1M', 'taken');
  await lab.etcd.delete(key('index/image/taken'));
  // A record that cannot be read is named, and what it was is not given away.
  const all = ['{"name":', 'null', '[]', '7', '{"name":true}', '{"name":"g","size":-1}', '{"name":"g","size":1048576,"parent_id":"x"}'];
  for (const garbage of whole ? all : all.slice(0, 2)) {
    await lab.etcd.put(key('config/inode/1/500'), garbage);
    const ls = await lab.cli(['ls'], IN_TIME);
    assert.equal(ls.code, 0, ls.stderr);
    assertSays(ls.stdout, /testimg/);
    if (garbage !== 'null') assertSays(ls.stderr, /config\/inode\/1\/500/);
  }
  await tools.ok('create', '-s', '1M', 'after500');
  assert.ok(await lab.etcd.get(key('config/inode/1/501')), 'the number of a record that cannot be read is not given away');
  await tools.ok('rm', 'after500');
  await lab.etcd.delete(key('config/inode/1/500'));
}

/** Whoever has it open goes on reading and writing, or gets an error, and never ends by a signal or hangs; nothing else is touched. */
async function removedWhileOpen(lab: Lab, tools: Tools): Promise<void> {
  await tools.ok('create', '-s', '8M', 'victim');
  const log: string[] = [];
  const client = new Client({ config: {}, configPath: lab.configPath, log: (_level, text) => log.push(text) });
  const image = await client.open({ image: 'victim' });
  const block = Buffer.alloc(4096, 7);
  await image.write(0n, block);
  const fio = lab.fio(['-name=x', '-image=victim', '-rw=randrw', '-bs=4k', '-size=8M', '-iodepth=4', '-time_based', '-runtime=60'], IN_TIME);
  await until('fio writes', async () => {
    const { data } = await image.read(0n, 8 * MIB);
    return data.subarray(MIB).some((byte) => byte !== 0);
  }, { timeoutMs: 30_000, diagnose: () => lab.diagnose() });
  await tools.ok('rm', 'victim');
  const ended = await fio;
  assert.ok(ended.code === 1, `fio on a removed image ended with ${ended.code}: ${ended.stdout}${ended.stderr}`);
  assertSays(ended.stdout + ended.stderr, /No such file/);
  // Whoever comes later under its name has nothing to do with it.
  await tools.ok('create', '-s', '8M', 'victim');
  await assert.rejects(image.read(0n, 4096), /victim.*ENOENT/s);
  await assert.rejects(image.write(0n, block), /victim.*ENOENT/s);
  assert.ok(log.some((line) => /image victim, which is open, cannot be used any more/.test(line)), log.join('\n'));
  await image.close();
  await client.close();
  assert.ok((await new RealImages(lab).read('victim')).every((byte) => byte === 0));
  await tools.ok('rm', 'victim');
  await tools.fioRefused(/image victim does not exist/, 'victim', 'read');
}

/** Two tools on one name, one number, one image: one wins, the other says so, nothing is between. */
async function races(lab: Lab, tools: Tools, rounds: number): Promise<void> {
  const both = async (one: readonly string[], two: readonly string[]): Promise<number[]> => {
    const results = await Promise.all([lab.cli([...one, '--progress', '0'], IN_TIME), lab.cli([...two, '--progress', '0'], IN_TIME)]);
    for (const result of results) {
      if (result.code === 0) continue;
      assertSays(result.stderr, /race/);
      assert.ok([2, 11, 16, 17].includes(result.code), `${one.join(' ')} against ${two.join(' ')}: ${result.code} ${result.stderr}`);
    }
    return results.map((result) => result.code);
  };
  for (let round = 0; round < rounds; round++) {
    const name = `race${round}`;
    assert.deepEqual((await both(['create', '-s', '1M', name], ['create', '-s', '2M', name])).sort(), [0, 17]);
    assert.deepEqual(await both(['create', '-s', '1M', `${name}-a`], ['create', '-s', '1M', `${name}-b`]), [0, 0]);
    assert.ok((await both(['snap-create', `${name}@s`], ['snap-create', `${name}@s`])).includes(0));
    assert.ok((await both(['snap-create', `${name}@t`], ['modify', name, '--resize', '4M'])).includes(0));
    assert.ok((await both(['modify', `${name}-a`, '--rename', `${name}-c`], ['modify', `${name}-b`, '--rename', `${name}-c`])).includes(0));
    assert.ok((await both(['rm', `${name}@s`], ['create', '--parent', `${name}@s`, `${name}-d`])).includes(0));
    assert.ok((await both(['flatten', name], ['rm', `${name}@s`])).includes(0));
    const list = (await lab.cliJson(['ls', `${name}*`])) as { name: string }[];
    assert.equal(new Set(list.map((image) => image.name)).size, list.length, 'every name once');
    const inodes = await lab.etcd.prefix(`${lab.prefix}/config/inode/1/`);
    const index = await lab.etcd.prefix(`${lab.prefix}/index/image/`);
    for (const [key, text] of index) {
      const { id } = JSON.parse(text) as { id: number };
      const record = JSON.parse(inodes.get(`${lab.prefix}/config/inode/1/${id}`) ?? '{}') as { name?: string };
      assert.equal(record.name, key.slice(`${lab.prefix}/index/image/`.length), 'index and record agree');
    }
    await tools.ok('rm', '--exact', ...list.map((image) => image.name));
  }
}

const story: Story = {
  name: 'images-misuse',
  short: true,
  run: async ({ lab: make, long, say }) => {
    const lab = await make();
    await smallCluster(lab, { image: '16M', pgCount: 8 });
    await fioVerify(lab, { depth: 8, seconds: 1, megabytes: 8 });
    const tools = new Tools(lab);
    const images = new RealImages(lab);
    say('names');
    await names(lab, tools, long);
    say('read-only images');
    await readOnly(tools, long);
    say('chains that lead nowhere');
    await brokenChains(lab, tools, long);
    say('records that make no sense');
    await records(lab, tools, long);
    say('an image removed while it is open');
    await removedWhileOpen(lab, tools);
    say('two tools at once');
    await races(lab, tools, long ? 20 : 1);
    // All that has nothing to do with it is as it was.
    await fioReadBack(lab, { megabytes: 8, what: 'testimg afterwards' });
    assert.ok((await images.read('testimg')).subarray(8 * MIB).every((byte) => byte === 0));
    assert.deepEqual(((await lab.cliJson(['ls'])) as { name: string }[]).map((image) => image.name), ['testimg']);
    for (const child of lab.daemons()) assert.equal(child.exit, null, child.story());
  },
};

export const IMAGE_MISUSE_STORIES: readonly Story[] = [story];
