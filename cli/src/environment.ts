// SPDX-License-Identifier: GPL-2.0-or-later
// What a run of vitastor-cli stands on; tests put in etcd in memory, a fake for data operations, and collect the
// output.

import type { Clock, Config, Etcd, EtcdTarget, OpenDataOps, OpenImageClient, OpenOsdAdmin } from '@vitastor/core';

export interface Environment {
  clock: Clock;
  openEtcd(target: EtcdTarget, config: Config): Etcd;
  openDataOps: OpenDataOps;
  openOsdAdmin: OpenOsdAdmin;
  openImageClient: OpenImageClient;
  /** All of it; asked for only by commands that take objects from there. */
  readStdin(): Promise<string>;
  /** The same as a stream of bytes; destroy() ends a read that waits. */
  stdin(): AsyncIterable<Buffer> & { destroy(): void };
  stdout(text: string): void;
  /** Bytes that are more than a screen: resolves when they have been taken. Rejects when nobody takes them. */
  writeStdout(data: Buffer | string): Promise<void>;
  stderr(text: string): void;
  /** Where colours and carriage returns make sense. */
  stdoutIsTerminal: boolean;
  /** Width of the terminal in characters; absent where there is none. Asked for each table. */
  stdoutColumns?(): number | undefined;
  stderrIsTerminal: boolean;
  /** Ctrl-C. */
  signal: AbortSignal;
}
