// SPDX-License-Identifier: GPL-2.0-or-later

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import type { LinearProgram } from '../src/index.js';
import { WorkerSolver } from '../src/worker-solver.js';
import { solver as inline } from './support.js';

/** Three leaves of 1, 1 and 2, two members a set, 4 PGs. */
const program: LinearProgram = {
  cost: [1, 1, 1],
  columnUpper: [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, 3],
  rowUpper: [2, 2, 4],
  columnRows: [
    [0, 1],
    [0, 2],
    [1, 2],
  ],
};
const expected = [0, 2, 2];

const near = (values: readonly number[]): number[] =>
  values.map((value) => Math.round(value * 1e6) / 1e6 + 0);

describe('solver', () => {
  const worker = new WorkerSolver();
  after(() => worker.close());

  test('inline and on its thread: the same answer', async () => {
    assert.deepEqual(near(await inline.solve(program)), expected);
    const answers = await Promise.all([1, 2, 3].map(() => worker.solve(program)));
    for (const values of answers) assert.deepEqual(near(values), expected);
  });

  test('a program that cannot be solved is an error, and the next one is solved', async () => {
    const broken = { ...program, cost: [Number.NaN, 1, 1] };
    await assert.rejects(worker.solve(broken));
    const unbounded = { ...program, columnRows: [[], [0, 2], [1, 2]] };
    await assert.rejects(worker.solve(unbounded), /no optimum/);
    assert.deepEqual(near(await worker.solve(program)), expected);
  });

  test('a thread that was ended is replaced', async () => {
    // More than it can have answered before it hears of its end.
    const waiting = Array.from({ length: 2000 }, () => worker.solve(program));
    const last = waiting.pop() ?? worker.solve(program);
    await Promise.all([assert.rejects(last, /ended with code/), Promise.allSettled(waiting), worker.close()]);
    assert.deepEqual(near(await worker.solve(program)), expected);
  });
});
