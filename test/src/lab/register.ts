// SPDX-License-Identifier: GPL-2.0-or-later
// One block of an image, written by one client and read by several wherever they are: every read must give the newest value whose write had
// been acknowledged before the read began, or one whose write was under way. Stale primaries, late writes and lost ones break that.

import assert from 'node:assert/strict';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Child } from './child.js';
import type { Lab } from './lab.js';

const PROGRAM = join(dirname(fileURLToPath(import.meta.url)), 'register-main.js');

interface Read {
  who: string;
  value: bigint;
  beginNs: bigint;
  endNs: bigint;
}

export interface RegisterFigures {
  writes: number;
  reads: Map<string, number>;
  /** Longest time from one acknowledged write to the next. */
  pauseMs: number;
}

export class Register {
  readonly #lab: Lab;
  readonly #image: string;
  readonly #offset: number;
  readonly #children: Child[] = [];
  readonly #begun = new Map<bigint, bigint>();
  readonly #ended: { value: bigint; ns: bigint }[] = [];
  readonly #reads: Read[] = [];
  readonly #torn: string[] = [];

  /** offset: in bytes, a multiple of 4096. One writer and any number of readers belong to it. */
  constructor(lab: Lab, image: string, offset: number) {
    this.#lab = lab;
    this.#image = image;
    this.#offset = offset;
  }

  /** who: for messages. under: words before the command line. Resolves when the image is open. */
  async start(who: string, role: 'write' | 'read', under: readonly string[] = []): Promise<void> {
    const child = new Child({
      name: `register ${who}`,
      argv: [...under, process.execPath, PROGRAM, this.#lab.configPath, this.#lab.programs.buildDir, this.#image, String(this.#offset), role],
      logFile: join(this.#lab.dir, 'log', `register-${who}.log`),
      onLine: (line) => this.#take(who, line),
      env: { ...process.env, VITASTOR_BUILD_DIR: this.#lab.programs.buildDir },
    });
    this.#children.push(child);
    await child.waitForLine(/^open$/, 60_000);
  }

  #take(who: string, line: string): void {
    const [word, first = '0', second = '0', third = '0'] = line.split(' ');
    if (word === 'begin') this.#begun.set(BigInt(first), BigInt(second));
    else if (word === 'end') this.#ended.push({ value: BigInt(first), ns: BigInt(second) });
    else if (word === 'read') this.#reads.push({ who, value: BigInt(first), beginNs: BigInt(second), endNs: BigInt(third) });
    else if (word === 'torn') this.#torn.push(`${who} has read ${first} and ${second} in one block`);
  }

  get writes(): number {
    return this.#ended.length;
  }

  get reads(): number {
    return this.#reads.length;
  }

  /** Ends the clients; those whose operation hangs after a moment too. */
  async stop(): Promise<void> {
    await Promise.all(this.#children.map((child) => child.stop(3000)));
  }

  /**
   * Throws at the first read that nothing explains. A read also sees what an earlier read has seen, unless `onlyAcknowledged`: with local
   * reads a write under way is there on one copy and not yet on another, and in modes small and none a value may be read before it is durable,
   * and be lost with its OSD.
   */
  check(options: { onlyAcknowledged?: boolean } = {}): RegisterFigures {
    assert.deepEqual(this.#torn, []);
    const known = this.#ended.map(({ value, ns }) => ({ value, ns, how: 'acknowledged' }));
    if (options.onlyAcknowledged !== true) known.push(...this.#reads.map(({ who, value, endNs }) => ({ value, ns: endNs, how: `read by ${who}` })));
    known.sort((a, b) => (a.ns < b.ns ? -1 : a.ns > b.ns ? 1 : 0));
    known.forEach((event, i) => {
      const before = known[i - 1];
      if (before && before.value > event.value) Object.assign(event, { value: before.value, how: before.how });
    });
    const counts = new Map<string, number>();
    for (const { who, value, beginNs, endNs } of this.#reads) {
      counts.set(who, (counts.get(who) ?? 0) + 1);
      let low = 0;
      let high = known.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if ((known[middle]?.ns ?? 0n) < beginNs) low = middle + 1;
        else high = middle;
      }
      const newest = known[low - 1];
      assert.ok(!newest || value >= newest.value,
        `${who} has read ${value}; ${newest?.value} had been ${newest?.how} ${(beginNs - (newest?.ns ?? 0n)) / 1000n} µs or more before that read began`);
      const begun = value === 0n ? 0n : this.#begun.get(value);
      assert.ok(begun !== undefined && begun <= endNs, `${who} has read ${value}, which nobody had begun to write`);
    }
    let pauseNs = 0n;
    this.#ended.forEach(({ ns }, i) => {
      const before = this.#ended[i - 1];
      if (before && ns - before.ns > pauseNs) pauseNs = ns - before.ns;
    });
    return { writes: this.#ended.length, reads: counts, pauseMs: Number(pauseNs / 1_000_000n) };
  }
}
