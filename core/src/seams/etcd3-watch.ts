// SPDX-License-Identifier: GPL-2.0-or-later
// One watch over one raw stream, supervised by ourselves: etcd is asked for progress, and a silent stream is given up.

import type { IWatchResponse } from 'etcd3';
import type { Cancel, Clock } from './clock.js';
import type { KeyRange, WatchEvent, WatchHandlers } from './etcd.js';
import { rangeEnd, type WatchStream } from './etcd3-member.js';

export interface SupervisedWatchOptions {
  clock: Clock;
  ranges: readonly KeyRange[];
  startRevision: bigint;
  handlers: WatchHandlers;
  /** A probe is sent this often; silence between two probes ends the watch. */
  keepaliveIntervalMs: number;
  /** Told once when it is over, whoever ended it; `healthy`: not the fault of the member. */
  onOver: (healthy: boolean) => void;
}

/**
 * Watch ids are 1 … n, one a range. Answers to our progress requests come with id -1 and prove that the stream lives,
 * nothing more: etcd 3.4
 * sends them at once, ahead of events that wait in the stream. Progress that etcd reports by itself carries the id of
 * its watcher and is in order.
 */
export class SupervisedWatch {
  readonly #options: SupervisedWatchOptions;
  /** Per range: everything up to here has been delivered. */
  readonly #delivered: bigint[];
  #stream: WatchStream | null = null;
  #timer: Cancel | null = null;
  #heard = false;
  #created = 0;
  #over = false;

  constructor(options: SupervisedWatchOptions) {
    this.#options = options;
    this.#delivered = options.ranges.map(() => options.startRevision - 1n);
  }

  /** Takes over a fresh stream. */
  run(stream: WatchStream): void {
    if (this.#over) {
      stopStream(stream);
      return;
    }
    this.#stream = stream;
    stream.on('data', (message) => this.#onMessage(message));
    stream.on('error', () => this.end('lost'));
    stream.on('end', () => this.end('lost'));
    this.#options.ranges.forEach((range, i) =>
      stream.write({
        create_request: {
          ...rangeEnd(range),
          start_revision: this.#options.startRevision.toString(),
          progress_notify: true,
          watch_id: i + 1,
        },
      }),
    );
    this.#superviseLater();
  }

  /** Ends it and tells the owner why. */
  end(reason: 'compacted' | 'cancelled' | 'lost'): void {
    if (this.#shut(reason !== 'lost')) this.#options.handlers.onEnd(reason);
  }

  /** Ends it silently. */
  close(): void {
    this.#shut(true);
  }

  #shut(healthy: boolean): boolean {
    if (this.#over) return false;
    this.#over = true;
    this.#timer?.();
    if (this.#stream) stopStream(this.#stream);
    this.#options.onOver(healthy);
    return true;
  }

  #superviseLater(): void {
    this.#timer = this.#options.clock.after(this.#options.keepaliveIntervalMs, () => {
      if (!this.#heard) {
        this.end('lost');
        return;
      }
      this.#heard = false;
      this.#stream?.write({ progress_request: {} });
      this.#superviseLater();
    });
  }

  #onMessage(message: IWatchResponse): void {
    if (this.#over) return;
    this.#heard = true;
    if (message.created) this.#created++;
    if (message.canceled) {
      this.end(BigInt(message.compact_revision || 0) > 0n ? 'compacted' : 'cancelled');
      return;
    }
    if (message.created || this.#created < this.#options.ranges.length) {
      // Before all ranges are watched nothing counts as progress, but events are events.
      if (!message.events.length) return;
    }
    const id = Number(message.watch_id);
    if (message.events.length) this.#onEvents(message, id);
    else this.#onProgress(BigInt(message.header.revision), id);
  }

  #onEvents(message: IWatchResponse, id: number): void {
    const events = message.events.map((event): WatchEvent => {
      const deleted = String(event.type).toLowerCase() === 'delete';
      return {
        type: deleted ? 'delete' : 'put', key: event.kv.key.toString(), value: deleted ? '' : event.kv.value.toString(),
        modRevision: BigInt(event.kv.mod_revision), lease: BigInt(event.kv.lease),
      };
    });
    const last = events.reduce((max, event) => (event.modRevision > max ? event.modRevision : max), 0n);
    this.#advance(last, id);
    this.#options.handlers.onEvents(events, this.#safeRevision());
  }

  #onProgress(revision: bigint, id: number): void {
    const before = this.#safeRevision();
    this.#advance(revision, id);
    if (this.#safeRevision() > before) this.#options.handlers.onEvents([], this.#safeRevision());
  }

  #advance(revision: bigint, id: number): void {
    this.#delivered.forEach((known, i) => {
      if (id === i + 1 && revision > known) this.#delivered[i] = revision;
    });
  }

  #safeRevision(): bigint {
    return this.#delivered.reduce((min, revision) => (revision < min ? revision : min));
  }
}

function stopStream(stream: WatchStream): void {
  stream.on('error', () => undefined); // Cancelling ends it with an error of its own.
  stream.cancel();
}
