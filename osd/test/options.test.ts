// SPDX-License-Identifier: GPL-2.0-or-later
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Config } from '@vitastor/core';
import { chooseListen, publishedAddresses } from '../src/networks.js';
import { osdOptions, replacedParameters } from '../src/options.js';

const ENVIRONMENT = { hostname: 'here', localAddresses: [{ address: '127.0.0.1', loopback: true }, { address: '10.10.0.1', loopback: false }, { address: 'fd00::1', loopback: false }] };
const osd = (commandLine: Record<string, string>, file = {}): ReturnType<typeof osdOptions> =>
  osdOptions(new Config({ commandLine: { osd_num: '1', data_device: '/dev/x', ...commandLine }, file }), ENVIRONMENT);

test('misuse first: what is required and what cannot be is named', () => {
  assert.throws(() => osdOptions(new Config({ commandLine: { data_device: '/dev/x' } }), ENVIRONMENT), /osd_num is required/);
  assert.throws(() => osdOptions(new Config({ commandLine: { osd_num: '1' } }), ENVIRONMENT), /data_device is required/);
  assert.throws(() => osd({ block_size: '8192' }), /block_size 8192 .* bitmap_granularity 4096/);
  assert.throws(() => osd({ bind_address: 'nowhere' }), /bind_address "nowhere"/);
  assert.throws(() => osd({ osd_network: '192.0.2.0/24' }), /no address of this machine .*192\.0\.2\.0\/24/);
  assert.throws(() => osd({ osd_network: '10.10.0.0/99' }), /not a network/);
});

test('an OSD that was told nothing promises nothing; its metadata inherits the fsync setting of the data', () => {
  assert.equal(osd({}).identity.immediateCommit, 'none');
  assert.equal(osd({}, { immediate_commit: 'all' }).identity.immediateCommit, 'all');
  assert.equal(osd({ disable_data_fsync: '1' }).configure.store.disableMetaFsync, true);
  assert.equal(osd({ disable_data_fsync: '1', meta_device: '/dev/y' }).configure.store.disableMetaFsync, false);
  assert.equal(osd({ meta_device: '/dev/x' }).configure.store.metaDevice, '');
});

test('the lease: short by default, the formula of 3.0.8 when one of its parameters is set', () => {
  assert.deepEqual(osd({}).lease, { ttlSeconds: 5, keepaliveMs: 1000, timeoutMs: 1000 });
  assert.deepEqual(osd({ etcd_report_interval: '5' }).lease, { ttlSeconds: 15, keepaliveMs: 5000, timeoutMs: 1000 });
  assert.deepEqual(osd({ etcd_report_interval: '2', max_etcd_attempts: '1' }).lease, { ttlSeconds: 4, keepaliveMs: 2000, timeoutMs: 1000 });
});

test('the reference flags of the manual are accepted, and each one without meaning is named once', () => {
  const flags = {
    osd_num: '1', data_device: '/dev/x', disable_data_fsync: 'true', immediate_commit: 'all', flusher_count: '8', disk_alignment: '4096', journal_block_size: '4096',
    meta_block_size: '4096', journal_no_same_sector_overwrites: 'true', journal_sector_buffer_count: '1024', journal_size: '16777216',
  };
  const config = new Config({ commandLine: flags });
  assert.equal(osdOptions(config, ENVIRONMENT).configure.store.immediateCommit, 'all');
  const named = replacedParameters(config).map((line) => line.split(' ')[0]);
  assert.deepEqual(named.sort(), [
    'disk_alignment', 'journal_block_size', 'journal_no_same_sector_overwrites', 'journal_sector_buffer_count', 'journal_size', 'max_flusher_count', 'meta_block_size',
  ]);
});

test('listening: bind_address, else inside osd_network, else everywhere; a wildcard is published as real addresses', () => {
  const { localAddresses: local } = ENVIRONMENT;
  assert.deepEqual(chooseListen({ bind: ['::1'], networks: ['10.0.0.0/8'], local }), ['::1']);
  assert.deepEqual(chooseListen({ bind: [], networks: ['10.0.0.0/8', 'fd00::/8'], local }), ['10.10.0.1', 'fd00::1']);
  assert.deepEqual(chooseListen({ bind: [], networks: [], local }), ['0.0.0.0']);
  assert.deepEqual(publishedAddresses(['0.0.0.0'], local), ['10.10.0.1']);
  assert.deepEqual(publishedAddresses(['::'], local), ['fd00::1']);
  assert.deepEqual(publishedAddresses(['0.0.0.0'], local.slice(0, 1)), ['127.0.0.1']);
  assert.deepEqual(publishedAddresses(['10.10.0.1'], local), ['10.10.0.1']);
});
