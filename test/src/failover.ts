// SPDX-License-Identifier: GPL-2.0-or-later
// What a client and etcd see when one OSD of one PG goes away: the pause of a client at depth 1, and the changes in etcd between the end of
// the OSD and the PG's return. For `bench -- failover` and the stories of e2e/failover.ts.

import { type EtcdEvent, type Lab, sleep, until } from './lab/index.js';

export type Way = 'kill' | 'silence' | 'stop';
export type Role = 'primary' | 'secondary';

/** One change below /pg/ or /osd/state/ of etcd. */
export interface Change {
  /** After the fault, as this process saw it. */
  ms: number;
  revision: number;
  /** `osd gone`, `config`, `lock`, `peering`, `active`, `history` of PG 1 of pool 1. */
  what: string;
}

export interface Pause {
  way: Way;
  role: Role;
  osd: number;
  /** Longest time between two completions of the client. */
  ms: number;
  completions: number;
  changes: Change[];
}

const POOL = 1;
/** A client keeps to one PG: the first, where offset 0 lies. */
const PG = 1;
const REGION = 128 * 1024;

export interface Members {
  primary: number;
  /** Of the set of OSDs, without the primary. */
  secondaries: number[];
}

/** etcd, a monitor, three supervised OSDs, a pool of two copies, an image whose first object is written. */
export async function startFailoverCluster(lab: Lab, image = 'failover'): Promise<void> {
  await lab.startEtcd();
  await lab.startMonitor();
  for (const osd of [1, 2, 3]) await lab.startOsd(osd);
  await lab.createPool('failover', { size: 2, minSize: 1, pgCount: 16 });
  await lab.createImage(image, '64M');
  const fill = await lab.fio(['-name=fill', `-image=${image}`, '-rw=write', '-bs=128k', `-size=${REGION}`, '-iodepth=1']);
  if (fill.code !== 0) throw new Error(`fio: exit code ${fill.code}\n${fill.stdout}${fill.stderr}`);
}

export async function membersOfPg(lab: Lab): Promise<Members> {
  const state = JSON.parse((await lab.etcd.get(`${lab.prefix}/pg/state/${POOL}/${PG}`)) ?? '{}') as { primary?: number };
  const config = JSON.parse((await lab.etcd.get(`${lab.prefix}/pg/config`)) ?? '{}') as {
    items?: Record<string, Record<string, { osd_set?: (number | string)[] }>>;
  };
  const set = (config.items?.[POOL]?.[PG]?.osd_set ?? []).map(Number).filter((osd) => osd !== 0);
  const primary = Number(state.primary ?? 0);
  if (primary === 0 || set.length < 2) throw new Error(`PG ${POOL}/${PG} is led by ${primary}, its set is ${set.join(', ')}`);
  return { primary, secondaries: set.filter((osd) => osd !== primary) };
}

/** What one event says about PG 1, or null. */
export function describeChange(lab: Lab, osd: number, event: EtcdEvent): string | null {
  const path = event.key.slice(lab.prefix.length);
  if (path === `/osd/state/${osd}`) return event.deleted ? 'osd gone' : 'osd up';
  if (path === '/pg/config') return 'config';
  if (path === `/pg/history/${POOL}/${PG}`) return 'history';
  if (path !== `/pg/state/${POOL}/${PG}`) return null;
  if (event.deleted) return 'unlocked';
  const { state } = JSON.parse(event.value) as { state?: string[] };
  return state?.includes('active') === true ? 'active' : state?.[0] === 'starting' ? 'lock' : (state?.[0] ?? 'unknown');
}

export function memberOf(members: Members, role: Role): number {
  return role === 'primary' ? members.primary : (members.secondaries[0] ?? 0);
}

async function fault(lab: Lab, way: Way, osd: number): Promise<void> {
  if (way === 'kill') lab.killOsd(osd);
  else if (way === 'silence') lab.osds.get(osd)?.pause();
  else await lab.osds.get(osd)?.stop();
}

/** A clean cluster and an OSD of PG 1 go in; a clean cluster comes out. afterMs: how long the client goes on after the fault. */
export async function pauseOf(lab: Lab, way: Way, role: Role, options: { afterMs: number; image?: string }): Promise<Pause> {
  await lab.waitActive({ clean: true, timeoutMs: 120_000 });
  const osd = memberOf(await membersOfPg(lab), role);
  const changes: Change[] = [];
  let faultMs = Number.POSITIVE_INFINITY;
  const unwatch = await lab.etcd.watch(`${lab.prefix}/`, (event) => {
    const what = describeChange(lab, osd, event);
    if (what !== null && performance.now() >= faultMs) changes.push({ ms: performance.now() - faultMs, revision: event.revision, what });
  });
  try {
    // The first second is not looked at: starting and connecting.
    const leadMs = 2000;
    const seconds = Math.ceil((leadMs + options.afterMs) / 1000);
    const fio = lab.fio([
      '-name=client', `-image=${options.image ?? 'failover'}`, '-rw=randwrite', '-bs=4k', `-size=${REGION}`, '-iodepth=1', '-direct=1', '-time_based',
      '-ramp_time=1', `-runtime=${seconds}`,
    ], { timeoutMs: 120_000 });
    await sleep(leadMs + 500);
    faultMs = performance.now();
    const ended = fault(lab, way, osd);
    const result = await fio;
    await ended;
    const [job] = result.jobs;
    if (result.code !== 0 || !job || job.error !== 0) {
      throw new Error(`fio: exit code ${result.code}\n${result.stdout.slice(-2000)}${result.stderr}\n${await lab.diagnose()}`);
    }
    return { way, role, osd, ms: job.write.latencyUsMax / 1000, completions: job.write.ios, changes };
  } finally {
    unwatch();
    if (way === 'silence') lab.osds.get(osd)?.resume();
    else {
      await until(`the supervisor of OSD ${osd} has ended`, () => lab.osds.get(osd)?.exit !== null, { timeoutMs: 30_000 });
      await lab.startOsd(osd);
    }
    await lab.waitActive({ clean: true, timeoutMs: 120_000 });
  }
}
