// SPDX-License-Identifier: GPL-2.0-or-later
// What goes wrong: one table of faults, each with how often it is drawn and where it applies. Every fault ends by itself or in endAll().

import type { SimCluster } from './cluster.js';
import { OSD_MAX } from './cluster.js';
import type { SeededRandom } from './rng.js';
import type { Workload } from './workload.js';

interface Context {
  cluster: SimCluster;
  workload: Workload;
  random: SeededRandom;
  /** An OSD, drawn. */
  num: number;
  /** How long the fault lasts. */
  forMs: number;
  later: (afterMs: number, work: () => void) => void;
}

interface Fault {
  name: string;
  weight: number;
  /** Default: everywhere. */
  applies?: (cluster: SimCluster) => boolean;
  /** Text for the trace; null: nothing was done. */
  run: (context: Context) => string | null;
}

const FAULTS: readonly Fault[] = [
  { name: 'kill', weight: 8, run: (context) => kill(context, false) },
  { name: 'power cut', weight: 8, run: (context) => kill(context, true) },
  {
    name: 'late bytes', weight: 4, applies: (cluster) => cluster.osds.size > 1,
    run: ({ cluster, random, num, forMs, later }) => {
      const to = random.pick([...cluster.osds.keys()].filter((other) => other !== num));
      const isKilled = random.chance(60);
      const endMs = random.between(20, 1500);
      const [from, node] = [cluster.nodeOf(num), cluster.nodeOf(to)];
      cluster.link(from, node, 'cut', true);
      later(endMs, () => {
        if (isKilled) cluster.killOsd(num, false);
        cluster.revokeLease(num);
      });
      later(endMs + random.between(300, 5000), () => cluster.link(from, node, 'heal', true));
      later(endMs + forMs, () => cluster.startOsd(num));
      return `what osd${num} sends to osd${to} comes late, and osd${num} ${isKilled ? 'is killed' : 'loses its lease'} after ${endMs} ms`;
    },
  },
  {
    name: 'power cut of all', weight: 2,
    run: ({ cluster, random, later }) => {
      for (const num of cluster.osds.keys()) {
        cluster.killOsd(num, true);
        later(random.between(100, 5000), () => cluster.startOsd(num));
      }
      return 'all OSDs lose power';
    },
  },
  {
    name: 'orderly stop', weight: 3,
    run: ({ cluster, num, forMs, later }) => {
      cluster.stopOsd(num);
      later(forMs, () => cluster.startOsd(num));
      return `osd${num} is stopped, back after ${forMs} ms`;
    },
  },
  {
    name: 'partition', weight: 8,
    run: ({ cluster, random, num, forMs, later }) => {
      const nodes = [...cluster.osds.values()].filter((osd) => osd.num !== num).map((osd) => osd.node);
      const to = random.pick([...nodes, ...cluster.clients.map((client) => client.node)]);
      const from = cluster.nodeOf(num);
      const isOneWay = random.chance(40);
      const [a, b] = random.chance(50) ? [from, to] : [to, from];
      cluster.link(a, b, 'cut', isOneWay);
      later(forMs, () => cluster.link(a, b, 'heal', isOneWay));
      return `nodes ${a} and ${b} are cut${isOneWay ? ' one way' : ''} for ${forMs} ms`;
    },
  },
  {
    name: 'isolated OSD', weight: 3,
    run: ({ cluster, random, num, forMs, later }) => {
      const node = cluster.nodeOf(num);
      const others = [...[...cluster.osds.values()].map((osd) => osd.node), ...cluster.clients.map((client) => client.node)].filter((other) => other !== node);
      const withEtcd = random.chance(50);
      for (const other of others) cluster.link(node, other, 'cut');
      if (withEtcd) cluster.etcdOf(num, false);
      later(forMs, () => {
        for (const other of others) cluster.link(node, other, 'heal');
        cluster.etcdOf(num, true);
      });
      return `osd${num} is cut off from everything${withEtcd ? '' : ' but etcd'} for ${forMs} ms`;
    },
  },
  {
    name: 'etcd lost', weight: 5,
    run: ({ cluster, num, forMs, later }) => {
      cluster.etcdOf(num, false);
      later(forMs, () => cluster.etcdOf(num, true));
      return `osd${num} loses etcd for ${forMs} ms`;
    },
  },
  {
    name: 'etcd answers lost', weight: 3,
    run: ({ cluster, random, num }) => {
      cluster.loseAnswers(num, random.between(1, 3));
      return `the next answers of etcd to osd${num} are lost`;
    },
  },
  {
    name: 'etcd restart', weight: 3,
    run: ({ cluster }) => {
      cluster.etcd.restart();
      return 'etcd restarts';
    },
  },
  {
    name: 'etcd compaction', weight: 3,
    run: ({ cluster }) => {
      cluster.etcd.compact();
      cluster.etcd.restart();
      return 'etcd is compacted and restarts';
    },
  },
  {
    name: 'lease revoked', weight: 3,
    run: ({ cluster, num }) => {
      cluster.revokeLease(num);
      return `etcd forgets the lease of osd${num}`;
    },
  },
  {
    name: 'monitor killed', weight: 4,
    run: ({ cluster, random, later }) => {
      const num = random.between(1, cluster.shape.monitors);
      cluster.killMonitor(num);
      later(random.between(0, 2000), () => cluster.startMonitor(num));
      return `mon${num} is killed and started again`;
    },
  },
  {
    name: 'stalled control', weight: 5,
    run: ({ cluster, num, forMs, later, random }) => {
      cluster.stallOsd(num, true);
      const isCutOff = random.chance(40);
      if (isCutOff) cluster.etcdOf(num, false);
      later(forMs, () => {
        cluster.etcdOf(num, true);
        cluster.stallOsd(num, false);
      });
      return `control of osd${num} stands still for ${forMs} ms${isCutOff ? ', cut off from etcd' : ''}`;
    },
  },
  {
    name: 'connection death', weight: 6,
    run: ({ cluster, random, num }) => {
      const other = random.pick([...[...cluster.osds.values()].map((osd) => osd.node), ...cluster.clients.map((client) => client.node)]);
      if (other === cluster.nodeOf(num)) return null;
      cluster.world.killConnections(cluster.nodeOf(num), other);
      return `connections of osd${num} with node ${other} are reset`;
    },
  },
  {
    name: 'fragile connections', weight: 3,
    run: ({ cluster, random, forMs, later }) => {
      cluster.world.setNetwork({ killChance: 0.5, killAfterMaxBytes: random.pick([2000, 50_000, 1 << 20]) });
      later(forMs, () => cluster.world.setNetwork({ killChance: cluster.shape.network.killChance ?? 0 }));
      return `half of the new connections die at some byte for ${forMs} ms`;
    },
  },
  {
    name: 'delay', weight: 3,
    run: ({ cluster, random, forMs, later }) => {
      const latencyNs = random.pick([1, 20, 300]) * 1_000_000;
      cluster.world.setNetwork({ latencyNs, jitterNs: latencyNs });
      later(forMs, () => cluster.world.setNetwork({ latencyNs: 30_000, jitterNs: 20_000 }));
      return `messages take ${latencyNs / 1e6} ms and more for ${forMs} ms`;
    },
  },
  {
    name: 'slow disk', weight: 3,
    run: ({ cluster, random, num, forMs, later }) => {
      const latencyNs = random.pick([2, 30, 400]) * 1_000_000;
      cluster.world.setDisk(cluster.diskOf(num), { latencyNs, jitterNs: latencyNs });
      later(forMs, () => cluster.world.setDisk(cluster.diskOf(num), { latencyNs: 20_000, jitterNs: 20_000 }));
      return `the disk of osd${num} needs ${latencyNs / 1e6} ms and more for ${forMs} ms`;
    },
  },
  {
    name: 'clock jump', weight: 2,
    run: ({ cluster, random, num }) => {
      const ms = random.pick([-3_600_000, -5000, 5000, 3_600_000]);
      cluster.jumpClock(num, ms);
      return `the time of day of osd${num} jumps by ${ms} ms`;
    },
  },
  {
    name: 'client killed', weight: 3,
    run: ({ cluster, workload, random, later }) => {
      const client = random.pick(cluster.clients);
      if (!client.isRunning) return null;
      workload.killClient(client);
      later(random.between(0, 3000), () => startClient(cluster, workload, client.num));
      return `client${client.num} is killed and started again`;
    },
  },
  {
    name: 'reweight', weight: 3, applies: (cluster) => cluster.shape.osds > cluster.shape.pgSize,
    run: ({ cluster, random, num, forMs, later }) => {
      cluster.configureOsd(num, { reweight: random.pick([0, 0.3]) });
      later(forMs, () => cluster.configureOsd(num, {}));
      return `osd${num} gets another weight for ${forMs} ms`;
    },
  },
  {
    name: 'new OSD', weight: 1, applies: (cluster) => cluster.osds.size < OSD_MAX,
    run: ({ cluster }) => `osd${cluster.addOsd()} is new`,
  },
  {
    name: 'pg_count', weight: 2,
    run: ({ cluster, random }) => {
      const count = random.between(1, 8);
      cluster.changePool({ pg_count: count });
      return `pg_count becomes ${count}`;
    },
  },
  {
    name: 'pg_size', weight: 2, applies: (cluster) => cluster.shape.scheme === 'replicated' && cluster.shape.pgSize > 1,
    run: ({ cluster, random }) => {
      const size = random.between(Math.max(2, cluster.shape.pgMinSize), Math.min(4, cluster.shape.hosts));
      cluster.changePool({ pg_size: size });
      return `pg_size becomes ${size}`;
    },
  },
  {
    name: 'recovery paused', weight: 2,
    run: ({ cluster, random, forMs, later }) => {
      const flag = random.pick(['no_recovery', 'no_rebalance']);
      cluster.changeGlobal({ [flag]: true });
      later(forMs, () => cluster.changeGlobal({ [flag]: false }));
      return `${flag} for ${forMs} ms`;
    },
  },
  {
    name: 'local reads', weight: 2, applies: (cluster) => cluster.shape.scheme === 'replicated' && cluster.shape.immediateCommit === 'all',
    run: ({ cluster, workload, random }) => {
      const mode = random.pick(['primary', 'nearest', 'random']);
      workload.allowLocalReads();
      cluster.changePool({ local_reads: mode });
      return `local_reads becomes ${mode}`;
    },
  },
];

/** Names of all faults, for the report. */
export const FAULT_NAMES: readonly string[] = [...FAULTS.map((fault) => fault.name), 'bit rot', 'misdirected write'];

function kill({ cluster, random, num, forMs, later }: Context, powerLoss: boolean): string {
  // Its supervisor revokes the lease as soon as the process is gone, unless the whole machine is.
  const isRevoked = !powerLoss && random.chance(50);
  cluster.killOsd(num, powerLoss);
  if (isRevoked) cluster.revokeLease(num);
  later(forMs, () => cluster.startOsd(num));
  return `osd${num} ${powerLoss ? 'loses power' : 'is killed'}${isRevoked ? ', its lease is revoked' : ''}, back after ${forMs} ms`;
}

function startClient(cluster: SimCluster, workload: Workload, num: number): void {
  const client = cluster.clients[num - 1];
  if (!client || client.isRunning) return;
  client.start();
  workload.fillUp(client);
}

export class Faults {
  readonly #cluster: SimCluster;
  readonly #workload: Workload;
  readonly #random: SeededRandom;
  readonly #only: ReadonlySet<string> | null;
  #active = false;
  count = 0;
  /** By name, for the report. */
  readonly counts: Record<string, number> = {};

  /** only: names of the faults that may be drawn; null: all. */
  constructor(cluster: SimCluster, workload: Workload, random: SeededRandom, only: ReadonlySet<string> | null) {
    this.#cluster = cluster;
    this.#workload = workload;
    this.#random = random;
    this.#only = only;
  }

  start(): void {
    this.#active = true;
    this.#schedule();
  }

  /** Ends everything that a fault has changed for a while; everything that was killed starts. */
  endAll(): void {
    const { shape } = this.#cluster;
    const cluster = this.#cluster;
    this.#active = false;
    cluster.keepsRunning = true;
    cluster.note('faults end');
    cluster.healLinks();
    cluster.world.setNetwork({ latencyNs: 30_000, jitterNs: 20_000, killChance: 0, ...shape.network });
    cluster.world.setNetwork({ killChance: 0 });
    cluster.changeGlobal({ no_recovery: false, no_rebalance: false });
    for (const num of cluster.osds.keys()) {
      cluster.world.setDisk(cluster.diskOf(num), { latencyNs: 20_000, jitterNs: 20_000 });
      cluster.configureOsd(num, {});
      cluster.etcdOf(num, true);
      cluster.stallOsd(num, false);
      cluster.startOsd(num);
    }
    for (let num = 1; num <= shape.monitors; num++) cluster.startMonitor(num);
    for (const client of cluster.clients) startClient(cluster, this.#workload, client.num);
  }

  /** Damages data of one OSD. */
  decay(num: number): void {
    const kind = this.#random.pick(['bit rot', 'misdirected write'] as const);
    const offset = this.#cluster.world.damageDisk(this.#cluster.diskOf(num), kind);
    if (offset >= 0) this.#did(kind, `${kind} on osd${num} at ${offset}`);
  }

  #did(name: string, text: string): void {
    this.count++;
    this.counts[name] = (this.counts[name] ?? 0) + 1;
    this.#cluster.note(`fault: ${text}`);
  }

  #schedule(): void {
    this.#cluster.clock.after(this.#random.between(300, 5000), () => {
      if (!this.#active) return;
      this.#one();
      this.#schedule();
    });
  }

  #one(): void {
    const cluster = this.#cluster;
    const random = this.#random;
    const faults = FAULTS.filter((fault) => (this.#only?.has(fault.name) ?? true) && (fault.applies?.(cluster) ?? true));
    let draw = random.below(faults.reduce((sum, fault) => sum + fault.weight, 0));
    const fault = faults.find((candidate) => (draw -= candidate.weight) < 0);
    const num = random.between(1, cluster.osds.size);
    const forMs = random.between(100, 9000);
    // What belongs to a fault that is still there when faults end must not come later.
    const later = (afterMs: number, work: () => void): void =>
      void cluster.clock.after(afterMs, () => {
        if (this.#active) work();
      });
    const text = fault?.run({ cluster, workload: this.#workload, random, num, forMs, later }) ?? null;
    if (fault && text !== null) this.#did(fault.name, text);
  }
}
