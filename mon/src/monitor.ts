// SPDX-License-Identifier: GPL-2.0-or-later
// The monitor: instances one after another, each thrown away when something fatal happens to it.

import { errorText, type Cancel, type ClusterView } from '@vitastor/core';
import { MonitorInstance, type MonitorDeps, type Role } from './instance.js';

/** Pause after an instance that failed, so that a lasting fault does not spin. */
const RESTART_PAUSE_MS = 1000;

export class Monitor {
  readonly #deps: MonitorDeps;
  #instance: MonitorInstance | null = null;
  #loop: Promise<void> | null = null;
  #pause: { timer: Cancel; wake: () => void } | null = null;
  #stopped = false;

  constructor(deps: MonitorDeps) {
    this.#deps = deps;
  }

  get role(): Role {
    return this.#instance?.role ?? 'starting';
  }

  get id(): string {
    return this.#instance?.id ?? '';
  }

  /** The cluster as the master sees it; null: not master. Read only. */
  get view(): ClusterView | null {
    return this.#instance?.view ?? null;
  }

  /** Starts the work; returns at once. */
  start(): void {
    this.#loop ??= this.#run();
  }

  /**
   * Resolves when nothing runs any more and the lease has been given back (or etcd did not answer
   * in time).
   */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#instance?.stop();
    this.#pause?.timer();
    this.#pause?.wake();
    await this.#loop;
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      this.#instance = new MonitorInstance(this.#deps);
      try {
        await this.#instance.run();
      } catch (error) {
        if (this.#stopped) break;
        this.#deps.log.error(`${errorText(error)}; starting anew`);
        await new Promise<void>((resolve) => {
          this.#pause = { timer: this.#deps.clock.after(RESTART_PAUSE_MS, resolve), wake: resolve };
        });
      }
    }
    this.#instance = null;
  }
}
