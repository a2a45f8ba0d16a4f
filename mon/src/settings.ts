// SPDX-License-Identifier: GPL-2.0-or-later
// The monitor's parameters out of the merged configuration (command line over etcd over file). Source: configuration 7.

import { parseBoolean, type JsonObject, type JsonValue } from '@vitastor/core';

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
  prometheus: { enabled: boolean; path: string; ip: string; port: number };
}

/** Strings count as numbers; absent, 0 and garbage as the default. */
function positive(value: JsonValue | undefined, absent: number, min: number): number {
  const n = typeof value === 'string' || typeof value === 'number' ? Number(value) : Number.NaN;
  return Number.isFinite(n) && n > 0 ? Math.max(n, min) : absent;
}

function levels(value: JsonValue | undefined): Map<string, number> {
  const result = new Map<string, number>();
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return result;
  for (const [level, n] of Object.entries(value)) {
    const number = Number(n);
    if (n !== null && n !== '' && Number.isFinite(number)) result.set(level, number);
  }
  return result;
}

function text(value: JsonValue | undefined, absent: string): string {
  return typeof value === 'string' && value !== '' ? value : absent;
}

export function decodeSettings(config: JsonObject): MonSettings {
  const ttl = positive(config['etcd_mon_ttl'], 5, 1);
  const requestTimeoutMs = positive(config['etcd_mon_timeout'], 1000, 10);
  const retries = Math.round(positive(config['etcd_mon_retries'], 5, 1));
  return {
    leaseRefreshMs: ttl * 1000,
    requestTimeoutMs,
    retries,
    leaseTtlSeconds: Math.ceil(ttl + (requestTimeoutMs / 1000) * retries),
    startTimeoutMs: positive(config['etcd_start_timeout'], 5, 0.1) * 1000,
    changeDelayMs: positive(config['mon_change_timeout'], 1000, 100),
    retryChangeMs: positive(config['mon_retry_change_timeout'], 50, 50),
    statsDelayMs: positive(config['mon_stats_timeout'], 1000, 100),
    osdOutMs: positive(config['osd_out_time'], 600, 0.001) * 1000,
    placementLevels: levels(config['placement_levels']),
    backfillfullRatio: positive(config['osd_backfillfull_ratio'], 0.99, 0.001),
    prometheus: {
      enabled: config['enable_prometheus'] === undefined ? true : parseBoolean(config['enable_prometheus']) ?? true,
      path: text(config['prometheus_path'], '/metrics'),
      ip: text(config['mon_http_ip'], ''),
      port: positive(config['mon_http_port'], 8060, 1),
    },
  };
}
