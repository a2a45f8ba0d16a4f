// SPDX-License-Identifier: GPL-2.0-or-later
// etcd in memory, on a Clock: for unit tests and the simulator. Passes the same contract tests as the real one.
// One MemoryEtcd is the server; every process under test gets a client() of its own, which can be cut off or made to
// lose replies.

import { VitastorError } from '../errors.js';
import type { Cancel, Clock } from './clock.js';
import type {
  Compare, Etcd, KeyRange, KeyValue, MemberStatus, Txn, TxnOp, TxnResult, Watch, WatchEvent, WatchHandlers,
} from './etcd.js';

interface Lease {
  id: bigint;
  ttlSeconds: number;
  keys: Set<string>;
  expire: Cancel;
}

interface Batch {
  revision: bigint;
  events: WatchEvent[];
}

const ORDER = {
  equal: (a: bigint, b: bigint) => a === b,
  less: (a: bigint, b: bigint) => a < b,
  greater: (a: bigint, b: bigint) => a > b,
};

export function inRange(key: string, range: KeyRange): boolean {
  return 'key' in range ? key === range.key : key.startsWith(range.prefix);
}

/** UTF-16 orders these otherwise than UTF-8 does. */
const BEYOND = /[\ud800-\uffff]/;

/** Key order of etcd: by bytes of UTF-8. */
function inKeyOrder(pairs: KeyValue[]): KeyValue[] {
  if (pairs.length < 2) return pairs;
  if (pairs.some((kv) => BEYOND.test(kv.key))) return pairs.sort((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)));
  return pairs.sort((a, b) => (a.key < b.key ? -1 : 1));
}

export class MemoryEtcd {
  readonly clock: Clock;
  readonly #data = new Map<string, KeyValue>();
  readonly #leases = new Map<bigint, Lease>();
  readonly #clients = new Set<MemoryEtcdClient>();
  #history: Batch[] = [];
  #revision = 1n;
  #compacted = 0n;
  #nextLease = 7587_000_000_000_000_001n;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  client(): MemoryEtcdClient {
    const client = new MemoryEtcdClient(this);
    this.#clients.add(client);
    return client;
  }

  forget(client: MemoryEtcdClient): void {
    this.#clients.delete(client);
  }

  get revision(): bigint {
    return this.#revision;
  }

  get compactedRevision(): bigint {
    return this.#compacted;
  }

  /** All pairs whose keys begin so, in key order. */
  pairs(prefix = ''): KeyValue[] {
    const found: KeyValue[] = [];
    for (const kv of this.#data.values()) if (kv.key.startsWith(prefix)) found.push(kv);
    return inKeyOrder(found);
  }

  get(key: string): string | undefined {
    return this.#data.get(key)?.value;
  }

  /** Puts a key as an administrator would with etcdctl. */
  put(key: string, value: string): void {
    this.apply({ compare: [], success: [{ op: 'put', key, value }] });
  }

  delete(key: string): void {
    this.apply({ compare: [], success: [{ op: 'delete', range: { key } }] });
  }

  /** Forgets the history before `revision`; watches that start there end with 'compacted'. */
  compact(revision: bigint = this.#revision): void {
    this.#compacted = revision;
    this.#history = this.#history.filter((batch) => batch.revision >= revision);
  }

  /**
   * Runs a transaction at once. Throws ERR_ETCD_REQUEST (one key changed twice) or ERR_LEASE_LOST (put with an unknown
   * lease).
   */
  apply(txn: Txn): TxnResult {
    const succeeded = txn.compare.every((compare) => this.#compare(compare));
    const ops = succeeded ? txn.success : txn.failure ?? [];
    this.#check(ops);
    const batch: Batch = { revision: this.#revision + 1n, events: [] };
    const responses = ops.map((op) => this.#run(op, batch));
    if (ops.some((op) => op.op === 'put') || batch.events.length) this.#commit(batch);
    return { succeeded, revision: this.#revision, responses };
  }

  grant(ttlSeconds: number): bigint {
    const id = this.#nextLease++;
    this.#leases.set(id, { id, ttlSeconds, keys: new Set(), expire: this.#expireLater(id, ttlSeconds) });
    return id;
  }

  /** Remaining seconds, 0 = gone. */
  keepalive(id: bigint): number {
    const lease = this.#leases.get(id);
    if (!lease) return 0;
    lease.expire();
    lease.expire = this.#expireLater(id, lease.ttlSeconds);
    return lease.ttlSeconds;
  }

  revoke(id: bigint): void {
    const lease = this.#leases.get(id);
    if (!lease) return;
    lease.expire();
    this.#leases.delete(id);
    const batch: Batch = { revision: this.#revision + 1n, events: [] };
    for (const key of [...lease.keys].sort()) this.#remove(key, batch);
    if (batch.events.length) this.#commit(batch);
  }

  /** As after a restart of the server: every client loses its watches, every lease starts its time anew. */
  restart(): void {
    for (const id of this.#leases.keys()) this.keepalive(id);
    for (const client of this.#clients) client.loseWatches();
  }

  /** Ends all leases' timers. */
  stop(): void {
    for (const lease of this.#leases.values()) lease.expire();
    this.#leases.clear();
  }

  eventsSince(revision: bigint, ranges: readonly KeyRange[]): Batch[] {
    let first = this.#history.length;
    while (first > 0 && (this.#history[first - 1]?.revision ?? 0n) >= revision) first--;
    const found: Batch[] = [];
    for (const batch of this.#history.slice(first)) {
      const events = batch.events.filter((e) => ranges.some((r) => inRange(e.key, r)));
      if (events.length > 0) found.push({ revision: batch.revision, events });
    }
    return found;
  }

  #select(range: KeyRange): KeyValue[] {
    if (!('key' in range)) return [...this.#data.values()].filter((kv) => inRange(kv.key, range));
    const found = this.#data.get(range.key);
    return found ? [found] : [];
  }

  #expireLater(id: bigint, ttlSeconds: number): Cancel {
    return this.clock.after(ttlSeconds * 1000, () => this.revoke(id));
  }

  #compare(compare: Compare): boolean {
    const kv = this.#data.get(compare.key);
    if (compare.target === 'lease') return (kv?.lease ?? 0n) === compare.value;
    return ORDER[compare.result](kv?.[compare.target] ?? 0n, compare.value);
  }

  #check(ops: readonly TxnOp[]): void {
    const put = new Set<string>();
    const deletes = ops.filter((op) => op.op === 'delete');
    for (const op of ops) {
      if (op.op !== 'put') continue;
      if (put.has(op.key) || deletes.some((o) => inRange(op.key, o.range))) {
        throw new VitastorError('ERR_ETCD_REQUEST', `one transaction changes key ${op.key} twice`);
      }
      put.add(op.key);
      if (op.lease && !this.#leases.has(op.lease))
        throw new VitastorError(
          'ERR_LEASE_LOST',
          `etcd does not know lease ${op.lease}: it has expired or was revoked`,
        );
    }
  }

  #run(op: TxnOp, batch: Batch): KeyValue[] {
    if (op.op === 'range') {
      const found = inKeyOrder(this.#select(op.range));
      return found.map((kv) => (op.keysOnly ? { ...kv, value: '' } : kv));
    }
    if (op.op === 'delete') {
      for (const { key } of inKeyOrder(this.#select(op.range))) this.#remove(key, batch);
      return [];
    }
    const old = this.#data.get(op.key);
    if (old?.lease) this.#leases.get(old.lease)?.keys.delete(op.key);
    const lease = op.lease ?? 0n;
    if (lease) this.#leases.get(lease)?.keys.add(op.key);
    this.#data.set(op.key, {
      key: op.key, value: op.value, createRevision: old?.createRevision ?? batch.revision, modRevision: batch.revision,
      version: (old?.version ?? 0n) + 1n, lease,
    });
    batch.events.push({ type: 'put', key: op.key, value: op.value, modRevision: batch.revision, lease });
    return [];
  }

  #remove(key: string, batch: Batch): void {
    const old = this.#data.get(key);
    if (!old) return;
    if (old.lease) this.#leases.get(old.lease)?.keys.delete(key);
    this.#data.delete(key);
    batch.events.push({ type: 'delete', key, value: '', modRevision: batch.revision, lease: 0n });
  }

  #commit(batch: Batch): void {
    this.#revision = batch.revision;
    this.#history.push(batch);
    for (const client of this.#clients) client.deliverSoon();
  }
}

/** What happens to the next calls of one client. */
export type Fault = 'unavailable' | 'reply-lost';

interface OpenWatch {
  ranges: readonly KeyRange[];
  next: bigint;
  handlers: WatchHandlers;
}

/** One process's view of the server. Replies come `delayMs` later, in a turn of their own. */
export class MemoryEtcdClient implements Etcd {
  /** One way and back, each call. */
  delayMs = 0;
  /** Watches hear so much later still, as when etcd has fallen behind with them. */
  watchLagMs = 0;
  addresses: readonly string[] = ['memory'];
  /** What status() reports. */
  dbSizeBytes = 0;
  readonly #server: MemoryEtcd;
  readonly #watches = new Set<OpenWatch>();
  readonly #faults: Fault[] = [];
  readonly #open = new Set<(error: VitastorError) => void>();
  #connected = true;
  #delivery: Cancel | null = null;
  #closed = false;

  constructor(server: MemoryEtcd) {
    this.#server = server;
  }

  /** Cut off: calls fail when their timeout has passed, watches stay silent and then end as 'lost'. */
  set connected(connected: boolean) {
    this.#connected = connected;
    if (connected) this.deliverSoon();
    else this.loseWatches();
  }

  get connected(): boolean {
    return this.#connected;
  }

  /** The next calls fail: 'unavailable' before, 'reply-lost' after the server has done its part. */
  failNext(...faults: readonly Fault[]): void {
    this.#faults.push(...faults);
  }

  /** Every open watch ends. */
  loseWatches(reason: 'lost' | 'cancelled' = 'lost'): void {
    for (const watch of [...this.#watches]) this.#end(watch, reason);
  }

  txn(txn: Txn, timeoutMs: number): Promise<TxnResult> {
    return this.#call(timeoutMs, () => this.#server.apply(txn));
  }

  leaseGrant(ttlSeconds: number, timeoutMs: number): Promise<bigint> {
    return this.#call(timeoutMs, () => this.#server.grant(ttlSeconds));
  }

  leaseKeepalive(lease: bigint, timeoutMs: number): Promise<number> {
    return this.#call(timeoutMs, () => this.#server.keepalive(lease));
  }

  leaseRevoke(lease: bigint, timeoutMs: number): Promise<void> {
    return this.#call(timeoutMs, () => this.#server.revoke(lease));
  }

  status(timeoutMs: number): Promise<MemberStatus[]> {
    return this.#call(timeoutMs, () =>
      this.addresses.map((address) => ({ address, alive: true, dbSizeBytes: this.dbSizeBytes })),
    ).catch((error: unknown) =>
      this.addresses.map((address) => ({
        address,
        alive: false,
        dbSizeBytes: 0,
        error: error instanceof Error ? error.message : String(error),
      })),
    );
  }

  setAddresses(addresses: readonly string[]): void {
    this.addresses = [...addresses];
  }

  watch(ranges: readonly KeyRange[], startRevision: bigint, handlers: WatchHandlers): Watch {
    const watch: OpenWatch = { ranges: [...ranges], next: startRevision, handlers };
    this.#watches.add(watch);
    if (!this.#connected) this.#server.clock.after(this.delayMs, () => this.#end(watch, 'lost'));
    this.deliverSoon();
    return { close: () => void this.#watches.delete(watch) };
  }

  close(): void {
    this.#closed = true;
    this.#watches.clear();
    this.#delivery?.();
    this.#delivery = null;
    this.#server.forget(this);
    for (const reject of [...this.#open]) reject(new VitastorError('ERR_ABORTED', 'the connection to etcd was closed'));
  }

  /** The server has news; they go out in a turn of their own. */
  deliverSoon(): void {
    if (this.#delivery || this.#watches.size === 0 || this.#closed) return;
    this.#delivery = this.#server.clock.after(this.delayMs + this.watchLagMs, () => {
      this.#delivery = null;
      if (this.#connected) for (const watch of [...this.#watches]) this.#deliver(watch);
    });
  }

  #deliver(watch: OpenWatch): void {
    if (watch.next < this.#server.compactedRevision) {
      this.#end(watch, 'compacted');
      return;
    }
    for (const batch of this.#server.eventsSince(watch.next, watch.ranges)) {
      if (!this.#watches.has(watch)) return;
      watch.next = batch.revision + 1n;
      watch.handlers.onEvents(batch.events, batch.revision);
    }
    if (watch.next <= this.#server.revision) watch.next = this.#server.revision + 1n;
  }

  #end(watch: OpenWatch, reason: 'compacted' | 'cancelled' | 'lost'): void {
    if (this.#watches.delete(watch)) watch.handlers.onEnd(reason);
  }

  #call<T>(timeoutMs: number, run: () => T): Promise<T> {
    if (this.#closed) return Promise.reject(new VitastorError('ERR_ABORTED', 'the connection to etcd was closed'));
    const clock = this.#server.clock;
    return new Promise<T>((resolve, reject) => {
      let timer: Cancel = () => undefined;
      const done = (settle: () => void): void => {
        timer();
        this.#open.delete(fail);
        settle();
      };
      const fail = (error: VitastorError): void => done(() => reject(error));
      this.#open.add(fail);
      const fault = this.#connected ? this.#faults.shift() : 'unavailable';
      if (fault === 'unavailable' || this.delayMs >= timeoutMs) {
        timer = clock.after(this.#connected ? this.delayMs : timeoutMs, () => fail(unavailable(timeoutMs)));
        return;
      }
      timer = clock.after(this.delayMs, () => {
        try {
          const result = run();
          if (fault === 'reply-lost') timer = clock.after(timeoutMs, () => fail(unavailable(timeoutMs)));
          else done(() => resolve(result));
        } catch (error) {
          done(() => reject(error instanceof Error ? error : new Error(String(error))));
        }
      });
    });
  }
}

function unavailable(timeoutMs: number): VitastorError {
  return new VitastorError('ERR_ETCD_UNAVAILABLE', `etcd gave no answer within ${timeoutMs} ms`, { retryable: true });
}
