// SPDX-License-Identifier: GPL-2.0-or-later
// What a run of vitastor-cli stands on; tests put in etcd in memory, a fake for data operations, and collect the
// output.

import type { Clock, Config, Etcd, EtcdTarget, OpenDataOps, OpenOsdAdmin } from '@vitastor/core';

export interface Environment {
  clock: Clock;
  openEtcd(target: EtcdTarget, config: Config): Etcd;
  openDataOps: OpenDataOps;
  openOsdAdmin: OpenOsdAdmin;
  /** All of it; asked for only by commands that take objects from there. */
  readStdin(): Promise<string>;
  stdout(text: string): void;
  stderr(text: string): void;
  /** Where colours and carriage returns make sense. */
  stdoutIsTerminal: boolean;
  /** Width of the terminal in characters; absent where there is none. Asked for each table. */
  stdoutColumns?(): number | undefined;
  stderrIsTerminal: boolean;
  /** Ctrl-C. */
  signal: AbortSignal;
}
