// SPDX-License-Identifier: GPL-2.0-or-later
// Every configuration parameter: type, default, limits, who reads it, whether it changes while running. Source:
// configuration 2 to 8.

import type { JsonValue } from '../json.js';

/**
 * size: bytes with k/m/g/t. duration: seconds, written 30d. list: comma list or array. addresses: etcd addresses.
 * word: one of `words`. json: an object.
 */
export type ParameterType =
  'boolean' | 'integer' | 'number' | 'size' | 'duration' | 'string' | 'list' | 'addresses' | 'word' | 'json';

/** Who reads it: O OSD, C every client, M monitor, D disk tool, N NBD, U ublk, Q QEMU. */
export type Reader = 'O' | 'C' | 'M' | 'D' | 'N' | 'U' | 'Q';

export interface Parameter {
  type: ParameterType;
  /** null: no default, the reader decides (automatic, or required). */
  default: JsonValue;
  unit?: 'bytes' | 's' | 'ms' | 'us';
  /** Smaller values become this; 0 means the default where min is above 0. */
  min?: number;
  /** Larger values become this. */
  max?: number;
  words?: readonly string[];
  readers: string;
  /** Takes effect while running when /config/global changes. */
  online?: true;
  /** List B: never taken from etcd. */
  notFromEtcd?: true;
  /** Other spellings that are still accepted, tried in this order. */
  aliases?: readonly string[];
}

const COMMIT = ['all', 'small', 'none'] as const;
const IO = ['direct', 'cached', 'directsync'] as const;
const SECONDS = { type: 'integer', unit: 's' } as const;
const MILLIS = { type: 'integer', unit: 'ms' } as const;
const ON = { online: true } as const;
const LOCAL = { notFromEtcd: true } as const;

const COMMON = {
  config_path: { type: 'string', default: '/etc/vitastor/vitastor.conf', readers: 'OCMDNUQ', ...LOCAL },
  etcd_address: { type: 'addresses', default: null, readers: 'OCMDNUQ', ...ON, aliases: ['etcd_url'] },
  /** PEM files for https addresses: etcd's authority (default: the system's), and our certificate with its key. */
  etcd_ca: { type: 'string', default: null, readers: 'OCM', ...LOCAL },
  etcd_cert: { type: 'string', default: null, readers: 'OCM', ...LOCAL },
  etcd_key: { type: 'string', default: null, readers: 'OCM', ...LOCAL },
  etcd_prefix: { type: 'string', default: '/vitastor', readers: 'OCMDNUQ' },
  log_level: { type: 'integer', default: 0, readers: 'OCM', ...ON },
} as const;

const NETWORK = {
  osd_network: { type: 'list', default: null, readers: 'OCD' },
  osd_cluster_network: { type: 'list', default: null, readers: 'O' },
  use_rdma: { type: 'boolean', default: true, readers: 'OC', ...LOCAL },
  use_rdmacm: { type: 'boolean', default: false, readers: 'OC' },
  disable_tcp: { type: 'boolean', default: false, readers: 'OC' },
  rdma_device: { type: 'string', default: null, readers: 'OC', ...LOCAL },
  rdma_port_num: { type: 'integer', default: null, min: 1, readers: 'OC', ...LOCAL },
  rdma_gid_index: { type: 'integer', default: null, min: 0, readers: 'OC', ...LOCAL },
  rdma_mtu: { type: 'integer', default: null, min: 1024, max: 4096, readers: 'OC', ...LOCAL },
  rdma_max_sge: { type: 'integer', default: 128, min: 1, readers: 'OC', ...LOCAL },
  rdma_max_msg: { type: 'size', default: 132096, unit: 'bytes', min: 1, max: 134217728, readers: 'OC', ...LOCAL },
  rdma_max_recv: { type: 'integer', default: 16, min: 1, readers: 'OC', ...LOCAL },
  rdma_max_send: { type: 'integer', default: 8, min: 1, readers: 'OC', ...LOCAL },
  peer_connect_interval: { ...SECONDS, default: 5, min: 1, readers: 'OC', ...ON },
  peer_connect_timeout: { ...SECONDS, default: 5, min: 1, readers: 'OC', ...ON },
  osd_idle_timeout: { ...SECONDS, default: 5, min: 1, readers: 'OC', ...ON },
  osd_ping_timeout: { ...SECONDS, default: 5, min: 1, readers: 'OC', ...ON },
  max_etcd_attempts: { type: 'integer', default: 5, min: 1, readers: 'OC', ...ON },
  etcd_quick_timeout: { ...MILLIS, default: 1000, min: 1, readers: 'OC', ...ON },
  etcd_slow_timeout: { ...MILLIS, default: 5000, min: 1, readers: 'OC', ...ON },
  /** Default: max(30, 2 × etcd_report_interval). */
  etcd_keepalive_timeout: { ...SECONDS, default: null, min: 1, readers: 'OC', ...ON },
  etcd_ws_keepalive_interval: {
    ...SECONDS,
    default: 5,
    min: 1,
    readers: 'OCM',
    ...ON,
    aliases: ['etcd_ws_keepalive_timeout'],
  },
  etcd_min_reload_interval: { ...MILLIS, default: 50, min: 1, readers: 'OC', ...ON },
  tcp_header_buffer_size: {
    type: 'size',
    default: 65536,
    unit: 'bytes',
    min: 1,
    max: 1073741824,
    readers: 'OC',
    ...LOCAL,
  },
  /** Negative disables. */
  min_zerocopy_send_size: { type: 'integer', default: 32768, unit: 'bytes', readers: 'OC', ...LOCAL },
  use_sync_send_recv: { type: 'boolean', default: false, readers: 'C', ...LOCAL },
} as const;

const LAYOUT = {
  block_size: { type: 'size', default: 131072, unit: 'bytes', min: 4096, max: 134217728, readers: 'OCMD' },
  bitmap_granularity: { type: 'size', default: 4096, unit: 'bytes', min: 512, readers: 'OCMD' },
  /** Default for the cluster: all. An OSD without the option behaves as 'none'. */
  immediate_commit: { type: 'word', default: 'all', words: COMMIT, readers: 'OCMD' },
} as const;

const DISK = {
  meta_format: { type: 'integer', default: 2, min: 1, max: 3, readers: 'OD' },
  data_device: { type: 'string', default: null, readers: 'OD' },
  meta_device: { type: 'string', default: null, readers: 'OD' },
  journal_device: { type: 'string', default: null, readers: 'OD' },
  data_offset: { type: 'size', default: 0, unit: 'bytes', readers: 'OD' },
  meta_offset: { type: 'size', default: 0, unit: 'bytes', readers: 'OD' },
  journal_offset: { type: 'size', default: 0, unit: 'bytes', readers: 'OD' },
  data_size: { type: 'size', default: null, unit: 'bytes', readers: 'OD' },
  journal_size: { type: 'size', default: null, unit: 'bytes', readers: 'OD' },
  /** An addition: several OSDs may share a metadata device. */
  meta_size: { type: 'size', default: null, unit: 'bytes', readers: 'OD' },
  meta_block_size: { type: 'size', default: 4096, unit: 'bytes', min: 512, readers: 'OD' },
  journal_block_size: { type: 'size', default: 4096, unit: 'bytes', min: 512, readers: 'OD' },
  disk_alignment: { type: 'size', default: 4096, unit: 'bytes', min: 512, readers: 'OD' },
  disable_data_fsync: { type: 'boolean', default: false, readers: 'OD' },
  disable_meta_fsync: { type: 'boolean', default: null, readers: 'OD' },
  disable_journal_fsync: { type: 'boolean', default: null, readers: 'OD' },
  disable_device_lock: { type: 'boolean', default: false, readers: 'OD' },
  data_csum_type: { type: 'word', default: 'none', words: ['none', 'crc32c'], readers: 'OD' },
  csum_block_size: { type: 'size', default: null, unit: 'bytes', readers: 'OD' },
  osd_num: { type: 'integer', default: null, min: 1, readers: 'OD' },
  /** Additions: see osd/src/fresh-disk.ts. */
  allow_old_disk: { type: 'boolean', default: false, readers: 'OD' },
  allow_fresh_disk: { type: 'boolean', default: false, readers: 'OD' },
} as const;

const OSD = {
  bind_address: { type: 'list', default: null, readers: 'O' },
  bind_port: { type: 'integer', default: 0, min: 0, max: 65535, readers: 'O' },
  osd_iothread_count: { type: 'integer', default: 0, min: 0, readers: 'O' },
  etcd_report_interval: { ...SECONDS, default: 5, min: 1, readers: 'OC' },
  etcd_stats_interval: { ...SECONDS, default: 30, min: 1, readers: 'O' },
  run_primary: { type: 'boolean', default: true, readers: 'O' },
  disable_blockstore: { type: 'boolean', default: false, readers: 'O' },
  autosync_interval: { ...SECONDS, default: 5, min: 0, max: 3600, readers: 'O', ...ON },
  autosync_writes: { type: 'integer', default: 128, min: 0, readers: 'O', ...ON },
  recovery_queue_depth: { type: 'integer', default: 1, min: 1, max: 2048, readers: 'O', ...ON },
  recovery_sleep_us: { type: 'integer', unit: 'us', default: 0, min: 0, readers: 'O', ...ON },
  recovery_pg_switch: { type: 'integer', default: 128, min: 1, readers: 'O', ...ON },
  recovery_sync_batch: { type: 'integer', default: 16, min: 1, max: 2048, readers: 'O', ...ON },
  recovery_tune_interval: { ...SECONDS, default: 1, min: 0, readers: 'O', ...ON },
  recovery_tune_util_low: { type: 'number', default: 0.1, min: 0.01, readers: 'O', ...ON },
  recovery_tune_util_high: { type: 'number', default: 1, min: 0.01, readers: 'O', ...ON },
  recovery_tune_client_util_low: { type: 'number', default: 0, min: 0, readers: 'O', ...ON },
  recovery_tune_client_util_high: { type: 'number', default: 0.5, min: 0.01, readers: 'O', ...ON },
  recovery_tune_agg_interval: { type: 'integer', default: 10, min: 1, readers: 'O', ...ON },
  recovery_tune_sleep_min_us: { type: 'integer', unit: 'us', default: 10, min: 1, readers: 'O', ...ON },
  recovery_tune_sleep_cutoff_us: { type: 'integer', unit: 'us', default: 10000000, min: 1, readers: 'O', ...ON },
  readonly: { type: 'boolean', default: false, readers: 'O' },
  no_recovery: { type: 'boolean', default: false, readers: 'OC', ...ON },
  no_rebalance: { type: 'boolean', default: false, readers: 'OC', ...ON },
  print_stats_interval: { ...SECONDS, default: 3, min: 1, readers: 'O', ...ON },
  slow_log_interval: { ...SECONDS, default: 10, min: 1, readers: 'O', ...ON },
  inode_vanish_time: { ...SECONDS, default: 60, min: 1, readers: 'O', ...ON },
  max_write_iodepth: { type: 'integer', default: 128, min: 1, readers: 'O', ...ON },
  max_tombstones: { type: 'integer', default: 1048576, min: 1, readers: 'O' },
  min_flusher_count: { type: 'integer', default: 1, min: 1, readers: 'O', ...ON },
  max_flusher_count: { type: 'integer', default: 256, min: 1, readers: 'O', ...ON, aliases: ['flusher_count'] },
  inmemory_metadata: { type: 'boolean', default: true, readers: 'O' },
  checksum_cache_size: { type: 'size', default: 67108864, unit: 'bytes', min: 1048576, readers: 'O' },
  inmemory_journal: { type: 'boolean', default: true, readers: 'O' },
  data_io: { type: 'word', default: 'direct', words: IO, readers: 'O' },
  meta_io: { type: 'word', default: null, words: IO, readers: 'O' },
  journal_io: { type: 'word', default: null, words: IO, readers: 'O' },
  cached_io_data: { type: 'boolean', default: false, readers: 'O' },
  cached_io_meta: { type: 'boolean', default: false, readers: 'O' },
  cached_io_journal: { type: 'boolean', default: false, readers: 'O' },
  journal_sector_buffer_count: { type: 'integer', default: 32, min: 1, readers: 'O' },
  journal_no_same_sector_overwrites: { type: 'boolean', default: false, readers: 'O' },
  skip_corrupted_meta_entries: { type: 'boolean', default: false, readers: 'O' },
  throttle_small_writes: { type: 'boolean', default: false, readers: 'O', ...ON },
  throttle_target_iops: { type: 'integer', default: 100, min: 1, readers: 'O', ...ON },
  throttle_target_mbs: { type: 'integer', default: 100, min: 1, readers: 'O', ...ON },
  throttle_target_parallelism: { type: 'integer', default: 1, min: 1, readers: 'O', ...ON },
  throttle_threshold_us: { type: 'integer', unit: 'us', default: 50, min: 1, readers: 'O', ...ON },
  osd_memlock: { type: 'boolean', default: false, readers: 'O' },
  auto_scrub: { type: 'boolean', default: false, readers: 'O', ...ON },
  no_scrub: { type: 'boolean', default: false, readers: 'OC', ...ON },
  scrub_interval: { type: 'duration', unit: 's', default: '30d', min: 1, readers: 'O', ...ON },
  scrub_queue_depth: { type: 'integer', default: 1, min: 1, readers: 'O', ...ON },
  scrub_sleep: { ...MILLIS, default: 0, min: 0, readers: 'O', ...ON },
  scrub_list_limit: { type: 'integer', default: 262144, min: 1, readers: 'O', ...ON },
  scrub_find_best: { type: 'boolean', default: true, readers: 'O', ...ON },
  scrub_ec_max_bruteforce: { type: 'integer', default: 100, min: 1, readers: 'O', ...ON },
  /** An addition. Default: on block devices. */
  discard_freed: { type: 'boolean', default: null, readers: 'O' },
  discard_on_start: { type: 'boolean', default: false, readers: 'O' },
  min_discard_size: { type: 'size', default: 1048576, unit: 'bytes', min: 1, readers: 'O' },
  discard_granularity: { type: 'size', default: null, unit: 'bytes', readers: 'O' },
  allow_net_split: { type: 'boolean', default: false, readers: 'O', ...ON },
  ec_short_writes: { type: 'boolean', default: true, readers: 'O', ...ON },
  ec_early_reply: { type: 'boolean', default: true, readers: 'O', ...ON },
  /** Absent: only pools with local reads. */
  enable_pg_locks: { type: 'boolean', default: null, readers: 'O', ...ON },
  pg_lock_retry_interval_ms: {
    ...MILLIS,
    default: 100,
    min: 1,
    readers: 'O',
    ...ON,
    aliases: ['pg_lock_retry_interval'],
  },
  atomic_write_size: { type: 'size', default: 4096, unit: 'bytes', readers: 'O' },
  use_atomic_flag: { type: 'boolean', default: false, readers: 'O' },
  pg_reshard_chunk_size: { type: 'integer', default: 100000, min: 1, readers: 'O', ...ON },
  pg_reshard_chunk_pause_ms: { ...MILLIS, default: 100, min: 0, readers: 'O', ...ON },
  client_queue_depth: { type: 'integer', default: 128, min: 1, readers: 'O' },
  meta_buf_size: { type: 'size', default: 4194304, unit: 'bytes', min: 4096, readers: 'O' },
  flusher_start_threshold: { type: 'integer', default: 32, min: 1, readers: 'O' },
  journal_trim_interval: { type: 'integer', default: 4096, min: 1, readers: 'O' },
  meta_write_recheck_parallelism: { type: 'integer', default: 16, min: 1, readers: 'O' },
  perfect_csum_update: { type: 'boolean', default: false, readers: 'O' },
  flush_journal: { type: 'boolean', default: false, readers: 'O' },
} as const;

const MONITOR = {
  use_antietcd: { type: 'boolean', default: false, readers: 'M' },
  antietcd_port: { type: 'integer', default: 2379, min: 1, max: 65535, readers: 'M' },
  antietcd_ip: { type: 'string', default: null, readers: 'M' },
  antietcd_data_file: { type: 'string', default: null, readers: 'M' },
  antietcd_data_dir: { type: 'string', default: '/var/lib/vitastor', readers: 'M' },
  enable_prometheus: { type: 'boolean', default: true, readers: 'M' },
  prometheus_path: { type: 'string', default: '/metrics', readers: 'M' },
  mon_http_port: { type: 'integer', default: 8060, min: 1, max: 65535, readers: 'M' },
  mon_http_ip: { type: 'string', default: null, readers: 'M' },
  mon_https_cert: { type: 'string', default: null, readers: 'M' },
  mon_https_key: { type: 'string', default: null, readers: 'M' },
  mon_https_ca: { type: 'string', default: null, readers: 'M' },
  mon_https_client_auth: { type: 'boolean', default: false, readers: 'M' },
  etcd_mon_ttl: { ...SECONDS, default: 5, min: 1, readers: 'M', ...ON },
  etcd_mon_timeout: { ...MILLIS, default: 1000, min: 1, readers: 'M', ...ON },
  etcd_mon_retries: { type: 'integer', default: 5, min: 1, readers: 'M', ...ON },
  etcd_start_timeout: { ...SECONDS, default: 5, min: 1, readers: 'M' },
  mon_change_timeout: { ...MILLIS, default: 1000, min: 100, readers: 'MC', ...ON },
  mon_retry_change_timeout: { ...MILLIS, default: 50, min: 50, readers: 'M', ...ON },
  mon_stats_timeout: { ...MILLIS, default: 1000, min: 100, readers: 'M', ...ON },
  osd_out_time: { ...SECONDS, default: 600, min: 1, readers: 'MC', ...ON },
  placement_levels: { type: 'json', default: { host: 100, osd: 101 }, readers: 'MC', ...ON },
  use_old_pg_combinator: { type: 'boolean', default: false, readers: 'M', ...ON },
  osd_backfillfull_ratio: { type: 'number', default: 0.99, min: 0, readers: 'M', ...ON },
  verbose: { type: 'integer', default: 0, min: 0, readers: 'M' },
} as const;

const CLIENT = {
  client_iothread_count: { type: 'integer', default: 0, min: 0, readers: 'C' },
  client_retry_interval: { ...MILLIS, default: 50, min: 10, readers: 'C', ...ON, aliases: ['up_wait_retry_interval'] },
  /** 0: report EIO at once. */
  client_eio_retry_interval: { ...MILLIS, default: 1000, min: 0, readers: 'C', ...ON },
  client_retry_enospc: { type: 'boolean', default: true, readers: 'C', ...ON },
  client_wait_up_timeout: { ...SECONDS, default: 16, min: 1, readers: 'C', ...ON },
  client_max_dirty_bytes: {
    type: 'size',
    default: 33554432,
    unit: 'bytes',
    min: 1,
    readers: 'C',
    ...ON,
    aliases: ['client_dirty_limit'],
  },
  client_max_dirty_ops: { type: 'integer', default: 1024, min: 1, readers: 'C', ...ON },
  client_enable_writeback: { type: 'boolean', default: false, readers: 'C', ...ON },
  client_writeback_allowed: { type: 'boolean', default: null, readers: 'C' },
  client_max_buffered_bytes: { type: 'size', default: 33554432, unit: 'bytes', min: 1, readers: 'C', ...ON },
  client_max_buffered_ops: { type: 'integer', default: 1024, min: 1, readers: 'C', ...ON },
  client_readahead_bytes: { type: 'size', default: 0, unit: 'bytes', min: 0, readers: 'C', ...ON },
  client_max_writeback_iodepth: { type: 'integer', default: 256, min: 1, readers: 'C', ...ON },
  client_infinite_start: { type: 'boolean', default: true, readers: 'C' },
  hostname: { type: 'string', default: null, readers: 'C', ...ON },
  osd_nearfull_ratio: { type: 'number', default: 0.95, min: 0, readers: 'C', ...ON },
  nbd_timeout: { ...SECONDS, default: 0, min: 0, readers: 'N' },
  nbd_max_devices: { type: 'integer', default: 64, min: 1, readers: 'N' },
  nbd_max_part: { type: 'integer', default: 3, min: 0, readers: 'N' },
  ublk_queue_depth: { type: 'integer', default: 256, min: 1, readers: 'U' },
  ublk_max_io_size: { type: 'size', default: null, unit: 'bytes', readers: 'U' },
  qemu_file_mirror_path: { type: 'string', default: null, readers: 'Q' },
} as const;

export const PARAMETERS = {
  ...COMMON,
  ...NETWORK,
  ...LAYOUT,
  ...DISK,
  ...OSD,
  ...MONITOR,
  ...CLIENT,
} as const satisfies Record<string, Parameter>;

export type ParameterName = keyof typeof PARAMETERS;

export function isParameter(name: string): name is ParameterName {
  return Object.hasOwn(PARAMETERS, name);
}

export function parameter(name: ParameterName): Parameter {
  return PARAMETERS[name];
}

export function parameterNames(): ParameterName[] {
  return Object.keys(PARAMETERS).filter(isParameter);
}
