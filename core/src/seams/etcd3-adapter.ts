// SPDX-License-Identifier: GPL-2.0-or-later
// etcd in real life: several addresses, one of them selected, every call within its timeout.
//
// Reads and keepalives may go to a second member while the first one is silent, and whichever reply comes first counts.
// A transaction that
// writes goes to one member only, which has just answered or answers a probe first; once it may have been sent it is
// never repeated here.

import { VitastorError } from '../errors.js';
import type { Cancel, Clock } from './clock.js';
import { orderAddresses, parseEtcdAddress } from './etcd-address.js';
import type { Etcd, KeyRange, MemberStatus, Txn, TxnResult, Watch, WatchHandlers } from './etcd.js';
import { Etcd3Member, loadEtcd3, sortFailure } from './etcd3-member.js';
import { SupervisedWatch } from './etcd3-watch.js';
import type { EtcdTlsFiles } from './etcd-tls.js';
import type { Random } from './random.js';

export interface Etcd3AdapterOptions {
  /** `[http[s]://]host:port[/path]`; at least one. */
  addresses: readonly string[];
  /** For https addresses. Default: the system's authorities, no certificate of our own. */
  tls?: EtcdTlsFiles;
  clock: Clock;
  random: Random;
  /** etcd_ws_keepalive_interval. Default 5000. */
  watchKeepaliveMs?: number;
  /** How long a watch may look for a member. Default 5000. */
  watchSetupTimeoutMs?: number;
}

export class Etcd3Adapter implements Etcd {
  readonly #options: Etcd3AdapterOptions;
  /** In the order in which they are tried; one that failed goes to the end. */
  #members: Etcd3Member[] = [];
  /** Answered last. */
  #selected: Etcd3Member | null = null;
  readonly #watches = new Set<SupervisedWatch>();
  readonly #open = new Set<(error: VitastorError) => void>();
  #closed = false;

  constructor(options: Etcd3AdapterOptions) {
    this.#options = options;
    this.setAddresses(options.addresses);
  }

  setAddresses(addresses: readonly string[]): void {
    if (addresses.length === 0)
      throw new VitastorError(
        'ERR_INVALID_ARGUMENT',
        'no etcd address is given: set etcd_address, for example in /etc/vitastor/vitastor.conf',
      );
    const old = new Map(this.#members.map((member) => [member.address.text, member]));
    const parsed = [...new Map(addresses.map((text) => [text.trim(), parseEtcdAddress(text)])).values()];
    this.#members = orderAddresses(parsed, this.#options.random).map((address) => {
      const kept = old.get(address.text);
      old.delete(address.text);
      return kept ?? new Etcd3Member(address, this.#options.tls);
    });
    for (const member of old.values()) member.reset();
    if (this.#selected && !this.#members.includes(this.#selected)) this.#selected = null;
  }

  txn(txn: Txn, timeoutMs: number): Promise<TxnResult> {
    const readOnly = [...txn.success, ...(txn.failure ?? [])].every((op) => op.op === 'range');
    return this.#call(timeoutMs, readOnly, (member, deadline) => member.txn(txn, deadline));
  }

  leaseGrant(ttlSeconds: number, timeoutMs: number): Promise<bigint> {
    return this.#call(timeoutMs, false, (member, deadline) => member.leaseGrant(ttlSeconds, deadline));
  }

  leaseKeepalive(lease: bigint, timeoutMs: number): Promise<number> {
    return this.#call(timeoutMs, true, (member) => member.leaseKeepalive(lease));
  }

  async leaseRevoke(lease: bigint, timeoutMs: number): Promise<void> {
    try {
      await this.#call(timeoutMs, true, (member, deadline) => member.leaseRevoke(lease, deadline));
    } catch (error) {
      if (!(error instanceof VitastorError) || error.code !== 'ERR_LEASE_LOST') throw error;
    }
  }

  async status(timeoutMs: number): Promise<MemberStatus[]> {
    await loadEtcd3();
    const deadline = this.#options.clock.wallMs() + timeoutMs;
    return Promise.all(
      this.#members.map(async (member) => {
        try {
          return await member.status(deadline);
        } catch (error) {
          return {
            address: member.address.text,
            alive: false,
            dbSizeBytes: 0,
            error: sortFailure(member.address.text, error).error.message,
          };
        }
      }),
    );
  }

  watch(ranges: readonly KeyRange[], startRevision: bigint, handlers: WatchHandlers): Watch {
    let member: Etcd3Member | null = null;
    const watch: SupervisedWatch = new SupervisedWatch({
      clock: this.#options.clock,
      ranges,
      startRevision,
      handlers,
      keepaliveIntervalMs: this.#options.watchKeepaliveMs ?? 5000,
      onOver: (healthy) => {
        this.#watches.delete(watch);
        if (!healthy && member) this.#failed(member);
      },
    });
    this.#watches.add(watch);
    const setup = async (): Promise<void> => {
      await loadEtcd3();
      member = await this.#select(this.#options.watchSetupTimeoutMs ?? 5000);
      watch.run(await member.watchStream());
    };
    setup().catch(() => watch.end('lost'));
    return watch;
  }

  close(): void {
    this.#closed = true;
    for (const watch of [...this.#watches]) watch.close();
    for (const reject of [...this.#open]) reject(new VitastorError('ERR_ABORTED', 'the connection to etcd was closed'));
    for (const member of this.#members) member.close();
  }

  /** One call. repeatable: doing it twice, on two members, harms nobody. */
  async #call<T>(
    timeoutMs: number,
    repeatable: boolean,
    run: (member: Etcd3Member, deadlineMs: number) => Promise<T>,
  ): Promise<T> {
    await loadEtcd3(); // Not at the expense of the timeout.
    const end = this.#options.clock.nowMs() + timeoutMs;
    if (repeatable) return this.#race(timeoutMs, run);
    for (let attempt = 0; ; attempt++) {
      const member = await this.#select(end - this.#options.clock.nowMs());
      const left = end - this.#options.clock.nowMs();
      try {
        return await this.#run(member, left, run);
      } catch (error) {
        const failure = sortFailure(member.address.text, error);
        if (failure.error.retryable) this.#failed(member);
        if (failure.sent || attempt >= this.#members.length) throw failure.error;
      }
    }
  }

  /** The member to send a write to: the selected one, the only one, or the first that answers a probe. */
  async #select(timeoutMs: number): Promise<Etcd3Member> {
    const only = this.#members.length === 1 ? this.#members[0] : undefined;
    const known = this.#selected ?? only;
    if (known) return known;
    await this.#race(timeoutMs, (member, deadline) => member.probe(deadline));
    if (!this.#selected)
      throw new VitastorError('ERR_ETCD_UNAVAILABLE', 'no etcd member answered', { retryable: true });
    return this.#selected;
  }

  /**
   * Starts with the selected member (else the first in order); each time one fails, or has been silent for its share of
   * the time, the next
   * one is asked as well. The first reply wins and its member becomes the selected one.
   */
  #race<T>(timeoutMs: number, run: (member: Etcd3Member, deadlineMs: number) => Promise<T>): Promise<T> {
    const clock = this.#options.clock;
    const end = clock.nowMs() + timeoutMs;
    const queue = [...this.#members].sort((a, b) => Number(b === this.#selected) - Number(a === this.#selected));
    const shareMs = Math.max(1, timeoutMs / (this.#selected ? 2 : queue.length + 1));
    return new Promise<T>((resolve, reject) => {
      const failures: VitastorError[] = [];
      let running = 0;
      let timer: Cancel | null = null;
      let over = false;
      const finish = (settle: () => void): void => {
        over = true;
        timer?.();
        settle();
      };
      const next = (): void => {
        timer?.();
        timer = null;
        const member = queue.shift();
        if (!member) {
          if (running === 0) finish(() => reject(failures.find((error) => !error.retryable) ?? allFailed(failures)));
          return;
        }
        running++;
        timer = queue.length ? clock.after(shareMs, next) : null;
        this.#run(member, end - clock.nowMs(), run).then(
          (value) => {
            if (over) return;
            this.#selected = member;
            finish(() => resolve(value));
          },
          (error: unknown) => {
            running--;
            const failure = sortFailure(member.address.text, error).error;
            if (failure.retryable) this.#failed(member);
            failures.push(failure);
            if (over) return;
            if (failure.retryable) next();
            else finish(() => reject(failure));
          },
        );
      };
      next();
    });
  }

  /** With a deadline of our own besides gRPC's, and an end on close(). */
  #run<T>(
    member: Etcd3Member,
    timeoutMs: number,
    run: (member: Etcd3Member, deadlineMs: number) => Promise<T>,
  ): Promise<T> {
    if (this.#closed) return Promise.reject(new VitastorError('ERR_ABORTED', 'the connection to etcd was closed'));
    return new Promise<T>((resolve, reject) => {
      const limitMs = Math.max(0, timeoutMs);
      const timer = this.#options.clock.after(limitMs, () =>
        fail(
          new VitastorError(
            'ERR_ETCD_UNAVAILABLE',
            `etcd at ${member.address.text} did not answer within ${Math.round(timeoutMs)} ms`,
            { retryable: true, data: { address: member.address.text } },
          ),
        ),
      );
      const fail = (error: unknown): void => {
        timer();
        this.#open.delete(fail);
        reject(error instanceof Error ? error : new Error(String(error)));
      };
      this.#open.add(fail);
      run(member, this.#options.clock.wallMs() + limitMs).then((value) => {
        timer();
        this.#open.delete(fail);
        resolve(value);
      }, fail);
    });
  }

  /** It goes to the end of the order and dials anew when its turn comes again. */
  #failed(member: Etcd3Member): void {
    if (this.#selected === member) this.#selected = null;
    if (!this.#members.includes(member)) return;
    this.#members = [...this.#members.filter((m) => m !== member), member];
    member.reset();
  }
}

function allFailed(failures: readonly VitastorError[]): VitastorError {
  const [first] = failures;
  if (failures.length === 1 && first) return first;
  return new VitastorError(
    'ERR_ETCD_UNAVAILABLE',
    `no etcd member answered: ${failures.map((f) => f.message).join('; ')}`,
    { retryable: true },
  );
}
