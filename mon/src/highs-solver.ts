// SPDX-License-Identifier: GPL-2.0-or-later
// Solver over HiGHS (WebAssembly), in process. One instance a process; each solve has its own model
// and frees it.

import * as highsModule from 'highs';
import type { Highs } from 'highs';
import type { LinearProgram, Solver } from './placement/solver.js';

/** Far beyond any program of placement; without it a bug of ours would hang for ever. */
const TIME_LIMIT_S = 120;

type Load = (typeof highsModule)['default']['default'];

/**
 * The package's types describe its CommonJS form; its ES module exports the loader itself as
 * default.
 */
function loader(): Load {
  const exported: unknown = highsModule.default;
  return (typeof exported === 'function' ? exported : highsModule.default.default) as Load;
}

/**
 * Made by load(). solve() blocks its thread: 3 OSDs under 5 ms, 300 OSDs with 10,000 candidates
 * below a second.
 */
export class HighsSolver implements Solver {
  readonly #highs: Highs;

  private constructor(highs: Highs) {
    this.#highs = highs;
  }

  /**
   * Compiles the module: some 50 ms. Afterwards solving takes no turn of the event loop, which
   * simulations rely on.
   */
  static async load(): Promise<HighsSolver> {
    return new HighsSolver(await loader()());
  }

  async solve(program: LinearProgram): Promise<number[]> {
    return this.#solve(program);
  }

  #solve(program: LinearProgram): number[] {
    const highs = this.#highs;
    const rows = program.rowUpper.length;
    const columns = program.cost.length;
    const starts = new Int32Array(columns + 1);
    const indices: number[] = [];
    program.columnRows.forEach((list, column) => {
      indices.push(...list);
      starts[column + 1] = indices.length;
    });
    return highs.withModel(
      {
        numCols: columns,
        numRows: rows,
        sense: highs.constants.objectiveSense.maximize,
        colCost: [...program.cost],
        colLower: new Float64Array(columns),
        colUpper: program.columnUpper.map((upper) =>
          Number.isFinite(upper) ? upper : highs.infinity,
        ),
        rowLower: new Float64Array(rows).fill(-highs.infinity),
        rowUpper: [...program.rowUpper],
        matrix: {
          format: 'csc',
          numRows: rows,
          numCols: columns,
          starts,
          indices: Int32Array.from(indices),
          values: new Float64Array(indices.length).fill(1),
        },
      },
      (model) => {
        model.options.set({
          output_flag: false,
          solver: 'ipm',
          random_seed: 0,
          time_limit: TIME_LIMIT_S,
        });
        model.run();
        if (model.getModelStatus() !== highs.constants.modelStatus.optimal) {
          throw new Error(
            `placement program (${columns} columns, ${rows} rows) has no optimum: HiGHS status ${model.getModelStatus()}`,
          );
        }
        return Array.from(model.getSolution().colValue);
      },
    );
  }
}
