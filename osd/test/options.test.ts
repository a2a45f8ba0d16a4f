// SPDX-License-Identifier: GPL-2.0-or-later
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { Config } from '@vitastor/core';
import { chooseListen, publishedAddresses } from '../src/networks.js';
import { DISK_OPTIONS, replacedParameters, RUNTIME_OPTIONS } from '../src/option-table.js';
import { osdOptions } from '../src/options.js';

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

// The names of configuration.md 5 and 6, in its order.
const SPEC_DISK = [
  'meta_format', 'data_device', 'meta_device', 'journal_device', 'data_offset', 'meta_offset', 'journal_offset', 'data_size',
  'journal_size', 'meta_block_size', 'journal_block_size', 'disk_alignment', 'disable_data_fsync', 'disable_meta_fsync',
  'disable_journal_fsync', 'disable_device_lock', 'data_csum_type', 'csum_block_size', 'osd_num',
];
const SPEC_RUNTIME = [
  'bind_address', 'bind_port', 'osd_iothread_count', 'etcd_report_interval', 'etcd_stats_interval', 'run_primary', 'disable_blockstore',
  'autosync_interval', 'autosync_writes', 'recovery_queue_depth', 'recovery_sleep_us', 'recovery_pg_switch', 'recovery_sync_batch',
  'recovery_tune_interval', 'recovery_tune_util_low', 'recovery_tune_util_high', 'recovery_tune_client_util_low',
  'recovery_tune_client_util_high', 'recovery_tune_agg_interval', 'recovery_tune_sleep_min_us', 'recovery_tune_sleep_cutoff_us',
  'readonly', 'no_recovery', 'no_rebalance', 'print_stats_interval', 'slow_log_interval', 'inode_vanish_time', 'max_write_iodepth',
  'min_flusher_count', 'max_flusher_count', 'inmemory_metadata', 'inmemory_journal', 'data_io', 'meta_io', 'journal_io', 'cached_io_data',
  'cached_io_meta', 'cached_io_journal', 'journal_sector_buffer_count', 'journal_no_same_sector_overwrites', 'skip_corrupted_meta_entries',
  'throttle_small_writes', 'throttle_target_iops', 'throttle_target_mbs', 'throttle_target_parallelism', 'throttle_threshold_us',
  'osd_memlock', 'auto_scrub', 'no_scrub', 'scrub_interval', 'scrub_queue_depth', 'scrub_sleep', 'scrub_list_limit', 'scrub_find_best',
  'scrub_ec_max_bruteforce', 'discard_on_start', 'min_discard_size', 'discard_granularity', 'allow_net_split', 'enable_pg_locks',
  'pg_lock_retry_interval_ms', 'atomic_write_size', 'use_atomic_flag', 'pg_reshard_chunk_size', 'pg_reshard_chunk_pause_ms',
  'client_queue_depth', 'meta_buf_size', 'flusher_start_threshold', 'journal_trim_interval', 'meta_write_recheck_parallelism',
  'perfect_csum_update',
];
/** Ours. */
const ADDITIONS = ['ec_early_reply', 'ec_short_writes', 'meta_size', 'discard_freed', 'max_tombstones', 'checksum_cache_size', 'allow_fresh_disk', 'allow_old_disk'];
const ALL = { ...DISK_OPTIONS, ...RUNTIME_OPTIONS };
const SAMPLES: Readonly<Record<string, string>> = {
  data_io: 'cached', meta_io: 'directsync', journal_io: 'direct', data_csum_type: 'crc32c', bind_address: '127.0.0.1', data_device: '/dev/x', meta_device: '/dev/y',
  journal_device: '/dev/z', scrub_interval: '30d', immediate_commit: 'all',
};

test('every OSD option of the specification is in the table, and nothing else', () => {
  assert.deepEqual(Object.keys(DISK_OPTIONS).filter((name) => !ADDITIONS.includes(name)).sort(), [...SPEC_DISK].sort());
  assert.deepEqual(Object.keys(RUNTIME_OPTIONS).filter((name) => !ADDITIONS.includes(name)).sort(), [...SPEC_RUNTIME].sort());
});

test('every one is accepted from the command line, the file and etcd; one without effect is named exactly once', () => {
  for (const [name, use] of Object.entries(ALL)) {
    const value = SAMPLES[name] ?? '1';
    const text = name === 'osd_num' || name === 'data_device' ? {} : { [name]: value };
    for (const config of [
      new Config({ commandLine: { osd_num: '1', data_device: '/dev/x', ...text } }),
      new Config({ commandLine: { osd_num: '1', data_device: '/dev/x' }, file: text }),
      new Config({ commandLine: { osd_num: '1', data_device: '/dev/x' }, etcd: text }),
    ]) {
      assert.ok(osdOptions(config, ENVIRONMENT), name);
      assert.deepEqual(config.problems(), [], name);
      const named = replacedParameters(config).filter((line) => line.startsWith(`${name} `));
      if (use.instead !== undefined) assert.equal(named.length, 1, name);
      assert.ok(named.length <= 1, name);
    }
  }
});

test('the manual lists every option with the words of the table', async () => {
  const manual = await readFile(new URL('../../../docs/osd-options.md', import.meta.url), 'utf8');
  for (const [name, use] of Object.entries(ALL)) {
    const line = use.works !== undefined ? `| \`${name}\` | ${use.works} |` : `| \`${name}\` | no effect: ${use.instead} |`;
    assert.ok(manual.includes(line), `docs/osd-options.md lacks: ${line}`);
  }
});

test('journal_device without meta_device holds the metadata log; with it, or on the data device, it is named', () => {
  const store = osd({ journal_device: '/dev/ssd', journal_offset: '8192', journal_size: '1g', disable_journal_fsync: '1', journal_io: 'directsync' }).configure.store;
  assert.deepEqual([store.metaDevice, store.metaOffset, store.metaSize, store.disableMetaFsync, store.metaIo], ['/dev/ssd', 8192n, 1073741824n, true, 'direct_sync']);
  const both = { osd_num: '1', data_device: '/dev/x', meta_device: '/dev/meta', meta_offset: '4096', journal_device: '/dev/ssd', journal_offset: '8192', disable_journal_fsync: '1' };
  const meta = osdOptions(new Config({ commandLine: both }), ENVIRONMENT).configure.store;
  assert.deepEqual([meta.metaDevice, meta.metaOffset, meta.disableMetaFsync], ['/dev/meta', 4096n, false]);
  assert.deepEqual(replacedParameters(new Config({ commandLine: both })).map((line) => line.split(' ')[0]).sort(), ['disable_journal_fsync', 'journal_device', 'journal_offset']);
  assert.equal(osd({ journal_device: '/dev/x', meta_device: '/dev/x', meta_offset: '4096' }).configure.store.metaDevice, '');
  assert.match(replacedParameters(new Config({ commandLine: { data_device: '/dev/x', meta_offset: '4096' } })).join(), /meta_offset .*start of the data area/);
});

test('ways of I/O, discard, checksums, atomic writes', () => {
  const io = (text: Record<string, string>): string[] => {
    const { dataIo, metaIo } = osd(text).configure.store;
    return [dataIo, metaIo];
  };
  assert.deepEqual(io({}), ['direct', 'direct']);
  assert.deepEqual(io({ data_io: 'directsync' }), ['direct_sync', 'direct_sync']);
  assert.deepEqual(io({ data_io: 'cached', meta_device: '/dev/y' }), ['cached', 'direct']);
  assert.deepEqual(io({ cached_io_data: '1', cached_io_meta: '1', meta_device: '/dev/y' }), ['cached', 'cached']);
  const store = osd({ discard_freed: '0', discard_on_start: '1', min_discard_size: '4m', discard_granularity: '64k', atomic_write_size: '16k', data_csum_type: 'none' }).configure.store;
  assert.deepEqual([store.discardFreed, store.discardOnStart, store.minDiscardSize, store.discardGranularity, store.atomicWriteSize, store.checksums], ['off', true, 4194304n, 65536, 16384, false]);
  assert.equal(osd({}).configure.store.discardFreed, 'automatic');
  assert.deepEqual([osd({}).configure.store.maxTombstones, osd({ max_tombstones: '5' }).configure.store.maxTombstones], [1048576n, 5n]);
  const sums = (text: Record<string, string>): unknown[] => {
    const { checksumsInMemory, checksumCacheSize } = osd(text).configure.store;
    return [checksumsInMemory, checksumCacheSize];
  };
  assert.deepEqual(sums({}), [true, 67108864n]);
  assert.deepEqual(sums({ inmemory_metadata: '0', checksum_cache_size: '16m' }), [false, 16777216n]);
  assert.equal(osd({ discard_freed: 'yes' }).configure.store.discardFreed, 'on');
  assert.equal(osd({ skip_corrupted_meta_entries: 'true' }).configure.store.skipDamagedMetadata, true);
  const csum = (size: string): number => replacedParameters(new Config({ commandLine: { data_device: '/dev/x', csum_block_size: size } })).length;
  assert.deepEqual([csum('4096'), csum('32768')], [0, 1]);
});
