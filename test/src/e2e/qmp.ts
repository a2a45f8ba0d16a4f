// SPDX-License-Identifier: GPL-2.0-or-later
// QEMU's monitor protocol: one command at a time over a Unix socket.

import { existsSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { until } from '../lab/index.js';

type Json = Record<string, unknown>;

export class Qmp {
  readonly #socket: Socket;
  #waiting: { resolve(value: unknown): void; reject(error: Error): void; what: string } | null = null;

  #gone: Error | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
    createInterface({ input: socket }).on('line', (line) => this.#onLine(JSON.parse(line) as Json));
    const gone = (): void => this.#end(new Error(`QEMU has closed its monitor`));
    socket.on('close', gone);
    socket.on('error', gone);
  }

  /** Waits until QEMU listens at `path`. Throws when `hopeless` gives a reason. */
  static async connect(path: string, hopeless: () => string | undefined): Promise<Qmp> {
    // The socket is there before anyone listens.
    const socket = await until(`QEMU listens at ${path}`, async () => (existsSync(path) ? await dial(path) : undefined), {
      timeoutMs: 60_000, everyMs: 20, hopeless,
    });
    const qmp = new Qmp(socket);
    await qmp.run('qmp_capabilities');
    return qmp;
  }

  /** Gives what the command returns; an error that QEMU answers is thrown. */
  async run(execute: string, given: Json = {}): Promise<unknown> {
    if (this.#gone) throw this.#gone;
    if (this.#waiting) throw new Error(`QEMU is asked for ${execute} while it has not answered ${this.#waiting.what}`);
    return await new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject, what: execute };
      this.#socket.write(`${JSON.stringify({ execute, arguments: given })}\n`);
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #onLine(message: Json): void {
    const waiting = this.#waiting;
    if (!waiting || (!('return' in message) && !('error' in message))) return; // the greeting, events
    this.#waiting = null;
    if ('return' in message) waiting.resolve(message['return']);
    else waiting.reject(new Error(`${waiting.what}: ${JSON.stringify(message['error'])}`));
  }

  #end(error: Error): void {
    this.#gone = error;
    this.#waiting?.reject(error);
    this.#waiting = null;
  }
}

async function dial(path: string): Promise<Socket | undefined> {
  return await new Promise((resolve) => {
    const socket = createConnection(path);
    socket.once('connect', () => resolve(socket));
    socket.once('error', () => resolve(undefined));
  });
}

/**
 * The machine behind `from` goes on in the QEMU that listens at `uri`. Gives what QEMU says about it: `downtime` (ms), `ram`.
 * QEMU's own words when it refuses or fails.
 */
export async function migrate(from: Qmp, uri: string): Promise<Json> {
  await from.run('migrate', { uri });
  return await until('the machine has moved', async () => {
    const state = (await from.run('query-migrate')) as Json;
    if (state['status'] === 'failed' || state['status'] === 'cancelled') throw new Error(`the migration failed: ${JSON.stringify(state)}`);
    return state['status'] === 'completed' ? state : undefined;
  }, { timeoutMs: 120_000, everyMs: 50 });
}
