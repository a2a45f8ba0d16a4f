// SPDX-License-Identifier: GPL-2.0-or-later
// The small parent process of an OSD: it starts the OSD, reaps it, and revokes the lease of one that died by itself, so
// that others need not wait until the lease runs out (safety.md 3, docs/adr/0047-supervisor.md).
//
// Only a lease that this very start has told of through its own channel is ever revoked, and only after the process was
// reaped and everything it wrote into the channel was read. The disk needs nothing from us: its lock belongs to the
// dead process's open files and goes when the last write that the kernel still carries out has ended.

import { errorText, type Clock } from '@vitastor/core/light';

/** What an OSD tells its supervisor as soon as etcd has granted a lease, before anything hangs on it. */
export interface LeaseRecord {
  /** Decimal. */
  lease: string;
  ttlSeconds: number;
  etcd: EtcdAccess;
}

/** Addresses as configured; paths of PEM files, '' = not given. */
export interface EtcdAccess {
  addresses: string[];
  tls: { ca: string; cert: string; key: string };
}

/** What the OSD tells: a lease, or null when it has given its lease back. */
export type FromOsd = LeaseRecord | null;

export interface ProcessEnd {
  code: number | null;
  signal: string | null;
}

/** One start of the OSD. */
export interface StartedOsd {
  pid: number;
  /** Settles after the process was reaped and every message of it was delivered. */
  ended: Promise<ProcessEnd>;
  /** Asks it to stop in order. */
  askToStop(): void;
  kill(): void;
}

export type StartOsd = (onMessage: (message: FromOsd) => void) => StartedOsd;

/** revoke: the supervisor ends with the OSD, and whoever started it starts it again (systemd). restart: it does so. */
export type SuperviseMode = 'revoke' | 'restart';

export interface SupervisorDeps {
  mode: SuperviseMode;
  clock: Clock;
  start: StartOsd;
  /** One attempt; rejects when no member of etcd has confirmed it. A lease that is gone counts as revoked. */
  revoke: (record: LeaseRecord) => Promise<void>;
  log: (level: 'error' | 'warning' | 'info', text: string) => void;
}

const REVOKE_PAUSE_MS = 100;
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 10_000;
/** A run of this length proves that starting works: the next pause is the first one again. */
const GOOD_RUN_MS = 60_000;

export class Supervisor {
  readonly #deps: SupervisorDeps;
  #osd: StartedOsd | null = null;
  #stopping = false;
  #wake: (() => void) | null = null;

  constructor(deps: SupervisorDeps) {
    this.#deps = deps;
  }

  /** Runs until stop(), in mode 'revoke' until the OSD ends. Resolves to the exit code for this process. */
  async run(): Promise<number> {
    const { clock, log, mode } = this.#deps;
    let pauseMs = FIRST_PAUSE_MS;
    for (;;) {
      const startedMs = clock.nowMs();
      const { end, revoked } = await this.#runOnce();
      const how = end.signal === null ? `ended with exit code ${end.code ?? 1}` : `was ended by ${end.signal}`;
      if (this.#stopping || mode === 'revoke') {
        if (!this.#stopping && end.code !== 0) log('error', `the OSD ${how}`);
        await revoked;
        return end.code ?? 128 + 9;
      }
      if (clock.nowMs() - startedMs >= GOOD_RUN_MS) pauseMs = FIRST_PAUSE_MS;
      log('error', `the OSD ${how}; it is started again in ${pauseMs} ms`);
      await this.#pause(pauseMs);
      pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
      if (this.#stopping) {
        await revoked;
        return end.code ?? 128 + 9;
      }
    }
  }

  /** The OSD is asked to stop in order. Twice: it is killed. */
  stop(): void {
    if (this.#stopping) this.#osd?.kill();
    else this.#osd?.askToStop();
    this.#stopping = true;
    this.#wake?.();
  }

  /** revoked: settles when the lease is gone, whoever ended it. */
  async #runOnce(): Promise<{ end: ProcessEnd; revoked: Promise<void> }> {
    // Of this start alone: a later one cannot reach it.
    let record: LeaseRecord | null = null;
    const osd = this.#deps.start((message) => (record = message));
    this.#osd = osd;
    this.#deps.log('info', `the OSD runs as process ${osd.pid}`);
    const end = await osd.ended;
    this.#osd = null;
    return { end, revoked: record === null ? Promise.resolve() : this.#revoke(osd.pid, record) };
  }

  /** Until etcd confirms, or the lease has run out by itself. Never rejects. */
  async #revoke(pid: number, record: LeaseRecord): Promise<void> {
    const { clock, log, revoke } = this.#deps;
    const reapedMs = clock.nowMs();
    const limitMs = reapedMs + record.ttlSeconds * 1000;
    let told = false;
    for (;;) {
      try {
        await revoke(record);
        const tookMs = Math.round(clock.nowMs() - reapedMs);
        log('info', `lease ${record.lease} of the dead process ${pid} is revoked, ${tookMs} ms after it was reaped`);
        return;
      } catch (error) {
        if (clock.nowMs() >= limitMs) {
          log('warning', `lease ${record.lease} could not be revoked and has run out by itself: ${errorText(error)}`);
          return;
        }
        if (!told) log('warning', `revoking lease ${record.lease}: ${errorText(error)}; trying again`);
        told = true;
      }
      await new Promise<void>((resolve) => void clock.after(REVOKE_PAUSE_MS, resolve));
    }
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#deps.clock.after(delayMs, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
  }
}
