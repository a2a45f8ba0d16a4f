// SPDX-License-Identifier: GPL-2.0-or-later
// From parameters (command line > etcd > file) to what control and the engine need.

import type { Command } from './engine.js';
import type { LeaseTiming } from './lease.js';
import type { OsdIdentity } from './statistics.js';

export interface OsdOptions {
  identity: OsdIdentity;
  configure: Omit<Extract<Command, { kind: 'configure' }>, 'kind'>;
  lease: LeaseTiming;
  inodeVanishMs: number;
  statsIntervalMs: number;
  etcdQuickTimeoutMs: number;
  etcdSlowTimeoutMs: number;
}
