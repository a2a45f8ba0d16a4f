// SPDX-License-Identifier: GPL-2.0-or-later
// Wires the supervisor to the machine: starts this very program again without --supervise, with a channel of its own.

import { SystemClock } from '@vitastor/core/light';
import { fork } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { revokeLease } from './revoke.js';
import { Supervisor, type FromOsd, type LeaseRecord, type StartOsd, type SuperviseMode } from './supervisor.js';

const clock = new SystemClock();
const REVOKE_TIMEOUT_MS = 1000;
const FILTER = '/proc/self/coredump_filter';
/** What the kernel sets by itself. An administrator's own choice is left alone. */
const DEFAULT_FILTER = 0x33;
/** Headers only: no gigabytes of buffers and index are written while the cluster waits for the end of the process. */
const SMALL_FILTER = '0x10';

/** What comes through the channel is our own program's, but of any version: anything odd is no lease. */
function recordOf(message: unknown): FromOsd | undefined {
  if (message === null) return null;
  const record = message as Partial<LeaseRecord>;
  const good = typeof record === 'object' && typeof record.lease === 'string' && /^[1-9]\d*$/.test(record.lease)
    && typeof record.ttlSeconds === 'number' && Array.isArray(record.etcd?.addresses);
  return good ? (record as LeaseRecord) : undefined;
}

/** Inherited by the OSD. Without it a core dump of a large process holds its lease, its lock and its sockets for long. */
function keepCoresSmall(): void {
  try {
    if (Number.parseInt(readFileSync(FILTER, 'utf8'), 16) === DEFAULT_FILTER) writeFileSync(FILTER, SMALL_FILTER);
  } catch {
    // No such file: a kernel without core dumps.
  }
}

function log(level: 'error' | 'warning' | 'info', text: string): void {
  const line = `${new Date(clock.wallMs()).toISOString()} ${level} supervisor: ${text}\n`;
  (level === 'info' ? process.stdout : process.stderr).write(line);
}

/** Ends this process. */
export async function runSupervisor(mode: SuperviseMode, words: readonly string[]): Promise<never> {
  keepCoresSmall();
  const start: StartOsd = (onMessage) => {
    const child = fork(process.argv[1] ?? '', [...words], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    child.on('message', (message) => {
      const record = recordOf(message);
      if (record !== undefined) onMessage(record);
    });
    child.on('error', (error) => log('error', error.message));
    return {
      pid: child.pid ?? 0,
      // 'close', not 'exit': by then the channel has been read to its end as well. The turn in between lets the last
      // message be delivered.
      ended: new Promise((resolve) => {
        child.on('close', (code, signal) => clock.after(0, () => resolve({ code, signal })));
      }),
      askToStop: () => {
        if (child.connected) child.send('stop', () => undefined);
        else child.kill('SIGTERM');
      },
      kill: () => void child.kill('SIGKILL'),
    };
  };
  const supervisor = new Supervisor({
    mode, clock, start, log, revoke: (record) => revokeLease(record, REVOKE_TIMEOUT_MS),
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => supervisor.stop());
  process.exit(await supervisor.run());
}
