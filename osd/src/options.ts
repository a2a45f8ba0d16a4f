// SPDX-License-Identifier: GPL-2.0-or-later
// From parameters (command line > etcd > file) to what control and the engine need. Source: configuration.md 5 and 6.

import { type Config, type ImmediateCommit, type ParameterName, VitastorError } from '@vitastor/core';
import type { Command, FileIo, ListenAddress } from './engine.js';
import type { LeaseTiming } from './lease.js';
import { journalHoldsMetadata } from './option-table.js';
import { chooseListen, type LocalAddress } from './networks.js';
import type { ScrubPlan } from './pg-control.js';
import type { OsdIdentity } from './statistics.js';

export interface OsdOptions {
  identity: OsdIdentity;
  configure: Omit<Extract<Command, { kind: 'configure' }>, 'kind'>;
  /** An empty disk may take over a number that PGs still count on. */
  allowsFreshDisk: boolean;
  /** A store that is older than what the OSD has reported takes part. */
  allowsOldDisk: boolean;
  lease: LeaseTiming;
  inodeVanishMs: number;
  statsIntervalMs: number;
  etcdQuickTimeoutMs: number;
  etcdSlowTimeoutMs: number;
}

/** What 3.0.8 peers and tools take for a version of this protocol and schema. */
export const VERSION = '3.0.8';

/** Time to live and keepalive without configuration: docs/adr/0041. */
const LEASE: LeaseTiming = { ttlSeconds: 5, keepaliveMs: 1000, timeoutMs: 1000 };
const LEASE_PARAMETERS: readonly ParameterName[] = ['etcd_report_interval', 'max_etcd_attempts', 'etcd_quick_timeout'];

export interface Environment {
  hostname: string;
  localAddresses: readonly LocalAddress[];
}

/** Throws ERR_INVALID_ARGUMENT that names the parameter. */
export function osdOptions(config: Config, environment: Environment): OsdOptions {
  const osd = config.numberOrNull('osd_num');
  if (osd === null || osd < 1)
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      'osd_num is required: give --osd_num N (vitastor-cli alloc-osd hands out a free number)',
    );
  const dataDevice = config.string('data_device');
  if (dataDevice === '')
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      'data_device is required: give --data_device PATH of a file or block device',
    );
  const blockSize = config.number('block_size');
  const bitmapGranularity = config.number('bitmap_granularity');
  if (blockSize < 8 * bitmapGranularity || blockSize % bitmapGranularity !== 0) {
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      `block_size ${blockSize} must be a multiple of bitmap_granularity ${bitmapGranularity} and at least 8 times as large`,
    );
  }
  // An OSD that was told nothing promises nothing; the default "all" is the pools'.
  const immediateCommit =
    config.source('immediate_commit') === 'default' ? 'none' : (config.string('immediate_commit') as ImmediateCommit);
  const disableDataFsync = config.boolean('disable_data_fsync');
  const meta = metadataPlace(config, dataDevice);
  const lease = leaseTiming(config);
  const isCached = config.source('data_io') === 'default' && config.boolean('cached_io_data');
  const dataIo = fileIo(isCached ? 'cached' : config.string('data_io'));
  return {
    identity: {
      osd,
      host: config.string('hostname') || environment.hostname,
      version: VERSION,
      blockSize,
      bitmapGranularity,
      immediateCommit,
    },
    configure: {
      store: {
        osdNum: BigInt(osd), dataDevice, metaDevice: meta.device,
        dataOffset: bytes(config, 'data_offset'), dataSize: bytes(config, 'data_size'),
        metaOffset: meta.offset, metaSize: meta.size,
        blockSize, bitmapGranularity, immediateCommit, disableDataFsync,
        disableMetaFsync:
          meta.device === '' && config.source('disable_meta_fsync') === 'default'
            ? disableDataFsync
            : meta.disableFsync,
        disableDeviceLock: config.boolean('disable_device_lock'),
        readonly: config.boolean('readonly'),
        checksums: config.source('data_csum_type') === 'default' || config.string('data_csum_type') === 'crc32c',
        checksumsInMemory: config.boolean('inmemory_metadata'),
        checksumCacheSize: bytes(config, 'checksum_cache_size'),
        dataIo,
        metaIo: meta.device === '' && meta.io === '' ? dataIo : fileIo(meta.io),
        maxWriteIodepth: config.number('max_write_iodepth'),
        maxTombstones: BigInt(config.number('max_tombstones')),
        atomicWriteSize: config.number('atomic_write_size'),
        discardFreed: discardFreed(config),
        discardOnStart: config.boolean('discard_on_start'),
        minDiscardSize: bytes(config, 'min_discard_size'),
        discardGranularity: config.number('discard_granularity'),
        skipDamagedMetadata: config.boolean('skip_corrupted_meta_entries'),
        create: true,
      },
      listen: listenAddresses(config, environment),
      clusterNetworks: config.list('osd_cluster_network').length
        ? config.list('osd_cluster_network')
        : config.list('osd_network'),
      settings: config.asText(),
      leaseTimeoutS: BigInt(lease.ttlSeconds),
    },
    allowsFreshDisk: config.boolean('allow_fresh_disk'),
    // Who starts without what damaged metadata touches knows that something is lost.
    allowsOldDisk: config.boolean('allow_old_disk') || config.boolean('skip_corrupted_meta_entries'),
    lease,
    inodeVanishMs: config.number('inode_vanish_time') * 1000,
    statsIntervalMs: config.number('etcd_stats_interval') * 1000,
    etcdQuickTimeoutMs: config.number('etcd_quick_timeout'),
    etcdSlowTimeoutMs: config.number('etcd_slow_timeout'),
  };
}

export function scrubPlanOf(config: Config): ScrubPlan {
  return {
    automatic: config.boolean('auto_scrub'),
    intervalS: config.number('scrub_interval'),
    suspended: config.boolean('no_scrub'),
  };
}

function leaseTiming(config: Config): LeaseTiming {
  if (LEASE_PARAMETERS.every((name) => config.source(name) === 'default')) return LEASE;
  const report = config.number('etcd_report_interval');
  const timeoutMs = config.number('etcd_quick_timeout');
  return {
    ttlSeconds: report + Math.floor((config.number('max_etcd_attempts') * 2 * timeoutMs + 999) / 1000),
    keepaliveMs: report * 1000,
    timeoutMs,
  };
}

function listenAddresses(config: Config, environment: Environment): ListenAddress[] {
  const port = config.number('bind_port');
  return chooseListen({
    bind: config.list('bind_address'),
    networks: [...config.list('osd_network'), ...config.list('osd_cluster_network')],
    local: environment.localAddresses,
  }).map((host) => ({ host, port }));
}

function discardFreed(config: Config): 'off' | 'on' | 'automatic' {
  if (config.value('discard_freed') === null) return 'automatic';
  return config.boolean('discard_freed') ? 'on' : 'off';
}

interface MetadataPlace {
  /** '' = in the data area. */
  device: string;
  offset: bigint;
  size: bigint;
  disableFsync: boolean;
  /** '' = not set. */
  io: string;
}

/** Where the metadata log lies: on meta_device, or on a journal_device alone, or in the data area. */
function metadataPlace(config: Config, dataDevice: string): MetadataPlace {
  const io = (name: 'meta_io' | 'journal_io', old: 'cached_io_meta' | 'cached_io_journal'): string =>
    config.string(name) || (config.boolean(old) ? 'cached' : '');
  const ofMeta = { disableFsync: config.boolean('disable_meta_fsync'), io: io('meta_io', 'cached_io_meta') };
  if (journalHoldsMetadata(config)) {
    return {
      device: config.string('journal_device'),
      offset: bytes(config, 'journal_offset'),
      size: bytes(config, 'journal_size'),
      disableFsync:
        config.source('disable_journal_fsync') === 'default'
          ? ofMeta.disableFsync
          : config.boolean('disable_journal_fsync'),
      io: io('journal_io', 'cached_io_journal') || ofMeta.io,
    };
  }
  const device = config.string('meta_device');
  if (device === '' || device === dataDevice) return { device: '', offset: 0n, size: 0n, ...ofMeta };
  return { device, offset: bytes(config, 'meta_offset'), size: bytes(config, 'meta_size'), ...ofMeta };
}

function bytes(config: Config, name: ParameterName): bigint {
  return BigInt(Math.trunc(config.number(name)));
}

function fileIo(word: string): FileIo {
  return word === 'cached' ? 'cached' : word === 'directsync' ? 'direct_sync' : 'direct';
}
