// SPDX-License-Identifier: GPL-2.0-or-later
// Keepalives of leases over one stream that stays open: one message there, one back, every second, for years.

import type { IDuplexStream, ILeaseKeepAliveRequest, ILeaseKeepAliveResponse } from 'etcd3';
import { VitastorError } from '../errors.js';

export type KeepaliveWire = IDuplexStream<ILeaseKeepAliveRequest, ILeaseKeepAliveResponse>;

interface Question {
  lease: string;
  resolve: (ttlSeconds: number) => void;
  reject: (error: unknown) => void;
}

/** Dead after its first error: the owner opens another one. */
export class KeepaliveStream {
  readonly #wire: KeepaliveWire;
  /**
   * etcd answers in the order of the questions. A late answer is that of its own question, whoever still waits for it:
   * taken for the answer
   * to the next one, it would date the lease later than it is (safety.md 1).
   */
  readonly #asked: Question[] = [];
  #dead = false;

  constructor(wire: KeepaliveWire) {
    this.#wire = wire;
    wire.on('data', (reply) => {
      const question = this.#asked.shift();
      if (question?.lease === String(reply.ID)) question.resolve(Math.max(0, Number(reply.TTL)));
      else this.#end(lost('etcd answered for another lease'), question);
    });
    wire.on('error', (error) => this.#end(error));
    wire.on('end', () => this.#end(lost('the stream of keepalives ended without an answer')));
  }

  get dead(): boolean {
    return this.#dead;
  }

  /**
   * Seconds that the lease has left, 0: unknown to etcd. Rejects when the stream breaks; the deadline is the caller's.
   */
  ask(lease: bigint): Promise<number> {
    if (this.#dead) return Promise.reject(lost('the connection to etcd was closed'));
    return new Promise((resolve, reject) => {
      this.#asked.push({ lease: lease.toString(), resolve, reject });
      this.#wire.write({ ID: lease.toString() });
    });
  }

  close(): void {
    this.#end(lost('the connection to etcd was closed'));
  }

  #end(error: unknown, first?: Question): void {
    if (this.#dead) return;
    this.#dead = true;
    // Ended before it is cancelled: cancelled alone, it would take etcd3's connections of all services with it.
    this.#wire.end();
    this.#wire.cancel();
    first?.reject(error);
    for (const question of this.#asked.splice(0)) question.reject(error);
  }
}

function lost(text: string): VitastorError {
  return new VitastorError('ERR_ETCD_UNAVAILABLE', text, { retryable: true });
}
