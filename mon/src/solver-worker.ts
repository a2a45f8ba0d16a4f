// SPDX-License-Identifier: GPL-2.0-or-later
// The thread behind WorkerSolver: one request, one answer, in order.

import { parentPort } from 'node:worker_threads';
import { errorText } from '@vitastor/core';
import { HighsSolver } from './highs-solver.js';
import type { SolverReply, SolverRequest } from './worker-solver.js';

const solver = await HighsSolver.load();

parentPort?.on('message', ({ id, program }: SolverRequest) => {
  solver.solve(program).then(
    (values) => reply({ id, values }),
    (error: unknown) => reply({ id, error: errorText(error) }),
  );
});

function reply(message: SolverReply): void {
  parentPort?.postMessage(message);
}
