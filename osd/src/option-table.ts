// SPDX-License-Identifier: GPL-2.0-or-later
// Every option of an OSD (configuration.md 5 and 6): what it does here, or what does its work instead. The only such list:
// the log at start and the manual (docs/osd-options.md, checked by a test) follow it.

import type { Config, ParameterName } from '@vitastor/core';

/** works: what the option does. instead: the option is accepted and has no effect, because … */
export type OptionUse = { works: string; instead?: undefined } | { works?: undefined; instead: string };

const works = (text: string): OptionUse => ({ works: text });
const instead = (text: string): OptionUse => ({ instead: text });

const NO_JOURNAL = 'there is no journal: small writes need no second copy';

/** configuration.md 5. */
export const DISK_OPTIONS = {
  meta_format: instead('the store has one format of its own'),
  data_device: works('file or block device with the data; required'),
  meta_device: works('metadata log on another, faster device; default: at the start of the data area'),
  journal_device: works('without meta_device: the metadata log lies there (it takes over the work of metadata and journal)'),
  data_offset: works('start of the data area, bytes, a multiple of 4096'),
  meta_offset: works('start of the metadata area on meta_device'),
  journal_offset: works('start of the metadata area on journal_device, where that holds the metadata log'),
  data_size: works('length of the data area; default: to the end of the device'),
  meta_size: works('length of the metadata area on meta_device; default: to the end (an addition)'),
  journal_size: works('length of the metadata area on journal_device, where that holds the metadata log'),
  meta_block_size: instead('the metadata log is written in pages of 4 KB'),
  journal_block_size: instead('the metadata log is written in pages of 4 KB'),
  disk_alignment: instead('data is aligned to bitmap_granularity, metadata to 4 KB'),
  disable_data_fsync: works('no flushes of the data device; the log warns where it has a volatile cache'),
  disable_meta_fsync: works('no flushes of the metadata device; default: as disable_data_fsync if they are one device'),
  disable_journal_fsync: works('as disable_meta_fsync, where journal_device holds the metadata log'),
  disable_device_lock: works('lock the OSD\'s area of the device instead of the device, for several OSDs on one'),
  data_csum_type: works('crc32c (the default) or none: checksum of every bitmap_granularity of data; fixed when the store is made'),
  csum_block_size: instead('checksums are kept for each bitmap_granularity'),
  osd_num: works('number of this OSD; required'),
  allow_old_disk: works('a store that is older than what this OSD has reported takes part; only if the data is whole without what it has lost'),
  allow_fresh_disk: works('an empty disk takes over a number that PGs still count on; only if they are whole without the old disk'),
} as const satisfies Partial<Record<ParameterName, OptionUse>>;

/** configuration.md 6. */
export const RUNTIME_OPTIONS = {
  bind_address: works('addresses to listen on; default: those inside osd_network, else all'),
  bind_port: works('port to listen on; default: any free one'),
  osd_iothread_count: instead('one engine thread serves all connections'),
  etcd_report_interval: works('seconds between refreshes of the lease; setting it brings back the lease times of 3.0.8'),
  etcd_stats_interval: works('seconds between reports of statistics to etcd'),
  run_primary: instead('an OSD leads the PGs that it is given; noout and reweight keep it from them'),
  disable_blockstore: instead('every OSD has a store'),
  autosync_interval: works('seconds after which writes are flushed without immediate_commit'),
  autosync_writes: works('number of writes after which they are flushed without immediate_commit'),
  recovery_queue_depth: works('objects that an OSD recovers at once'),
  recovery_sleep_us: works('least pause after each recovered object, whatever recovery_tune_* says'),
  recovery_pg_switch: works('objects that are recovered of one PG before the next one has its turn'),
  recovery_sync_batch: works('recovered objects after which they are flushed without immediate_commit'),
  recovery_tune_interval: works('seconds between looks at the load of clients, from which the pace of recovery follows; 0 = off'),
  recovery_tune_util_low: works('load that recovery may have while clients have a high one (operations at work on average)'),
  recovery_tune_util_high: works('load that recovery may have while clients have a low one'),
  recovery_tune_client_util_low: works('load of clients up to which it counts as low'),
  recovery_tune_client_util_high: works('load of clients from which on it counts as high'),
  recovery_tune_agg_interval: works('looks at the load that are averaged'),
  recovery_tune_sleep_min_us: works('shorter pauses between recovered objects are left out'),
  recovery_tune_sleep_cutoff_us: works('longer pauses are not believed: the last one stays'),
  readonly: works('open the store for reading only; no byte of it changes'),
  no_recovery: works('do not recover degraded objects'),
  no_rebalance: works('do not move misplaced objects'),
  print_stats_interval: instead('statistics are in etcd, see vitastor-cli status and ls-osd'),
  slow_log_interval: works('seconds after which an operation counts as slow and is reported'),
  inode_vanish_time: works('seconds for which statistics of an empty inode are kept'),
  max_write_iodepth: works('modifications that the store works on at once, at most 256'),
  max_tombstones: works('deleted objects that the store remembers while copies of them may come back; default 1048576, 56 bytes of memory each (an addition)'),
  min_flusher_count: instead('nothing is flushed from a journal'),
  max_flusher_count: instead('nothing is flushed from a journal'),
  inmemory_metadata: works('0 keeps checksums out of memory: they are read from the metadata log when they are needed'),
  checksum_cache_size: works('with inmemory_metadata 0, memory for checksums that were used or changed lately (an addition)'),
  inmemory_journal: instead(NO_JOURNAL),
  data_io: works('direct, cached or directsync access to the data device'),
  meta_io: works('the same for the metadata device; default: as data_io if they are one device'),
  journal_io: works('the same, where journal_device holds the metadata log'),
  cached_io_data: works('older spelling of data_io = cached'),
  cached_io_meta: works('older spelling of meta_io = cached'),
  cached_io_journal: works('older spelling of journal_io = cached'),
  journal_sector_buffer_count: instead('the metadata log needs no fixed number of buffers'),
  journal_no_same_sector_overwrites: instead('the metadata log never writes a sector twice in a row'),
  skip_corrupted_meta_entries: works('start although metadata is damaged, without the objects that the damage touches; they are listed in the log'),
  throttle_small_writes: works('hold small writes back while the data device, behind a faster metadata device, falls behind'),
  throttle_target_iops: works('random writes a second that the data device absorbs'),
  throttle_target_mbs: works('MiB a second that it absorbs'),
  throttle_target_parallelism: works('writes that it works on at once'),
  throttle_threshold_us: works('shorter delays are left out'),
  osd_memlock: works('keep the process out of swap (mlockall)'),
  auto_scrub: works('read and compare all copies of every object, each PG once in scrub_interval'),
  no_scrub: works('suspend scrubs; what was not looked at is looked at later'),
  scrub_interval: works('time between two scrubs of a PG (such as 30d); the pool\'s own scrub_interval is stronger'),
  scrub_queue_depth: works('objects that an OSD scrubs at once, at most 64'),
  scrub_sleep: works('milliseconds between the starts of two objects'),
  scrub_list_limit: works('objects of a PG that are listed at once for a scrub (24 bytes of memory each)'),
  scrub_find_best: works('copies that differ: the most frequent content is right; off: all stay inconsistent until vitastor-cli fix'),
  scrub_ec_max_bruteforce: works('sets of chunks that a scrub of an erasure-coded object tries in order to find the wrong chunks'),
  discard_freed: works('discard blocks soon after they became free; default: on block devices, not in files (an addition)'),
  discard_on_start: works('discard everything that is free after the start, in the background'),
  min_discard_size: works('smallest piece to discard; a piece is discarded when all its blocks are free'),
  discard_granularity: works('pieces are multiples of it'),
  ec_short_writes: works('small writes to erasure-coded pools read nothing across the network that the primary knows or the holders of the parity can add (an addition)'),
  ec_early_reply: works('writes to erasure-coded pools are answered as soon as all chunks are durable, before they are marked stable (an addition)'),
  allow_net_split: works('activate PGs although some OSDs that are alive cannot be reached'),
  enable_pg_locks: works('lock PGs on their secondaries; default: for pools with local reads'),
  pg_lock_retry_interval_ms: works('pause before a lock that was refused is asked for again'),
  atomic_write_size: works('largest write that the data device does whole or not at all'),
  use_atomic_flag: instead('atomic_write_size is believed; the kernel is not asked'),
  pg_reshard_chunk_size: instead('the index is regrouped in short slices'),
  pg_reshard_chunk_pause_ms: instead('the index is regrouped in short slices'),
  client_queue_depth: instead('nothing reads it in 3.0.8 either'),
  meta_buf_size: instead('the metadata log needs no buffer of that kind'),
  flusher_start_threshold: instead('nothing is flushed from a journal'),
  journal_trim_interval: instead(NO_JOURNAL),
  meta_write_recheck_parallelism: instead('announced writes are looked at one after the other at start; there are few'),
  perfect_csum_update: instead('checksums are always exact'),
} as const satisfies Partial<Record<ParameterName, OptionUse>>;

/** Of other sections, for the log alone. */
const OTHERS: Partial<Record<ParameterName, OptionUse>> = {
  flush_journal: instead(NO_JOURNAL),
  use_rdma: instead('connections are plain TCP'),
  use_rdmacm: instead('connections are plain TCP'),
};

/** true: journal_device is where the metadata log lies. */
export function journalHoldsMetadata(config: Config): boolean {
  const data = config.string('data_device');
  const meta = config.string('meta_device');
  const journal = config.string('journal_device');
  return journal !== '' && journal !== data && (meta === '' || meta === data);
}

/** Lines for the log: each option that was set and has no effect, once, with what replaces it. */
export function replacedParameters(config: Config): string[] {
  const given = (name: ParameterName): boolean => config.source(name) !== 'default';
  const lines = new Map<ParameterName, string>();
  const all = Object.entries({ ...DISK_OPTIONS, ...RUNTIME_OPTIONS, ...OTHERS }) as [ParameterName, OptionUse][];
  for (const [option, use] of all) {
    if (use.instead !== undefined && given(option)) lines.set(option, use.instead);
  }
  const name = (names: readonly ParameterName[], text: string): void => {
    for (const option of names) if (given(option)) lines.set(option, text);
  };
  const metaDevice = config.string('meta_device');
  const separate = metaDevice !== '' && metaDevice !== config.string('data_device');
  if (journalHoldsMetadata(config)) {
    const place = 'the metadata log lies on journal_device: journal_offset and journal_size place it';
    name(['meta_offset', 'meta_size'], place);
    const journal = 'governs the metadata log on journal_device';
    if (given('disable_journal_fsync')) name(['disable_meta_fsync'], `disable_journal_fsync ${journal}`);
    if (given('journal_io')) name(['meta_io'], `journal_io ${journal}`);
  } else {
    name(['journal_offset', 'journal_size', 'inmemory_journal'], NO_JOURNAL);
    const where = separate ? 'on meta_device' : 'on data_device';
    name(['journal_device'], `${NO_JOURNAL}, and the metadata log is ${where}`);
    for (const option of ['disable_journal_fsync', 'journal_io', 'cached_io_journal'] as const)
      name([option], `${NO_JOURNAL}; ${option.replace('journal', 'meta')} governs the metadata log`);
    const start = 'without a meta_device the metadata log lies at the start of the data area (data_offset)';
    if (!separate) name(['meta_offset', 'meta_size'], start);
  }
  if (config.number('csum_block_size') === config.number('bitmap_granularity')) lines.delete('csum_block_size');
  if (!separate && !journalHoldsMetadata(config) && config.boolean('throttle_small_writes')) {
    const pace = 'data and metadata are on one device, so small writes are acknowledged at its pace anyway';
    lines.set('throttle_small_writes', pace);
  }
  return [...lines].map(([option, text]) => `${option} is accepted and has no effect: ${text}`);
}
