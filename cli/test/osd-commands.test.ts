// SPDX-License-Identifier: GPL-2.0-or-later
// Commands about OSDs and the whole cluster: what goes where, and with which exit code.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { CATALOG, examplesOf, findCommand } from '../src/catalog.js';
import { editDistance, nearest } from '../src/suggest.js';
import { CliRig } from './harness.js';

let rig: CliRig;
beforeEach(() => {
  rig = new CliRig();
});
afterEach(() => rig.stop());

const POOL = { name: 'p', scheme: 'replicated', pg_size: 2, pg_minsize: 1, pg_count: 1, failure_domain: 'host' };

function cluster(up: readonly number[]): void {
  rig.put('config/global', { mon_change_timeout: 100 });
  rig.put('config/pools', { 1: POOL });
  rig.put('pg/config', { hash: 'h', items: { 1: { 1: { osd_set: ['1', '2'], primary: '1' } } } });
  rig.put('history/last_clean_pgs', { items: { 1: { 1: { osd_set: ['1', '2'], primary: '1' } } } });
  rig.put('pg/history/1/1', { epoch: 3, osd_sets: [[1]], all_peers: [1, 2] });
  rig.put('pg/state/1/1', { primary: 1, state: ['active', 'degraded'], peers: [1] });
  for (const osd of [1, 2, 3]) rig.put(`osd/stats/${osd}`, { host: `h${osd}`, size: 1e9, free: 1e9 });
  for (const osd of up) rig.put(`osd/state/${osd}`, { state: 'up', host: `h${osd}`, addresses: ['127.0.0.1'], port: 1 });
}

async function ok(...words: string[]): Promise<string> {
  const result = await rig.run(words);
  assert.deepEqual([result.exit, result.stderr], [0, ''], result.stdout);
  return result.stdout;
}

async function refused(exit: number, text: RegExp, ...words: string[]): Promise<void> {
  const result = await rig.run(words);
  assert.equal(result.exit, exit, `${result.stdout}${result.stderr}`);
  assert.match(result.stderr, text);
  assert.equal(result.stdout, '');
}

describe('rm-osd', () => {
  test('a dead OSD: refused, looked at, forced; then its number is free', async () => {
    cluster([1, 3]);
    await refused(16, /^Pool p \(ID 1\) will have DEGRADED PGs after deleting OSD\(s\)\.\nOSDs not deleted\..* --force /, 'rm-osd', '2');
    const looked = await rig.run(['rm-osd', '2', '--force', '--dry-run']);
    assert.deepEqual(looked, { exit: 0, stdout: 'OSD 2 would be removed from etcd\n', stderr: 'warning: Pool p (ID 1) will have DEGRADED PGs after deleting OSD(s).\n' });
    assert.deepEqual(rig.keys('osd/stats/'), ['osd/stats/1', 'osd/stats/2', 'osd/stats/3']);
    assert.deepEqual(await rig.json(['rm-osd', '2', '-f']), { exit: 0, json: { osd_ids: [2], pool_errors: [{ pool_id: 1, pool_name: 'p', effect: 'degraded' }] } });
    assert.deepEqual(rig.keys('osd/'), ['osd/state/1', 'osd/state/3', 'osd/stats/1', 'osd/stats/3']);
    assert.deepEqual(rig.get('pg/config'), { hash: 'h', items: { 1: { 1: { osd_set: ['1', 0], primary: '1' } } } });
    assert.deepEqual(rig.get('pg/history/1/1'), { epoch: 3, osd_sets: [[1]], all_peers: [1] });
    assert.equal(await ok('alloc-osd'), '2\n');
  });

  test('the last copy, and running OSDs', async () => {
    cluster([1, 3]);
    await refused(16, /INCOMPLETE objects \(DATA LOSS\)[\s\S]*OSD 1 is still up: stop it first, or add --allow-up\.\n.*--allow-data-loss/, 'rm-osd', '1', '--force');
    await refused(16, /^OSD 3 is still up: stop it first, or add --allow-up\.\n$/, 'rm-osd', '3', '--force');
    await refused(16, /INCOMPLETE PGs \(DATA LOSS\)/, 'rm-osd', '1', '2', '--allow-up', '--force');
    const removed = await rig.run(['rm-osd', '1', '2', '3', '1', '--allow-up', '--allow-data-loss']);
    assert.equal(removed.stdout, 'OSDs 1, 2, 3 are removed from etcd\n');
    assert.match(removed.stderr, /^warning: OSD 1, 3 still runs: stop it now/m);
    assert.deepEqual(rig.keys('osd/'), []);
  });

  test('words that are none', async () => {
    await refused(22, /OSD number is missing/, 'rm-osd');
    await refused(22, /"osd1" is not an OSD number/, 'rm-osd', 'osd1');
    await refused(22, /"0" is not an OSD number/, 'rm-osd', '0');
    cluster([]);
    await refused(22, /^option --dry_rn means nothing to rm-osd, did you mean --dry_run\?\n$/, 'rm-osd', '--dry-rn=1', '--force', '2');
    assert.equal(rig.keys('osd/stats/').length, 3);
  });
});

describe('alloc-osd, modify-osd', () => {
  test('the number alone', async () => {
    assert.deepEqual([await ok('alloc-osd'), await rig.json(['alloc-osd']), rig.get('osd/stats/2')], ['1\n', { exit: 0, json: 2 }, {}]);
    assert.match(await ok('osd-tree'), /^osd +1 +down +0B +0 % +1 +- +- +- +-/m);
  });

  test('settings, and taking them away; what is wrong', async () => {
    cluster([1]);
    assert.equal(await ok('modify-osd', '1', '--tags', 'ssd, fast,,ssd', '--reweight', '0.5'), 'OSD 1 configuration modified\n');
    assert.deepEqual(rig.get('config/osd/1'), { reweight: 0.5, tags: ['ssd', 'fast'] });
    assert.deepEqual(await rig.json(['modify-osd', '1', '--tags=', '--reweight', '1', '--noout', 'no']), { exit: 0, json: {} });
    assert.deepEqual(rig.keys('config/osd/'), []);
    await refused(22, /--reweight: "much" is not a number from 0 to 1/, 'modify-osd', '1', '--reweight', 'much');
    await refused(22, /--reweight: "-1" is not/, 'modify-osd', '1', '--reweight=-1');
    await refused(22, /--noout: "maybe" is neither true nor false/, 'modify-osd', '1', '--noout', 'maybe');
    await refused(22, /one OSD at a time/, 'modify-osd', '1', '2', '--noout', '1');
    await refused(22, /OSD number is missing/, 'modify-osd', '--noout', '1');
    await refused(2, /OSD 9 does not exist\. Use --force/, 'modify-osd', '9', '--noout', '1');
    await ok('modify-osd', '9', '--noout', '1', '--force');
    assert.deepEqual(rig.get('config/osd/9'), { noout: true });
  });
});

describe('flags', () => {
  test('list, set, unset; text and JSON', async () => {
    cluster([1]);
    rig.put('config/osd/3', { noout: true });
    assert.match(await ok('flags'), /^FLAG +STATE +WHILE IT IS SET *\nno_recovery +- +degraded objects are not recovered *\n[\s\S]*\nnoout of OSD 3: /);
    assert.equal(await ok('flags', 'set', 'no-recovery', 'no_scrub'), 'no_recovery is set: degraded objects are not recovered\nno_scrub is set: scrubs are suspended\n');
    assert.deepEqual(rig.get('config/global'), { mon_change_timeout: 100, no_recovery: true, no_scrub: true });
    assert.match(await ok('status'), /recovery: +disabled/);
    assert.deepEqual(await rig.json(['flags']), { exit: 0, json: { no_recovery: true, no_rebalance: false, no_scrub: true, readonly: false, noout_osds: [3] } });
    assert.deepEqual((await rig.json(['flags', 'unset', 'no_recovery'])).json, { no_recovery: false, no_rebalance: false, no_scrub: true, readonly: false, noout_osds: [3] });
    assert.equal(await ok('flags', 'unset', 'no_recovery'), 'no_recovery was not set\n');
    assert.equal(await ok('flags', 'set', 'no_scrub'), 'no_scrub was set already\n');
    assert.match(await ok('flags', 'set', 'readonly'), /^readonly is set: .*; OSDs that run take it over when they are restarted\n$/);
  });

  test('words that are none', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'vitastor-flags-'));
    const file = join(dir, 'v.conf');
    try {
      writeFileSync(file, '{"no_rebalance":true}');
      const keeps = /no_rebalance was not set\nno_rebalance is set in .*v\.conf: OSDs of this machine keep to that. Take it out there\n$/;
      assert.match(await ok('flags', 'unset', 'no_rebalance', '--config_path', file), keeps);
      assert.match(await ok('flags', '--config_path', file), /\nno_rebalance is set in .*v\.conf/);
    } finally {
      rmSync(dir, { recursive: true });
    }
    await refused(22, /no_recoveyr is not a flag, did you mean no_recovery\?/, 'flags', 'set', 'no_recoveyr');
    await refused(22, /norebalance is not a flag, did you mean no_rebalance\?/, 'flags', 'set', 'norebalance');
    await refused(22, /block_size is not a flag: flags are no_recovery, /, 'flags', 'unset', 'block_size');
    await refused(22, /use modify-osd --noout true ID/, 'flags', 'set', 'noout');
    await refused(22, /flags sett: .*, did you mean set\?/, 'flags', 'sett', 'no_scrub');
    await refused(22, /Which flag\?/, 'flags', 'set');
    assert.deepEqual(rig.keys(''), []);
  });
});

describe('words that are none', () => {
  test('distance: letters left out, put in, replaced, swapped', () => {
    const distances = [['', ''], ['', 'abc'], ['status', 'status'], ['statsu', 'status'], ['stats', 'status'], ['sttaus', 'status'], ['kitten', 'sitting'], ['ca', 'abc']] as const;
    assert.deepEqual(distances.map(([a, b]) => [editDistance(a, b), editDistance(b, a)]), [[0, 0], [3, 3], [0, 0], [1, 1], [1, 1], [1, 1], [3, 3], [3, 3]]);
    assert.deepEqual([nearest('x', ['y']), nearest('xyz', ['abc']), nearest('lss', ['ls', 'df'])], ['y', '', 'ls']);
  });

  test('commands: the right one is suggested', async () => {
    for (const [word, meant] of [['statsu', 'status'], ['rmosd', 'rm-osd'], ['ls-osdd', 'ls-osd'], ['create_pool', 'create-pool'], ['pglist', 'pg-list']] as const)
      await refused(22, new RegExp(`^unknown command: ${word}, did you mean ${meant}\\?\n$`), word);
    await refused(22, /^unknown command: frobnicate\n$/, 'frobnicate');
    await refused(95, /^simple-offsets is not here: use vitastor-disk/, 'simple-offsets');
    assert.equal(((await rig.json(['statsu'])).json as { error_text: string }).error_text, 'unknown command: statsu, did you mean status?');
  });

  test('options: the command\'s own first, then everybody\'s', async () => {
    const warned = async (...words: string[]): Promise<string> => (await rig.run(words)).stderr.split('\n')[0] ?? '';
    assert.equal(await warned('ls', '--revers', '1'), 'warning: option --revers means nothing to ls, did you mean --reverse?');
    assert.equal(await warned('create', '--szie', '1M', 'a'), 'warning: option --szie means nothing to create, did you mean --size?');
    assert.equal(await warned('create-pool', 'p', '--pgsize', '2'), 'warning: option --pgsize means nothing to create-pool, did you mean --pg_size?');
    assert.equal(await warned('create-pool', 'p', '--coutn', '2'), 'warning: option --coutn means nothing to create-pool, did you mean --count?');
    assert.equal(await warned('df', '--etcd-adress', 'x'), 'warning: option --etcd_adress means nothing to df, did you mean --etcd_address?');
    assert.equal(await warned('df', '--frobnicate', 'x'), 'warning: option --frobnicate means nothing to df');
  });

  test('no command is nearer to another one\'s name than to its own', () => {
    for (const { name, aliases } of CATALOG) for (const word of [name, ...aliases]) assert.equal(nearest(word, CATALOG.flatMap((e) => [e.name, ...e.aliases])), word);
  });
});

describe('help', () => {
  test('every example is a line that its command takes: known words, no option that means nothing', async () => {
    rig.stdin = '0x1000000000001:0x20000';
    for (const entry of CATALOG) {
      for (const example of examplesOf(entry)) {
        const line = example.replace(/ {2}#.*$/, '').replace(/^.*\| vitastor-cli /, '').replace(/ > .*$/, '');
        const words = line.split(' ').map((word) => word.replace(/^'(.*)'$/, '$1'));
        assert.equal(findCommand(words[0] ?? ''), entry, example);
        const { exit, stderr } = await rig.run(words);
        assert.doesNotMatch(stderr, /means nothing|unknown|Unexpected/, example);
        assert.notEqual(exit, 70, stderr);
        // On an empty etcd things are missing, and nothing else is wrong.
        assert.ok([0, 2, 5].includes(exit) || /matching OSDs/.test(stderr), `${example}: ${exit} ${stderr}`);
      }
      assert.match(await ok('--help', entry.name), examplesOf(entry).length ? /\nEXAMPLES\n {2}vitastor-cli / : /^vitastor-cli /);
    }
  });

  test('waiting for etcd is not silent', async () => {
    rig.onClient = (client) => client.failNext('unavailable');
    const result = await rig.run(['ls']);
    assert.deepEqual([result.exit, result.stderr], [0, 'etcd gave no answer within 5000 ms; attempt 1 of 5\n']);
  });
});
