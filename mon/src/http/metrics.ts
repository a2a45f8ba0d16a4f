// SPDX-License-Identifier: GPL-2.0-or-later
// The cluster view as Prometheus metrics. A registry is filled anew for each scrape: nothing
// lingers of what is gone. Source: integrations 10.

import {
  inodeInPool,
  PG_STATE_WORDS,
  poolOfInode,
  type ClusterView,
  type InodeStats,
  type OpStats,
} from '@vitastor/core';
import { Gauge, Registry } from 'prom-client';

type Labels = Record<string, string | number>;

/** Shorthand for gauges that are filled once. */
class Page {
  readonly registry = new Registry();
  readonly #gauges = new Map<string, Gauge>();

  set(name: string, help: string, labels: Labels, value: number): void {
    let gauge = this.#gauges.get(name);
    if (gauge === undefined) {
      gauge = new Gauge({
        name: `vitastor_${name}`,
        help,
        labelNames: Object.keys(labels),
        registers: [this.registry],
      });
      this.#gauges.set(name, gauge);
    }
    gauge.set(labels, value);
  }
}

/** Text format 0.0.4. */
export async function metricsText(view: ClusterView): Promise<string> {
  const page = new Page();
  cluster(page, view);
  osds(page, view);
  images(page, view);
  pools(page, view);
  return page.registry.metrics();
}

export const METRICS_CONTENT_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

function ops(page: Page, prefix: string, labels: Labels, stats: OpStats, type: string): void {
  for (const [op, stat] of stats) {
    const all = { ...labels, op, op_type: type };
    page.set(`${prefix}_count`, 'Operations since the start of the OSDs', all, Number(stat.count));
    page.set(`${prefix}_usec`, 'Microseconds spent in operations', all, Number(stat.usec));
    page.set(`${prefix}_bytes`, 'Bytes moved by operations', all, Number(stat.bytes));
  }
}

function cluster(page: Page, view: ClusterView): void {
  const { stats } = view;
  if (stats !== null) {
    for (const [kind, n] of Object.entries(stats.objectCounts))
      page.set('object_count', 'Objects by state', { object_type: kind }, Number(n));
    for (const [kind, n] of Object.entries(stats.objectBytes))
      page.set('object_bytes', 'Bytes of objects by state', { object_type: kind }, Number(n));
    ops(page, 'stat', {}, stats.opStats, 'op');
    ops(page, 'stat', {}, stats.subopStats, 'subop');
    ops(page, 'stat', {}, stats.recoveryStats, 'recovery');
  }
  for (const [id, member] of view.monMembers) {
    const labels = {
      monitor_hostname: member.hostname,
      monitor_id: id,
      monitor_ip: member.ip.join(','),
    };
    page.set(
      'monitor_info',
      '1 for the master, 0 for a standby monitor',
      labels,
      view.monMaster?.id === id ? 1 : 0,
    );
  }
}

function osds(page: Page, view: ClusterView): void {
  for (const [osd, stats] of view.osdStats) {
    const state = view.osdStates.get(osd);
    page.set(
      'osd_status',
      '1 if the OSD is up',
      { host: state?.host || stats.host, osd_num: osd },
      state?.up ? 1 : 0,
    );
    if (stats.sizeBytes !== null)
      page.set('osd_size_bytes', 'Size of the OSD', { osd_num: osd }, Number(stats.sizeBytes));
    if (stats.freeBytes !== null)
      page.set(
        'osd_free_bytes',
        'Free space of the OSD',
        { osd_num: osd },
        Number(stats.freeBytes),
      );
    for (const [part, bytes] of stats.memory)
      page.set('osd_memory_bytes', 'Memory of the OSD’s engine by part', { osd_num: osd, part }, Number(bytes));
    for (const [counter, value] of stats.store) {
      if (counter === 'uuid') continue;
      page.set('osd_store', 'Counters of the OSD’s store', { osd_num: osd, counter }, Number(value));
    }
    ops(page, 'osd_stat', { osd_num: osd }, stats.opStats, 'op');
    ops(page, 'osd_stat', { osd_num: osd }, stats.subopStats, 'subop');
    ops(page, 'osd_stat', { osd_num: osd }, stats.recoveryStats, 'recovery');
  }
}

function images(page: Page, view: ClusterView): void {
  for (const [id, stats] of view.inodeStats) {
    const labels = {
      image_name: view.inodes.get(id)?.name ?? '',
      inode_num: inodeInPool(id).toString(),
      pool_id: poolOfInode(id),
    };
    page.set('image_raw_used', 'Raw bytes used by the image', labels, Number(stats.rawUsedBytes));
    for (const op of ['read', 'write', 'delete'] as const satisfies readonly (keyof InodeStats)[]) {
      page.set(
        'image_stat_count',
        'Operations on the image',
        { ...labels, op },
        Number(stats[op].count),
      );
      page.set(
        'image_stat_usec',
        'Microseconds spent in operations on the image',
        { ...labels, op },
        Number(stats[op].usec),
      );
      page.set(
        'image_stat_bytes',
        'Bytes moved by operations on the image',
        { ...labels, op },
        Number(stats[op].bytes),
      );
    }
  }
}

function pools(page: Page, view: ClusterView): void {
  for (const pool of view.pools.values()) {
    const short = { pool_id: pool.id, pool_name: pool.name };
    page.set(
      'pool_info',
      'Always 1',
      {
        ...short,
        pool_scheme: pool.scheme,
        pg_size: pool.pgSize,
        pg_minsize: pool.pgMinSize,
        parity_chunks: pool.parityChunks,
        pg_count: pool.pgCount,
        failure_domain: pool.failureDomain,
      },
      1,
    );
    const states = [...view.pgStates.ofPool(pool.id).values()];
    const active = states.filter(({ state }) => state.includes('active')).length;
    page.set('pool_status', '1 if all PGs are active', short, active >= pool.pgCount ? 1 : 0);
    for (const word of PG_STATE_WORDS) {
      // An absent key is the usual way to be offline.
      const absent = word === 'offline' ? Math.max(0, pool.pgCount - states.length) : 0;
      page.set(
        'pg_count',
        'PGs that have this word in their state',
        { pg_state: word, ...short },
        absent + states.filter(({ state }) => state.includes(word)).length,
      );
    }
    const stats = view.poolStats.get(pool.id);
    if (stats === undefined) continue;
    page.set('pool_raw_to_usable', 'Raw bytes for one usable byte', short, stats.rawToUsable);
    page.set(
      'pool_space_efficiency',
      'Part of the raw space that the distribution can use',
      short,
      stats.spaceEfficiency,
    );
    page.set(
      'pool_total_raw_tb',
      'Raw TiB that the distribution can hold',
      short,
      stats.totalRawTb,
    );
    page.set('pool_used_raw_tb', 'Raw TiB in use', short, stats.usedRawTb);
  }
}
