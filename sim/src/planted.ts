// SPDX-License-Identifier: GPL-2.0-or-later
// Faults that are built in on purpose: one for each safety rule that the simulator must be able to see broken. They exist only here and
// behind serve::Osd::plant(), which no configuration reaches.

import type { CreateEngine } from '@vitastor/osd';
import type { Planted } from './cluster.js';
import type { Shape } from './shape.js';

export interface PlantedFault extends Planted {
  name: string;
  /** Faults that make it show soon. */
  faults: readonly string[];
  /** It must be caught within so many seeds. */
  seeds: number;
}

/** Bits of SimWorld.plant(), osd/native/serve/planted.hpp. */
const NO_LIST_FENCE = 1;
const STALE_LIST = 2;

const HOUR_NS = 3_600_000_000_000n;

/** Every epoch is confirmed at once, without etcd having seen it. */
function confirmAtOnce(create: CreateEngine): CreateEngine {
  return (onEvents) => {
    const engine = create((events) => {
      for (const event of events) {
        if (event.kind === 'historyWanted') engine.post({ kind: 'confirmHistory', pg: event.pg, interval: event.interval, epoch: event.epoch });
      }
      const others = events.filter((event) => event.kind !== 'historyWanted');
      if (others.length > 0) onEvents(others);
    });
    return engine;
  };
}

/** The engine believes in a lease that hardly ends; only control takes it away. */
function leaseInControl(create: CreateEngine): CreateEngine {
  return (onEvents) => {
    const engine = create(onEvents);
    return {
      bootTimeNs: () => engine.bootTimeNs(),
      post: (command) =>
        engine.post(command.kind === 'leaseUntil' && command.deadlineNs !== 0n ? { ...command, deadlineNs: command.deadlineNs + HOUR_NS } : command),
    };
  };
}

const LAZY = (shape: Shape): Shape => ({ ...shape, immediateCommit: 'none', localReads: 'primary', pgLocks: false, disk: { ...shape.disk, volatileCache: true } });
const MIRROR = (shape: Shape): Shape => ({
  ...shape, scheme: 'replicated', parityChunks: 0, pgSize: 2, pgMinSize: 1, osds: 3, hosts: 3, immediateCommit: 'all', localReads: 'primary', pgLocks: false,
  disk: { ...shape.disk, volatileCache: false },
});

export const PLANTED: readonly PlantedFault[] = [
  {
    name: 'acknowledge before durable', seeds: 10, shape: LAZY, options: { disable_data_fsync: '1', disable_meta_fsync: '1' },
    faults: ['power cut', 'power cut of all', 'client killed'],
  },
  { name: 'skip the epoch', seeds: 20, shape: MIRROR, wrapEngine: confirmAtOnce, faults: ['kill', 'power cut', 'partition', 'isolated OSD', 'etcd lost'] },
  {
    name: 'lease checked only in JavaScript', seeds: 80, shape: MIRROR, wrapEngine: leaseInControl,
    faults: ['stalled control', 'isolated OSD'],
  },
  {
    name: 'no list fence', seeds: 60, shape: MIRROR, native: NO_LIST_FENCE,
    faults: ['late bytes', 'client killed', 'kill'],
  },
  { name: 'trust a stale list', seeds: 20, shape: MIRROR, native: STALE_LIST, faults: ['isolated OSD', 'partition', 'etcd lost', 'lease revoked', 'kill'] },
];

export function plantedFault(name: string): PlantedFault {
  const found = PLANTED.find((fault) => fault.name === name);
  if (!found) throw new Error(`there is no planted fault "${name}"`);
  return found;
}

/** The same cluster without the fault: what caught it must not complain of this. */
export function withoutFault(fault: PlantedFault): Planted {
  return fault.shape ? { shape: fault.shape } : {};
}
