// SPDX-License-Identifier: GPL-2.0-or-later
// The seam to the linear solver: HiGHS in life; a simulation may charge virtual time around it.

/** maximise cost·x subject to A·x ≤ rowUpper and 0 ≤ x ≤ columnUpper. */
export interface LinearProgram {
  cost: readonly number[];
  /** Infinity: none. */
  columnUpper: readonly number[];
  rowUpper: readonly number[];
  /** For each column the rows in which it has the coefficient 1, ascending. */
  columnRows: readonly (readonly number[])[];
}

export interface Solver {
  /**
   * One value a column. Rejects if there is no optimum: for the programs of placement that is our
   * bug, x = 0 is always allowed.
   */
  solve(program: LinearProgram): Promise<number[]>;
}
