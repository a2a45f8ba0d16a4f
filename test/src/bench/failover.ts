// SPDX-License-Identifier: GPL-2.0-or-later
// How long a client at depth 1 waits when an OSD of its PG dies, goes silent or is stopped. Targets: issue 4; Vitastor 3.0.8 needs 12.5 s
// for the first two.

import { loadavg } from 'node:os';
import { pauseOf, startFailoverCluster, type Pause, type Role, type Way } from '../failover.js';
import type { Lab } from '../lab/index.js';
import { median, type Benchmark, type Figure } from './figures.js';

/** etcd grants 5 s. */
const LEASE_MS = 5000;

interface Case {
  way: Way;
  target: number;
  afterMs: number;
}

const CASES: readonly Case[] = [
  { way: 'kill', target: 1000, afterMs: 2500 },
  { way: 'stop', target: 200, afterMs: 2000 },
  { way: 'silence', target: LEASE_MS + 1000, afterMs: 8000 },
];

/** When each change was first seen, in the round whose pause is nearest to the median. */
function story(pauses: readonly Pause[], middle: number): string {
  const typical = [...pauses].sort((a, b) => Math.abs(a.ms - middle) - Math.abs(b.ms - middle))[0];
  return (typical?.changes ?? []).slice(0, 10).map(({ what, ms }) => `${what} ${ms.toFixed(0)}`).join(' → ');
}

export function failoverBenchmark(withLab: <T>(options: { supervise: true }, run: (lab: Lab) => Promise<T>) => Promise<T>): Benchmark {
  return {
    name: 'failover',
    summary: 'longest pause of a client at depth 1 when an OSD is killed, stopped or frozen',
    run: (context) => withLab({ supervise: true }, async (lab) => {
      const rounds = context.repeats > 1 ? 10 : 3;
      context.progress('starting a cluster in RAM');
      await startFailoverCluster(lab);
      const figures: Figure[] = [];
      for (const { way, target, afterMs } of CASES) {
        if (rounds < 10 && way !== 'kill') continue;
        for (const role of ['primary', 'secondary'] as readonly Role[]) {
          const pauses: Pause[] = [];
          for (let i = 0; i < rounds; i++) {
            const pause = await pauseOf(lab, way, role, { afterMs });
            context.progress(`${way} ${role} ${i + 1} of ${rounds}: ${pause.ms.toFixed(0)} ms; ${story([pause], pause.ms)}`);
            pauses.push(pause);
          }
          const all = pauses.map((pause) => pause.ms);
          const middle = median(all);
          figures.push({
            name: `failover.${way}.${role}`, value: middle, unit: 'ms', target: { atMost: target },
            detail: {
              'least and most': `${Math.min(...all).toFixed(0)} to ${Math.max(...all).toFixed(0)} ms of ${rounds}`, 'a typical one (ms)': story(pauses, middle),
              load: (loadavg()[0] ?? 0).toFixed(1),
            },
          });
        }
      }
      return figures;
    }),
  };
}
