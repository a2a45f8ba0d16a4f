// SPDX-License-Identifier: GPL-2.0-or-later
// Faults that are built in on purpose: one for each safety rule that the simulator must be able to see broken. They exist only here and
// behind serve::Osd::plant(), which no configuration reaches.

import type { CreateEngine } from '@vitastor/osd';
import type { Planted } from './cluster.js';
import { DENSE, DISK_BYTES, type Shape } from './shape.js';

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
const NO_TOMBSTONE = 4;
const BELOW_UNSTABLE = 8;

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

const ROOMY = { isTight: false, hasParent: false, osdOptions: {}, clientOptions: {} };
const diskOf = ({ disk }: Shape, volatileCache: boolean): Shape['disk'] => {
  const { sectorBytes: _, ...others } = disk;
  return { ...others, sizeBytes: DISK_BYTES, volatileCache };
};
const LAZY = (shape: Shape): Shape => ({ ...shape, ...ROOMY, immediateCommit: 'none', localReads: 'primary', pgLocks: false, disk: diskOf(shape, true) });
const MIRROR = (shape: Shape): Shape => ({
  ...shape, ...ROOMY, scheme: 'replicated', parityChunks: 0, pgSize: 2, pgMinSize: 1, osds: 3, hosts: 3, immediateCommit: 'all', localReads: 'primary',
  pgLocks: false, disk: diskOf(shape, false),
});
/** Several clients that work on few objects, so that each meets what the others did. */
const BUSY = (shape: Shape): Shape => {
  const mirror = MIRROR(shape);
  return { ...mirror, clients: 3, depth: 4, imageBytes: 8 * mirror.blockSize, pgCount: 4 };
};
/** Copies are compared all the time, and nothing else would tell them apart. */
const COMPARED = (shape: Shape): Shape => {
  const busy = BUSY({ ...shape, blockSize: 131072 });
  return { ...busy, pgSize: 3, depth: 8, operationsPerMinute: DENSE, checksums: false, autoScrubS: 1, scrubFindsBest: false };
};
const DELETING = (shape: Shape): Shape => ({ ...BUSY(shape), discardPercent: 40, removes: true });
/** Small reads go to the holders of chunks. */
const CHUNKS = (shape: Shape): Shape => {
  const busy = BUSY({ ...shape, blockSize: 32768 });
  return { ...busy, scheme: 'ec', parityChunks: 1, pgSize: 3, pgMinSize: 2, localReads: 'nearest', imageBytes: 4 * 65536, depth: 8 };
};

export const PLANTED: readonly PlantedFault[] = [
  {
    name: 'acknowledge before durable', seeds: 20, shape: LAZY, options: { disable_data_fsync: '1', disable_meta_fsync: '1' },
    faults: ['power cut', 'power cut of all', 'client killed'],
  },
  { name: 'skip the epoch', seeds: 20, shape: MIRROR, wrapEngine: confirmAtOnce, faults: ['kill', 'power cut', 'partition', 'isolated OSD', 'etcd lost'] },
  { name: 'no list fence', seeds: 20, shape: COMPARED, native: NO_LIST_FENCE, pauseMs: [5000, 9000], faults: ['late bytes to a deaf OSD'] },
  { name: 'trust a stale list', seeds: 20, shape: MIRROR, native: STALE_LIST, faults: ['isolated OSD', 'partition', 'etcd lost', 'lease revoked', 'kill'] },
  { name: 'delete chunks without a tombstone', seeds: 20, shape: DELETING, native: NO_TOMBSTONE, faults: ['blind client', 'kill'] },
  { name: 'read below an unstable version', seeds: 20, shape: CHUNKS, native: BELOW_UNSTABLE, faults: ['kill', 'delay'] },
  { name: 'lease checked only in JavaScript', seeds: 20, shape: BUSY, wrapEngine: leaseInControl, faults: ['forgotten OSD'] },
];

export function plantedFault(name: string): PlantedFault {
  const found = PLANTED.find((fault) => fault.name === name);
  if (!found) throw new Error(`there is no planted fault "${name}"`);
  return found;
}

/** The same cluster without the fault: what caught it must not complain of this. */
export function withoutFault(fault: PlantedFault): Planted {
  return { ...(fault.shape ? { shape: fault.shape } : {}), ...(fault.pauseMs ? { pauseMs: fault.pauseMs } : {}) };
}
