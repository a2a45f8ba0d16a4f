// SPDX-License-Identifier: GPL-2.0-or-later
// The scripted peer as an OSD: listens, keeps objects in memory, answers as 3.0.8 answers, and dies where 3.0.8 would die.
// It leads the PGs it is told to lead, with itself as the only copy; everything else it serves as a secondary.
// Source: wire-protocol 1.3, 5-9, 14.

import { createServer, type Server, type Socket } from 'node:net';
import type { Clock } from '@vitastor/core';
import { withRange } from './bitmap.js';
import type { Journal } from './journal.js';
import { Link } from './link.js';
import { Abort, PeerStore } from './store.js';
import { decodeTriples, encodeReply, encodeTriples, ERR, type Fields, type Message, NEWEST, OP, opName, type Triple } from './wire.js';

export interface PeerPool {
  readonly scheme: 'replicated' | 'ec';
  readonly pgCount: number;
  readonly pgStripeSize: bigint;
  /** k of an EC pool. */
  readonly dataChunks?: number;
  /** The pool's local_reads is not primary. */
  readonly localReads?: boolean;
}

export interface OsdOptions {
  readonly osd: number;
  readonly clock: Clock;
  readonly journal: Journal;
  readonly pools: ReadonlyMap<number, PeerPool>;
  readonly blockSize?: number;
  readonly granularity?: number;
  readonly immediateCommit?: 'all' | 'small' | 'none';
  readonly maxObjects?: number;
  /** enable_pg_locks: absent, true, false. */
  readonly lockMode?: 'localize' | 'required' | 'never';
  /** PGs that this OSD leads and has active. */
  readonly leads?: (pool: number, pg: number) => boolean;
  /** etcd modification revision of an inode's key, as this OSD sees it. */
  readonly inodeRevision?: (inode: bigint) => bigint | undefined;
  /** OSDs to report in DELETE replies. */
  readonly leftOnDead?: readonly number[];
  readonly host?: string;
  readonly port?: number;
  readonly idleMs?: number;
  readonly pingTimeoutMs?: number;
  /** Changes what SHOW_CONFIG answers. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Answers later by so many milliseconds, so that more is in flight. Default 0: the next turn. */
  readonly replyDelayMs?: number;
}

interface Incoming {
  readonly link: Link;
  /** Announced by SHOW_CONFIG; 0 = client. */
  osd: number;
  /** Objects with a SEC_WRITE that is not answered yet. */
  readonly writing: Set<string>;
  /** PGs written to since the last SYNC, for the dirty PG rule. */
  readonly dirtyPgs: Set<string>;
}

interface Lock {
  readonly owner: Incoming;
  readonly osd: number;
  state: bigint;
}

const MAX_LEN = 64n << 20n;
const LOCKS_READABLE = [0x8n, 0x8008n];
const FLAG_IGNORE_LOCK = 2n;

type Answer = { retval: bigint; fields?: Fields; payload?: Buffer };

function poolOf(inode: bigint): number {
  return Number(inode >> 48n);
}

export class PeerOsd {
  readonly store: PeerStore;
  readonly #o: OsdOptions;
  readonly #blockSize: number;
  readonly #granularity: number;
  #server: Server;
  #port = 0;
  readonly #incoming = new Set<Incoming>();
  readonly #locks = new Map<string, Lock>();
  /** Every request received, by name; for tests that wait for one. */
  readonly seen: string[] = [];
  #aborted: string | undefined;

  private constructor(options: OsdOptions) {
    this.#o = options;
    this.#blockSize = options.blockSize ?? 131072;
    this.#granularity = options.granularity ?? 4096;
    this.store = new PeerStore({
      blockSize: this.#blockSize,
      granularity: this.#granularity,
      volatile: (options.immediateCommit ?? 'all') !== 'all',
      ...(options.maxObjects === undefined ? {} : { maxObjects: options.maxObjects }),
    });
    this.#server = this.#newServer();
  }

  #newServer(): Server {
    return createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
  }

  static async start(options: OsdOptions): Promise<PeerOsd> {
    const osd = new PeerOsd(options);
    await osd.#listen(options.port ?? 0);
    return osd;
  }

  #listen(port: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, this.#o.host ?? '127.0.0.1', () => {
        const address = this.#server.address();
        this.#port = typeof address === 'object' && address !== null ? address.port : 0;
        resolve();
      });
    });
  }

  /** A new process on the same store and port, after stop(). */
  async restart(): Promise<void> {
    this.#server = this.#newServer();
    await this.#listen(this.#port);
  }

  get port(): number {
    return this.#port;
  }

  get osd(): number {
    return this.#o.osd;
  }

  get name(): string {
    return `osd ${this.#o.osd}`;
  }

  /** Why the process would have died; undefined while it lives. */
  get aborted(): string | undefined {
    return this.#aborted;
  }

  /** Live connections: announced OSD number, and how many of our PINGs were answered. */
  get connections(): { osd: number; pongs: number }[] {
    return [...this.#incoming].map(({ osd, link }) => ({ osd, pongs: link.pongs }));
  }

  /** Orderly or not, the process is gone: all connections close. Unsynced writes are lost if the mode is not all. */
  async stop(): Promise<void> {
    for (const incoming of [...this.#incoming]) incoming.link.close('process ends');
    this.store.crash();
    if (!this.#server.listening) return;
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  /** A PG leaves the active state: clients with unsynced writes to it lose their connection (semantics 2, dirty PG rule). */
  interruptPg(pool: number, pg: number): void {
    for (const incoming of [...this.#incoming])
      if (incoming.dirtyPgs.has(`${pool}/${pg}`)) incoming.link.close('a PG with unsynced writes of this client is peering');
  }

  /** State bits of the lock that `osd` holds here. */
  lockState(pool: number, pg: number): { osd: number; state: bigint } | undefined {
    const lock = this.#locks.get(`${pool}/${pg}`);
    return lock && { osd: lock.osd, state: lock.state };
  }

  #accept(socket: Socket): void {
    if (this.#aborted !== undefined) {
      socket.destroy();
      return;
    }
    const name = `${this.name} <- ${socket.remotePort ?? 0}`;
    const link = new Link(socket, {
      name,
      clock: this.#o.clock,
      journal: this.#o.journal,
      ...(this.#o.idleMs === undefined ? {} : { idleMs: this.#o.idleMs }),
      ...(this.#o.pingTimeoutMs === undefined ? {} : { pingTimeoutMs: this.#o.pingTimeoutMs }),
      onRequest: (request) => this.#onRequest(incoming, request),
      onClosed: () => this.#onClosed(incoming),
    });
    const incoming: Incoming = { link, osd: 0, writing: new Set(), dirtyPgs: new Set() };
    this.#incoming.add(incoming);
  }

  #onClosed(incoming: Incoming): void {
    this.#incoming.delete(incoming);
    for (const [key, lock] of this.#locks) if (lock.owner === incoming) this.#locks.delete(key);
  }

  #violation(incoming: Incoming, what: string, hazard?: number): void {
    this.#o.journal.violation(incoming.link.name, what, hazard);
  }

  #abort(incoming: Incoming, abort: Abort): void {
    this.#violation(incoming, abort.message, abort.hazard);
    this.#aborted = abort.message;
    void this.stop();
  }

  #onRequest(incoming: Incoming, request: Message): void {
    this.seen.push(request.name);
    let answer: Answer;
    try {
      answer = this.#execute(incoming, request);
    } catch (error) {
      if (!(error instanceof Abort)) throw error;
      this.#abort(incoming, error);
      return;
    }
    const object = this.#writtenObject(request);
    if (object !== undefined) incoming.writing.add(object);
    this.#o.clock.after(request.op === OP.PING ? 0 : (this.#o.replyDelayMs ?? 0), () => {
      if (object !== undefined) incoming.writing.delete(object);
      incoming.link.sendRaw(encodeReply(request.op, request.id, answer.retval, answer.fields, answer.payload));
      if (request.op === OP.SHOW_CONFIG) this.#afterHello(incoming);
    });
  }

  #afterHello(incoming: Incoming): void {
    if (incoming.osd !== 0) incoming.link.startKeepalive();
    else incoming.link.stopKeepalive();
  }

  #writtenObject(request: Message): string | undefined {
    return request.op === OP.SEC_WRITE || request.op === OP.SEC_WRITE_STABLE
      ? `${request.field('inode')}:${request.field('stripe')}`
      : undefined;
  }

  #execute(incoming: Incoming, request: Message): Answer {
    switch (opName(request.op)) {
      case undefined:
        return { retval: ERR.EINVAL };
      case 'PING':
        return { retval: 0n };
      case 'SHOW_CONFIG':
        return this.#showConfig(incoming, request);
      case 'READ':
      case 'WRITE':
      case 'DELETE':
      case 'SCRUB':
        return this.#clientOp(incoming, request);
      case 'SYNC':
        this.store.sync();
        incoming.dirtyPgs.clear();
        return { retval: 0n };
      case 'DESCRIBE':
        return { retval: 0n, fields: { result_bytes: 0n } };
      case 'SEC_READ':
      case 'SEC_WRITE':
      case 'SEC_WRITE_STABLE':
        return this.#subOp(incoming, request);
      case 'SEC_SYNC':
        this.store.sync();
        return { retval: 0n };
      case 'SEC_STABILIZE':
      case 'SEC_ROLLBACK':
        return this.#triples(incoming, request);
      case 'SEC_DELETE': {
        if (!this.#allowed(incoming, request.field('inode'), request.field('stripe'), request.field('flags')))
          return { retval: ERR.EPIPE };
        this.store.delete(request.field('inode'), request.field('stripe'));
        return { retval: 0n, fields: { version: request.field('version') } };
      }
      case 'SEC_READ_BMP':
        return this.#readBitmaps(incoming, request);
      case 'SEC_LIST':
        return (request.field('flags') & 1n) !== 0n ? this.#primaryList(request) : this.#list(request);
      case 'SEC_LOCK':
        return this.#lock(incoming, request);
    }
  }

  // ---- SHOW_CONFIG

  #showConfig(incoming: Incoming, request: Message): Answer {
    let hello: Record<string, unknown> = {};
    try {
      const parsed: unknown = JSON.parse(request.payload.toString() || '{}');
      if (typeof parsed === 'object' && parsed !== null) hello = parsed as Record<string, unknown>;
    } catch {
      // Invalid JSON is an empty object.
    }
    const osd = typeof hello['osd_num'] === 'number' ? hello['osd_num'] : 0;
    if (incoming.osd !== 0 && incoming.osd !== osd) this.#violation(incoming, `SHOW_CONFIG again, osd_num ${incoming.osd} -> ${osd}`, 9);
    incoming.osd = osd;
    const features = hello['features'];
    if (typeof features === 'object' && features !== null && (features as Record<string, unknown>)['check_sequencing'] === true)
      incoming.link.checkSequence = true;
    const config = {
      bitmap_granularity: this.#granularity,
      block_size: this.#blockSize,
      blockstore_enabled: true,
      features: { pg_locks: true },
      immediate_commit: this.#o.immediateCommit ?? 'all',
      lease_timeout: 15,
      osd_num: this.#o.osd,
      primary_enabled: true,
      protocol_version: 1,
      readonly: false,
      ...this.#o.config,
    };
    const payload = Buffer.from(`${JSON.stringify(config)}\0`);
    return { retval: BigInt(payload.length), payload };
  }

  // ---- where an object belongs

  #pgOf(inode: bigint, stripe: bigint): { pool: PeerPool; poolId: number; pg: number; key: string } | undefined {
    const poolId = poolOf(inode);
    const pool = this.#o.pools.get(poolId);
    if (!pool) return undefined;
    const size = pool.pgStripeSize > this.#span(pool) ? pool.pgStripeSize : this.#span(pool);
    const pg = Number((stripe / size) % BigInt(pool.pgCount)) + 1;
    return { pool, poolId, pg, key: `${poolId}/${pg}` };
  }

  #span(pool: PeerPool): bigint {
    return BigInt(this.#blockSize) * BigInt(pool.dataChunks ?? 1);
  }

  /** wire-protocol 9.1. */
  #allowed(incoming: Incoming, inode: bigint, stripe: bigint, flags: bigint): boolean {
    const at = this.#pgOf(inode, stripe);
    if (!at) return false;
    const mode = this.#o.lockMode ?? 'localize';
    if (mode === 'never' || (flags & FLAG_IGNORE_LOCK) !== 0n) return true;
    if (mode === 'localize' && (at.pool.scheme === 'ec' || at.pool.localReads !== true)) return true;
    if (this.#o.leads?.(at.poolId, at.pg) === true) return false;
    const lock = this.#locks.get(at.key);
    return lock !== undefined && incoming.osd !== 0 && lock.osd === incoming.osd;
  }

  // ---- client operations, as the primary

  #clientOp(incoming: Incoming, request: Message): Answer {
    const inode = request.field('inode');
    const offset = request.field('offset');
    const len = request.field('len');
    const at = this.#pgOf(inode, offset);
    const g = BigInt(this.#granularity);
    if (at) {
      const within = offset % this.#span(at.pool);
      if (len > MAX_LEN || offset % g !== 0n || len % g !== 0n || within + len > this.#span(at.pool)) return { retval: ERR.EINVAL };
    }
    if (!at) return { retval: ERR.EPIPE };
    const leads = this.#o.leads?.(at.poolId, at.pg) === true;
    const lock = this.#locks.get(at.key);
    const local = request.op === OP.READ && lock !== undefined && LOCKS_READABLE.includes(lock.state);
    if (!leads && !local) return { retval: ERR.EPIPE };
    const stripe = offset - (offset % this.#span(at.pool));
    const found = this.store.find(inode, stripe, NEWEST);
    const current = found?.version ?? 0n;
    if (request.op === OP.SCRUB) return { retval: 0n };
    if (request.op === OP.READ) {
      const revision = request.field('meta_revision');
      if (revision !== 0n && this.#o.inodeRevision?.(inode) !== revision) return { retval: ERR.EPIPE };
      const within = Number(offset - stripe);
      const bitmap = found?.bitmap ?? Buffer.alloc(this.store.bitmapBytes);
      const data = found?.data.subarray(within, within + Number(len)) ?? Buffer.alloc(Number(len));
      return {
        retval: len,
        fields: { bitmap_len: BigInt(bitmap.length), version: current },
        payload: Buffer.concat([bitmap, data]),
      };
    }
    const cas = request.field('version');
    if (cas !== 0n && cas !== current + 1n)
      return request.op === OP.WRITE
        ? { retval: ERR.EINTR, fields: { version: current } }
        : { retval: ERR.EINTR, fields: { 'osds.0': current & 0xffffffffn, 'osds.1': current >> 32n } };
    incoming.dirtyPgs.add(at.key);
    if (request.op === OP.DELETE) {
      this.store.delete(inode, stripe);
      const dead = this.#o.leftOnDead ?? [];
      const osds = Object.fromEntries(dead.map((osd, i) => [`osds.${i}`, BigInt(osd)]));
      return { retval: 0n, fields: { flags: dead.length > 0 ? 3n : 1n, osd_count: BigInt(dead.length), ...osds } };
    }
    const within = Number(offset - stripe);
    const bitmap = withRange(found?.bitmap ?? Buffer.alloc(this.store.bitmapBytes), this.#granularity, within, Number(len));
    const retval = this.store.write({ inode, stripe }, current + 1n, within, request.payload, bitmap, true);
    return retval < 0n ? { retval } : { retval, fields: { version: current + 1n } };
  }

  // ---- secondary operations

  #subOp(incoming: Incoming, request: Message): Answer {
    const [inode, stripe, version] = [request.field('inode'), request.field('stripe'), request.field('version')];
    const [offset, len] = [request.field('offset'), request.field('len')];
    const g = BigInt(this.#granularity);
    const block = BigInt(this.#blockSize);
    if (len > MAX_LEN || offset % g !== 0n || len % g !== 0n || offset >= block || offset + len > block) return { retval: ERR.EINVAL };
    if (!this.#allowed(incoming, inode, stripe, request.field('flags'))) return { retval: ERR.EPIPE };
    if (request.op === OP.SEC_READ) {
      const found = this.store.find(inode, stripe, version);
      if (!found) return { retval: ERR.ENOENT };
      const data = found.data.subarray(Number(offset), Number(offset + len));
      return {
        retval: len,
        fields: { version: found.version, attr_len: BigInt(found.bitmap.length) },
        payload: Buffer.concat([found.bitmap, data]),
      };
    }
    if (incoming.writing.has(`${inode}:${stripe}`))
      this.#violation(incoming, `two writes of object ${inode}:${stripe} at once`);
    const attr = request.num('attr_len');
    const bitmap = attr === 0 ? undefined : request.payload.subarray(0, attr);
    const retval = this.store.write(
      { inode, stripe },
      version,
      Number(offset),
      request.payload.subarray(attr),
      bitmap,
      request.op === OP.SEC_WRITE_STABLE,
    );
    return retval < 0n ? { retval } : { retval, fields: { version } };
  }

  #triples(incoming: Incoming, request: Message): Answer {
    let triples: Triple[];
    try {
      triples = decodeTriples(request.payload);
    } catch {
      this.#violation(incoming, `${request.name} with ${request.payload.length} bytes of triples`);
      return { retval: ERR.EINVAL };
    }
    for (const t of triples) {
      if (!this.#allowed(incoming, t.inode, t.stripe, request.field('flags'))) return { retval: ERR.EPIPE };
      const retval = request.op === OP.SEC_STABILIZE ? this.store.stabilize(t) : this.store.rollback(t);
      if (retval < 0n) return { retval };
    }
    return { retval: 0n };
  }

  #readBitmaps(incoming: Incoming, request: Message): Answer {
    const records = decodeTriples(request.payload).map((t) => {
      if (!this.#allowed(incoming, t.inode, t.stripe, request.field('flags'))) throw new Abort(3, 'SEC_READ_BMP without the lock');
      const found = this.store.find(t.inode, t.stripe, t.version);
      const record = Buffer.alloc(8 + this.store.bitmapBytes);
      record.writeBigUInt64LE(found?.version ?? 0n, 0);
      found?.bitmap.copy(record, 8);
      return record;
    });
    const payload = Buffer.concat(records);
    return { retval: BigInt(payload.length), payload };
  }

  #list(request: Message): Answer {
    const [listPg, pgCount, stripeSize] = [request.num('list_pg'), request.num('pg_count'), request.field('pg_stripe_size')];
    const [min, max] = [request.field('min_inode'), request.field('max_inode')];
    const poolId = poolOf(min);
    if (pgCount === 0 || listPg > pgCount || stripeSize < 4096n || poolId === 0 || poolOf(max) !== poolId) return { retval: ERR.EINVAL };
    const pool = this.#o.pools.get(poolId);
    if (pool && (pool.pgCount !== pgCount || pool.pgStripeSize !== stripeSize)) return { retval: ERR.EAGAIN };
    const after = (i: bigint, s: bigint): boolean => i > min || (i === min && s >= request.field('min_stripe'));
    const before = (i: bigint, s: bigint): boolean => i < max || (i === max && s <= request.field('max_stripe'));
    const inPg = (s: bigint): boolean => Number((s / stripeSize) % BigInt(pgCount)) + 1 === listPg;
    const { stable, unstable } = this.store.list((i, s) => after(i, s) && before(i, s) && inPg(s));
    const limit = request.num('stable_limit');
    const order = (a: Triple, b: Triple): number =>
      a.inode !== b.inode ? (a.inode < b.inode ? -1 : 1) : a.stripe < b.stripe ? -1 : a.stripe > b.stripe ? 1 : 0;
    const first = limit > 0 ? [...stable].sort(order).slice(0, limit) : stable;
    return {
      retval: BigInt(first.length + unstable.length),
      fields: { stable_count: BigInt(first.length), flags: 0n },
      payload: encodeTriples([...first, ...unstable]),
    };
  }

  #primaryList(request: Message): Answer {
    const inode = request.field('min_inode');
    const pool = this.#o.pools.get(poolOf(inode));
    const wrong =
      request.num('list_pg') === 0 ||
      inode !== request.field('max_inode') ||
      request.num('stable_limit') !== 0 ||
      (pool !== undefined && request.field('pg_stripe_size') !== 0n && request.field('pg_stripe_size') !== pool.pgStripeSize) ||
      (pool !== undefined && request.num('pg_count') !== 0 && request.num('pg_count') !== pool.pgCount);
    if (wrong) return { retval: ERR.EINVAL };
    const pg = request.num('list_pg');
    if (!pool || this.#o.leads?.(poolOf(inode), pg) !== true) return { retval: ERR.EPIPE };
    const { stable, unstable } = this.store.list((i, s) => i === inode && this.#pgOf(i, s)?.pg === pg);
    const stripes = new Set([...stable, ...unstable].map((t) => t.stripe));
    const triples = [...stripes].sort((a, b) => (a < b ? -1 : 1)).map((stripe) => ({ inode, stripe, version: 0n }));
    return {
      retval: BigInt(triples.length),
      fields: { stable_count: BigInt(triples.length), flags: 1n },
      payload: encodeTriples(triples),
    };
  }

  #lock(incoming: Incoming, request: Message): Answer {
    const [flags, poolId, pg] = [request.field('flags'), request.field('pool'), request.field('pg')];
    if (incoming.osd === 0 || (flags !== 1n && flags !== 2n) || pg === 0n || pg > 0xffffffffn || poolId > 65536n)
      return { retval: ERR.EINVAL };
    const pool = this.#o.pools.get(Number(poolId));
    if (!pool || pg > BigInt(pool.pgCount)) return { retval: ERR.ENOENT };
    const key = `${poolId}/${pg}`;
    const lock = this.#locks.get(key);
    if (flags === 2n) {
      if (lock?.osd === incoming.osd) this.#locks.delete(key);
      return { retval: 0n };
    }
    if (this.#o.leads?.(Number(poolId), Number(pg)) === true) return { retval: ERR.EBUSY, fields: { holder: BigInt(this.#o.osd) } };
    if (lock && lock.osd !== incoming.osd) return { retval: ERR.EBUSY, fields: { holder: BigInt(lock.osd) } };
    this.#locks.set(key, { owner: incoming, osd: incoming.osd, state: request.field('state') });
    return { retval: 0n };
  }
}
