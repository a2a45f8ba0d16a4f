// SPDX-License-Identifier: GPL-2.0-or-later
// From parameters (command line > etcd > file) to what control and the engine need. Source: configuration.md 5 and 6.

import { type Config, type ImmediateCommit, type ParameterName, VitastorError } from '@vitastor/core';
import type { Command, FileIo, ListenAddress } from './engine.js';
import type { LeaseTiming } from './lease.js';
import { chooseListen, type LocalAddress } from './networks.js';
import type { OsdIdentity } from './statistics.js';

export interface OsdOptions {
  identity: OsdIdentity;
  configure: Omit<Extract<Command, { kind: 'configure' }>, 'kind'>;
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

/** Accepted, and without meaning here: what does its work instead. Named once in the log when somebody sets one. */
const REPLACED: Readonly<Partial<Record<ParameterName, string>>> = {
  meta_format: 'the store has one format of its own',
  journal_device: 'there is no journal: small writes go to the metadata log (meta_device)',
  journal_offset: 'there is no journal',
  journal_size: 'there is no journal: the metadata log sizes itself',
  journal_block_size: 'the metadata log is written in sectors of 4 KB',
  meta_block_size: 'the metadata log is written in sectors of 4 KB',
  disk_alignment: 'everything is aligned to bitmap_granularity',
  disable_journal_fsync: 'disable_meta_fsync governs the metadata log',
  journal_io: 'meta_io governs the metadata log',
  journal_sector_buffer_count: 'the metadata log needs no fixed number of buffers',
  journal_no_same_sector_overwrites: 'the metadata log never writes a sector twice in a row',
  inmemory_metadata: 'the index is always in memory',
  inmemory_journal: 'there is no journal',
  min_flusher_count: 'nothing is flushed from a journal',
  max_flusher_count: 'nothing is flushed from a journal',
  use_rdma: 'connections are plain TCP',
  use_rdmacm: 'connections are plain TCP',
  osd_iothread_count: 'one engine thread serves all connections',
};

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
  const metaDevice = config.string('meta_device') === dataDevice ? '' : config.string('meta_device');
  const lease = leaseTiming(config);
  const dataIo = fileIo(config.string('data_io') || (config.boolean('cached_io_data') ? 'cached' : 'direct'));
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
        osdNum: BigInt(osd),
        dataDevice,
        metaDevice,
        dataOffset: bytes(config, 'data_offset'),
        dataSize: bytes(config, 'data_size'),
        metaOffset: bytes(config, 'meta_offset'),
        metaSize: 0n,
        blockSize,
        bitmapGranularity,
        immediateCommit,
        disableDataFsync,
        disableMetaFsync:
          config.source('disable_meta_fsync') === 'default' && metaDevice === ''
            ? disableDataFsync
            : config.boolean('disable_meta_fsync'),
        disableDeviceLock: config.boolean('disable_device_lock'),
        readonly: config.boolean('readonly'),
        checksums: config.source('data_csum_type') === 'default' || config.string('data_csum_type') === 'crc32c',
        dataIo,
        metaIo:
          config.string('meta_io') === '' && metaDevice === '' ? dataIo : fileIo(config.string('meta_io') || 'direct'),
        maxWriteIodepth: config.number('max_write_iodepth'),
        create: true,
      },
      listen: listenAddresses(config, environment),
      clusterNetworks: config.list('osd_cluster_network').length
        ? config.list('osd_cluster_network')
        : config.list('osd_network'),
      settings: config.asText(),
      leaseTimeoutS: BigInt(lease.ttlSeconds),
    },
    lease,
    inodeVanishMs: config.number('inode_vanish_time') * 1000,
    statsIntervalMs: config.number('etcd_stats_interval') * 1000,
    etcdQuickTimeoutMs: config.number('etcd_quick_timeout'),
    etcdSlowTimeoutMs: config.number('etcd_slow_timeout'),
  };
}

/** Lines for the log: parameters that were set and mean nothing here. */
export function replacedParameters(config: Config): string[] {
  return (Object.entries(REPLACED) as [ParameterName, string][])
    .filter(([name]) => config.source(name) !== 'default')
    .map(([name, instead]) => `${name} is accepted and has no effect: ${instead}`);
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

function bytes(config: Config, name: ParameterName): bigint {
  return BigInt(Math.trunc(config.number(name)));
}

function fileIo(word: string): FileIo {
  return word === 'cached' ? 'cached' : word === 'directsync' ? 'direct_sync' : 'direct';
}
