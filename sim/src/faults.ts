// SPDX-License-Identifier: GPL-2.0-or-later
// What goes wrong: one table of faults, each with how often it is drawn and where it applies. Every fault ends by itself or in endAll().

import type { SimCluster } from './cluster.js';
import { OSD_MAX } from './cluster.js';
import type { SeededRandom } from './rng.js';
import { dataChunks, type Shape } from './shape.js';
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
  /** No write that it meets ends on some OSDs only. */
  isGentle?: true;
  /** Default: everywhere. */
  applies?: (cluster: SimCluster) => boolean;
  /** Text for the trace; null: nothing was done. */
  run: (context: Context) => string | null;
}

/** An OSD, a monitor or a client, and what sets how late it hears of etcd's news. */
function hearerOfNews({ cluster, random, num }: Context): [who: string, setLag: (ms: number) => void] {
  if (random.chance(60)) return [`osd${num}`, (ms) => cluster.delayNewsOf(num, ms)];
  if (random.chance(50)) {
    const monitor = random.between(1, cluster.shape.monitors);
    return [`mon${monitor}`, (ms) => cluster.delayNewsOfMonitor(monitor, ms)];
  }
  const client = random.pick(cluster.clients);
  return [`client${client.num}`, (ms) => (client.newsLagMs = ms)];
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
    // One secondary hears late that the primary is dead: whatever the dead one had sent arrives after its successor has listed.
    name: 'late bytes to a deaf OSD', weight: 3, applies: (cluster) => cluster.osds.size > 2,
    run: ({ cluster, workload, random, num, forMs, later }) => {
      const others = [...cluster.osds.keys()].filter((other) => other !== num);
      const deaf = random.pick(others);
      const endMs = random.between(20, 1500);
      const healMs = endMs + random.between(400, 2500);
      const survivor = random.pick(cluster.clients);
      const killed = cluster.clients.filter((client) => client !== survivor && random.chance(80));
      for (const other of others) cluster.link(cluster.nodeOf(num), cluster.nodeOf(other), 'cut', true);
      later(endMs, () => {
        cluster.stallOsd(deaf, true);
        cluster.killOsd(num, false);
        cluster.revokeLease(num);
        for (const client of killed) workload.killClient(client);
      });
      later(healMs, () => {
        for (const other of others) cluster.link(cluster.nodeOf(num), cluster.nodeOf(other), 'heal', true);
      });
      later(healMs + 500, () => {
        cluster.stallOsd(deaf, false);
        for (const client of killed) startClient(cluster, workload, client.num);
      });
      later(healMs + forMs, () => cluster.startOsd(num));
      return `what osd${num} sends comes late, it is killed after ${endMs} ms, and osd${deaf} is the last to know`;
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
    name: 'late news', weight: 4,
    run: (context) => {
      const lagMs = context.random.between(1, context.random.pick([50, 500, 3000]));
      const [who, setLag] = hearerOfNews(context);
      setLag(lagMs);
      context.later(context.forMs, () => setLag(0));
      return `${who} hears of etcd's news ${lagMs} ms late for ${context.forMs} ms`;
    },
  },
  {
    name: 'etcd restart', weight: 3, isGentle: true,
    run: ({ cluster }) => {
      cluster.etcd.restart();
      return 'etcd restarts';
    },
  },
  {
    name: 'etcd compaction', weight: 3, isGentle: true,
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
    name: 'monitor killed', weight: 4, isGentle: true,
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
    // It serves whom it can reach, and does not learn that it should not.
    name: 'forgotten OSD', weight: 3, applies: (cluster) => cluster.osds.size > 1,
    run: ({ cluster, workload, random, num, later }) => {
      const others = [...cluster.osds.values()].map((osd) => osd.node).filter((node) => node !== cluster.nodeOf(num));
      const client = random.pick(cluster.clients);
      const forMs = random.between(4000, 12_000);
      cluster.stallOsd(num, true);
      cluster.etcdOf(num, false);
      for (const other of others) cluster.link(cluster.nodeOf(num), other, 'cut');
      client.etcdConnected = false;
      workload.onlyReads(client, true);
      later(forMs, () => {
        for (const other of others) cluster.link(cluster.nodeOf(num), other, 'heal');
        cluster.etcdOf(num, true);
        cluster.stallOsd(num, false);
        client.etcdConnected = true;
        workload.onlyReads(client, false);
      });
      return `osd${num} stands still, cut off from etcd and other OSDs, and client${client.num} does not hear of it for ${forMs} ms`;
    },
  },
  {
    // It deletes in PGs that it takes for clean.
    name: 'blind client', weight: 3,
    run: ({ cluster, random, num, forMs, later }) => {
      const client = random.pick(cluster.clients);
      const isKilled = random.chance(60);
      client.etcdConnected = false;
      later(forMs, () => (client.etcdConnected = true));
      if (isKilled) {
        later(50, () => {
          cluster.killOsd(num, false);
          cluster.revokeLease(num);
        });
        later(Math.max(60, forMs - 50), () => cluster.startOsd(num));
      }
      return `client${client.num} loses etcd for ${forMs} ms${isKilled ? `, and osd${num} is killed meanwhile` : ''}`;
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
    name: 'delay', weight: 3, isGentle: true,
    run: ({ cluster, random, forMs, later }) => {
      const latencyNs = random.pick([1, 20, 300]) * 1_000_000;
      cluster.world.setNetwork({ latencyNs, jitterNs: latencyNs });
      later(forMs, () => cluster.world.setNetwork({ latencyNs: 30_000, jitterNs: 20_000 }));
      return `messages take ${latencyNs / 1e6} ms and more for ${forMs} ms`;
    },
  },
  {
    name: 'slow disk', weight: 3, isGentle: true,
    run: ({ cluster, random, num, forMs, later }) => {
      const latencyNs = random.pick([2, 30, 400]) * 1_000_000;
      cluster.world.setDisk(cluster.diskOf(num), { latencyNs, jitterNs: latencyNs });
      later(forMs, () => cluster.world.setDisk(cluster.diskOf(num), { latencyNs: 20_000, jitterNs: 20_000 }));
      return `the disk of osd${num} needs ${latencyNs / 1e6} ms and more for ${forMs} ms`;
    },
  },
  {
    name: 'clock jump', weight: 2, isGentle: true,
    run: ({ cluster, random, num }) => {
      const ms = random.pick([-3_600_000, -5000, 5000, 3_600_000]);
      cluster.jumpClock(num, ms);
      return `the time of day of osd${num} jumps by ${ms} ms`;
    },
  },
  {
    name: 'client killed', weight: 3, isGentle: true,
    run: ({ cluster, workload, random, later }) => {
      const client = random.pick(cluster.clients);
      if (!client.isRunning) return null;
      workload.killClient(client);
      later(random.between(0, 3000), () => startClient(cluster, workload, client.num));
      return `client${client.num} is killed and started again`;
    },
  },
  {
    name: 'reweight', weight: 3, isGentle: true, applies: (cluster) => cluster.shape.osds > cluster.shape.pgSize,
    run: ({ cluster, random, num, forMs, later }) => {
      cluster.configureOsd(num, { reweight: random.pick([0, 0.3]) });
      later(forMs, () => cluster.configureOsd(num, {}));
      return `osd${num} gets another weight for ${forMs} ms`;
    },
  },
  {
    name: 'new OSD', weight: 1, isGentle: true, applies: (cluster) => cluster.osds.size < OSD_MAX,
    run: ({ cluster }) => `osd${cluster.addOsd()} is new`,
  },
  {
    name: 'pg_count', weight: 2, isGentle: true,
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
    name: 'recovery paused', weight: 2, isGentle: true,
    run: ({ cluster, random, forMs, later }) => {
      const flag = random.pick(['no_recovery', 'no_rebalance']);
      cluster.changeGlobal({ [flag]: true });
      later(forMs, () => cluster.changeGlobal({ [flag]: false }));
      return `${flag} for ${forMs} ms`;
    },
  },
  {
    name: 'local reads', weight: 2, isGentle: true, applies: (cluster) => cluster.shape.scheme !== 'replicated' || cluster.shape.immediateCommit === 'all',
    run: ({ cluster, workload, random }) => {
      const mode = random.pick(['primary', 'nearest', 'random']);
      workload.allowLocalReads();
      cluster.changePool({ local_reads: mode });
      return `local_reads becomes ${mode}`;
    },
  },
];

/** Longer than it takes to give up a connection that does not answer. */
const LASTING_MS = 20_000;

/** Names of all faults, for the report. */
export const FAULT_NAMES: readonly string[] = [...FAULTS.map((fault) => fault.name), 'bit rot', 'misdirected write'];

/**
 * May the medium of one OSD decay while others fail? Only where every acknowledged write lies whole without that OSD too, and where the damage
 * is noticed. In an erasure-coded pool a write that reached k chunks only replaces what was acknowledged, and has none to spare until it is
 * recovered (docs/reliability.md): there only together with gentle faults, and not on full disks, where a write has no room on some OSDs.
 */
function mayDecay(shape: Shape): boolean {
  if (shape.scheme !== 'replicated' && (shape.isTight || shape.network.killChance)) return false;
  return shape.checksums && shape.autoScrubS !== null && shape.scrubFindsBest && shape.pgMinSize > dataChunks(shape);
}

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
  /** The one OSD whose medium decays while others fail; null: none. */
  readonly decaying: number | null;
  readonly #isGentle: boolean;
  readonly #pauseMs: readonly [number, number];
  #active = false;
  count = 0;
  /** Damages to media so far. */
  decays = 0;
  /** By name, for the report. */
  readonly counts: Record<string, number> = {};

  /** only: names of the faults that may be drawn; null: all. pauseMs: at least and at most between two. */
  constructor(cluster: SimCluster, workload: Workload, random: SeededRandom, only: ReadonlySet<string> | null, pauseMs: readonly [number, number] = [300, 5000]) {
    this.#pauseMs = pauseMs;
    this.#cluster = cluster;
    this.#workload = workload;
    this.#random = random;
    this.#only = only;
    const isCoded = cluster.shape.scheme !== 'replicated';
    const decays = only === null && mayDecay(cluster.shape) && (!isCoded || random.chance(50));
    this.decaying = decays ? random.between(1, cluster.osds.size) : null;
    this.#isGentle = decays && isCoded;
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
    cluster.world.spareConnections();
    cluster.changeGlobal({ no_recovery: false, no_rebalance: false });
    for (const num of cluster.osds.keys()) {
      cluster.world.setDisk(cluster.diskOf(num), { latencyNs: 20_000, jitterNs: 20_000 });
      cluster.configureOsd(num, {});
      cluster.etcdOf(num, true);
      cluster.stallOsd(num, false);
      cluster.startOsd(num);
    }
    for (let num = 1; num <= shape.monitors; num++) cluster.startMonitor(num);
    for (const client of cluster.clients) {
      client.etcdConnected = true;
      this.#workload.onlyReads(client, false);
      startClient(cluster, this.#workload, client.num);
    }
  }

  /** Damages data of one OSD, now. */
  decay(num: number): void {
    const kind = this.#random.pick(['bit rot', 'misdirected write'] as const);
    const offset = this.#cluster.world.damageDisk(this.#cluster.diskOf(num), kind);
    if (offset < 0) return;
    this.decays++;
    this.#did(kind, `${kind} on osd${num} at ${offset}`);
  }

  #did(name: string, text: string): void {
    this.count++;
    this.counts[name] = (this.counts[name] ?? 0) + 1;
    this.#cluster.note(`fault: ${text}`);
  }

  #schedule(): void {
    this.#cluster.clock.after(this.#random.between(...this.#pauseMs), () => {
      if (!this.#active) return;
      if (this.decaying !== null && this.#random.chance(15)) this.decay(this.decaying);
      else this.#one();
      this.#schedule();
    });
  }

  #one(): void {
    const cluster = this.#cluster;
    const random = this.#random;
    const isDrawn = (fault: Fault): boolean => (this.#only?.has(fault.name) ?? true) && (!this.#isGentle || fault.isGentle === true);
    const faults = FAULTS.filter((fault) => isDrawn(fault) && (fault.applies?.(cluster) ?? true));
    let draw = random.below(faults.reduce((sum, fault) => sum + fault.weight, 0));
    const fault = faults.find((candidate) => (draw -= candidate.weight) < 0);
    const num = random.between(1, cluster.osds.size);
    const forMs = random.chance(6) ? random.between(9000, LASTING_MS) : random.between(100, 9000);
    // What belongs to a fault that is still there when faults end must not come later.
    const later = (afterMs: number, work: () => void): void =>
      void cluster.clock.after(afterMs, () => {
        if (this.#active) work();
      });
    const text = fault?.run({ cluster, workload: this.#workload, random, num, forMs, later }) ?? null;
    if (fault && text !== null) this.#did(fault.name, text);
  }
}
