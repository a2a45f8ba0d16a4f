// SPDX-License-Identifier: GPL-2.0-or-later
// The monitor's parameters as it uses them: units in the names, derived times computed once.
// Source: configuration 7, etcd schema 8.1.

import type { Config } from '@vitastor/core';

export interface MonSettings {
  /** Distance of keepalives. */
  leaseRefreshMs: number;
  requestTimeoutMs: number;
  /** Attempts of a keepalive. */
  retries: number;
  /** TTL of the lease: refresh + all attempts. */
  leaseTtlSeconds: number;
  /** Timeout of loads and of the election; also the distance of attempts to become master. */
  startTimeoutMs: number;
  /** Changes that come within this time are handled together. */
  changeDelayMs: number;
  retryChangeMs: number;
  statsDelayMs: number;
  osdOutMs: number;
  placementLevels: Map<string, number>;
  backfillfullRatio: number;
}

/** Entries whose number is none are left out. */
function levels(config: Config): Map<string, number> {
  const pairs = Object.entries(config.object('placement_levels')).map(
    ([level, n]) => [level, n === null || n === '' ? Number.NaN : Number(n)] as const,
  );
  return new Map(pairs.filter(([, n]) => Number.isFinite(n)));
}

export function monSettings(config: Config): MonSettings {
  const ttl = config.number('etcd_mon_ttl');
  const requestTimeoutMs = config.number('etcd_mon_timeout');
  const retries = config.number('etcd_mon_retries');
  return {
    leaseRefreshMs: ttl * 1000,
    requestTimeoutMs,
    retries,
    leaseTtlSeconds: Math.ceil(ttl + (requestTimeoutMs / 1000) * retries),
    startTimeoutMs: config.number('etcd_start_timeout') * 1000,
    changeDelayMs: config.number('mon_change_timeout'),
    retryChangeMs: config.number('mon_retry_change_timeout'),
    statsDelayMs: config.number('mon_stats_timeout'),
    osdOutMs: config.number('osd_out_time') * 1000,
    placementLevels: levels(config),
    backfillfullRatio: config.number('osd_backfillfull_ratio'),
  };
}
