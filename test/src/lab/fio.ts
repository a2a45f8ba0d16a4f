// SPDX-License-Identifier: GPL-2.0-or-later
// fio's JSON report, reduced to what tests, benchmarks and people look at.

function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function number(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) ? value : 0;
}

/** One direction of one job. */
export interface FioSide {
  ios: number;
  bytes: number;
  iops: number;
  bytesPerSecond: number;
  /** Completion latency. */
  latencyUsMean: number;
  latencyUsP99: number;
  latencyUsMax: number;
  runtimeMs: number;
}

export interface FioJob {
  name: string;
  error: number;
  read: FioSide;
  write: FioSide;
  /** Processor seconds of all fio threads of the job. */
  cpuSeconds: number;
}

function side(value: unknown): FioSide {
  const data = record(value);
  const latency = record(data['clat_ns']);
  const percentiles = record(latency['percentile']);
  return {
    ios: number(data['total_ios']),
    bytes: number(data['io_bytes']),
    iops: number(data['iops']),
    bytesPerSecond: number(data['bw_bytes']),
    latencyUsMean: number(latency['mean']) / 1000,
    latencyUsP99: number(percentiles['99.000000']) / 1000,
    latencyUsMax: number(latency['max']) / 1000,
    runtimeMs: number(data['runtime']),
  };
}

/** The jobs of fio's output; [] where it holds no report. Text before and after the report is passed over. */
export function parseFio(output: string): FioJob[] {
  const from = output.indexOf('{\n');
  const to = output.lastIndexOf('}');
  if (from < 0 || to < from) return [];
  let report: unknown;
  try {
    report = JSON.parse(output.slice(from, to + 1));
  } catch {
    return [];
  }
  const jobs = record(report)['jobs'];
  return (Array.isArray(jobs) ? jobs : []).map((entry: unknown) => {
    const job = record(entry);
    const runtimeSeconds = number(job['job_runtime']) / 1000;
    return {
      name: String(job['jobname'] ?? ''),
      error: number(job['error']),
      read: side(job['read']),
      write: side(job['write']),
      cpuSeconds: ((number(job['usr_cpu']) + number(job['sys_cpu'])) / 100) * runtimeSeconds,
    };
  });
}
