// SPDX-License-Identifier: GPL-2.0-or-later
// The scripted peer as the opening side: a client, or an OSD that leads PGs. Requests are written out by the test; replies are
// held against the specification. Source: wire-protocol 1.2, 6, 8, 9.

import { connect, type Socket } from 'node:net';
import type { Clock } from '@vitastor/core';
import type { Journal } from './journal.js';
import { Link, LinkClosed } from './link.js';
import { encodeReply, encodeTriples, type Fields, type Message, NEWEST, OP, type Triple } from './wire.js';

export interface OpenerOptions {
  readonly clock: Clock;
  readonly journal: Journal;
  readonly host?: string;
  readonly port: number;
  /** The OSD that should answer there. */
  readonly wanted: number;
  /** Announces itself as this OSD; absent: a client. */
  readonly osd?: number;
  readonly blockSize?: number;
  readonly granularity?: number;
  readonly immediateCommit?: 'all' | 'small' | 'none';
  /** k of the pool, for the size of READ bitmaps. Default 1. */
  readonly dataChunks?: number;
  readonly idleMs?: number;
  readonly pingTimeoutMs?: number;
  /** Leave the handshake out: test tools and older peers do. */
  readonly withoutHello?: boolean;
  readonly onClosed?: (reason: string) => void;
}

/** The handshake failed, and 3.0.8 has closed the connection. */
export class Refused extends Error {}

const RANK = { none: 0, small: 1, all: 2 } as const;

function rank(mode: unknown): number {
  return mode === 'all' || mode === 'small' ? RANK[mode] : 0;
}

function openSocket(host: string, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port });
    socket.once('connect', () => {
      socket.removeListener('error', reject);
      resolve(socket);
    });
    socket.once('error', reject);
  });
}

export class PeerOpener {
  readonly link: Link;
  readonly #o: OpenerOptions;
  readonly #blockSize: number;
  readonly #bitmapBytes: number;
  /** Parsed reply to SHOW_CONFIG. */
  config: Readonly<Record<string, unknown>> = {};
  /** The reply had features.pg_locks. */
  get hasLocks(): boolean {
    const features = this.config['features'];
    return typeof features === 'object' && features !== null && (features as Record<string, unknown>)['pg_locks'] === true;
  }

  private constructor(socket: Socket, options: OpenerOptions) {
    this.#o = options;
    this.#blockSize = options.blockSize ?? 131072;
    this.#bitmapBytes = this.#blockSize / (options.granularity ?? 4096) / 8;
    const who = options.osd === undefined ? 'client' : `osd ${options.osd}`;
    this.link = new Link(socket, {
      name: `${who} -> osd ${options.wanted}`,
      clock: options.clock,
      journal: options.journal,
      ...(options.idleMs === undefined ? {} : { idleMs: options.idleMs }),
      ...(options.pingTimeoutMs === undefined ? {} : { pingTimeoutMs: options.pingTimeoutMs }),
      ...(options.osd === undefined ? {} : { onRequest: (request: Message) => this.#onRequest(request) }),
      ...(options.onClosed ? { onClosed: options.onClosed } : {}),
    });
  }

  /** Connects and shakes hands. Throws Refused where 3.0.8 would not go on. */
  static async open(options: OpenerOptions): Promise<PeerOpener> {
    const opener = new PeerOpener(await openSocket(options.host ?? '127.0.0.1', options.port), options);
    if (options.withoutHello === true) return opener;
    const osdNum = options.osd === undefined ? '' : `, "osd_num": ${options.osd}`;
    const payload = Buffer.from(`{"features": {"check_sequencing": true}${osdNum}}`);
    const reply = await opener.link.request(OP.SHOW_CONFIG, { json_len: BigInt(payload.length) }, payload);
    const refusal = opener.#judge(reply);
    if (refusal !== undefined) {
      opener.link.close(refusal);
      throw new Refused(refusal);
    }
    opener.link.startKeepalive();
    return opener;
  }

  /** wire-protocol 6.3: clients check four things, OSDs of 3.0.8 only the layout. */
  #judge(reply: Message): string | undefined {
    let config: Record<string, unknown> | undefined;
    if (reply.retval >= 0n) {
      try {
        const text = reply.payload.subarray(0, Math.max(0, reply.payload.indexOf(0))).toString();
        const parsed: unknown = JSON.parse(text);
        if (typeof parsed === 'object' && parsed !== null) config = parsed as Record<string, unknown>;
      } catch {
        // Judged below.
      }
    }
    this.config = config ?? {};
    if (this.#o.osd === undefined) {
      if (!config) return 'no valid reply to SHOW_CONFIG';
      if (config['osd_num'] !== this.#o.wanted) return `osd_num is ${String(config['osd_num'])}, not ${this.#o.wanted}`;
      if (config['protocol_version'] !== 1) return `protocol_version is ${String(config['protocol_version'])}`;
      return undefined;
    }
    // Our own OSDs must also answer these rightly, though 3.0.8 does not look.
    if (config?.['osd_num'] !== this.#o.wanted || config['protocol_version'] !== 1)
      this.#o.journal.violation(this.link.name, 'SHOW_CONFIG: wrong osd_num or protocol_version');
    for (const key of ['block_size', 'bitmap_granularity', 'immediate_commit']) if (config?.[key] === undefined) return undefined;
    if (rank(config?.['immediate_commit']) < rank(this.#o.immediateCommit ?? 'all')) return 'immediate_commit is weaker';
    if (config?.['block_size'] !== this.#blockSize) return 'block_size differs';
    if (config['bitmap_granularity'] !== (this.#o.granularity ?? 4096)) return 'bitmap_granularity differs';
    return undefined;
  }

  /** The acceptor may send PING to an OSD, and nothing else. */
  #onRequest(request: Message): void {
    if (request.op === OP.PING) {
      this.link.sendRaw(encodeReply(OP.PING, request.id, 0n));
      return;
    }
    this.#o.journal.violation(this.link.name, `the acceptor sent ${request.name}`, 7);
    this.link.close(`the acceptor sent ${request.name}`);
  }

  close(): void {
    this.link.close('closed by the test');
  }

  /** Resolves when the other end has closed this connection. */
  closed(): Promise<string> {
    const reason = this.link.closedBecause;
    if (reason !== undefined) return Promise.resolve(reason);
    return new Promise((resolve) => {
      const look = (): void => {
        const now = this.link.closedBecause;
        if (now !== undefined) resolve(now);
        else this.#o.clock.after(5, look);
      };
      look();
    });
  }

  // ---- client operations

  read(inode: bigint, offset: number, len: number, metaRevision = 0n): Promise<Message> {
    return this.link.request(
      OP.READ,
      { inode, offset: BigInt(offset), len: BigInt(len), meta_revision: metaRevision },
      undefined,
      { bitmapBytes: this.#bitmapBytes * (this.#o.dataChunks ?? 1) },
    );
  }

  /** `casVersion`: the version that the object must have, plus one. */
  write(inode: bigint, offset: number, data: Buffer, casVersion = 0n): Promise<Message> {
    return this.link.request(OP.WRITE, { inode, offset: BigInt(offset), len: BigInt(data.length), version: casVersion }, data);
  }

  delete(inode: bigint, offset: number, casVersion = 0n): Promise<Message> {
    return this.link.request(OP.DELETE, { inode, offset: BigInt(offset), version: casVersion });
  }

  sync(): Promise<Message> {
    return this.link.request(OP.SYNC);
  }

  ping(): Promise<Message> {
    return this.link.request(OP.PING);
  }

  // ---- secondary operations

  secRead(inode: bigint, stripe: bigint, offset: number, len: number, version = NEWEST, flags = 0n): Promise<Message> {
    return this.link.request(
      OP.SEC_READ,
      { inode, stripe, version, offset: BigInt(offset), len: BigInt(len), flags },
      undefined,
      { bitmapBytes: this.#bitmapBytes },
    );
  }

  secWrite(
    what: { inode: bigint; stripe: bigint; version: bigint; offset?: number; stable?: boolean; flags?: bigint },
    data: Buffer,
    bitmap: Buffer,
  ): Promise<Message> {
    const fields: Fields = {
      inode: what.inode,
      stripe: what.stripe,
      version: what.version,
      offset: BigInt(what.offset ?? 0),
      len: BigInt(data.length),
      attr_len: BigInt(bitmap.length),
      flags: what.flags ?? 0n,
    };
    return this.link.request(what.stable === false ? OP.SEC_WRITE : OP.SEC_WRITE_STABLE, fields, Buffer.concat([bitmap, data]));
  }

  secDelete(inode: bigint, stripe: bigint, version: bigint, flags = 0n): Promise<Message> {
    return this.link.request(OP.SEC_DELETE, { inode, stripe, version, flags });
  }

  secSync(): Promise<Message> {
    return this.link.request(OP.SEC_SYNC);
  }

  stabilize(triples: readonly Triple[]): Promise<Message> {
    return this.#triples(OP.SEC_STABILIZE, triples);
  }

  rollback(triples: readonly Triple[]): Promise<Message> {
    return this.#triples(OP.SEC_ROLLBACK, triples);
  }

  readBitmaps(triples: readonly Triple[]): Promise<Message> {
    return this.#triples(OP.SEC_READ_BMP, triples);
  }

  #triples(op: number, triples: readonly Triple[]): Promise<Message> {
    const payload = encodeTriples(triples);
    return this.link.request(op, { len: BigInt(payload.length) }, payload);
  }

  /** Whole pool range of one PG, as at peering. */
  list(pool: number, pg: number, pgCount: number, pgStripeSize: bigint, more: Fields = {}): Promise<Message> {
    return this.link.request(OP.SEC_LIST, {
      list_pg: BigInt(pg),
      pg_count: BigInt(pgCount),
      pg_stripe_size: pgStripeSize,
      min_inode: BigInt(pool) << 48n,
      max_inode: (BigInt(pool + 1) << 48n) - 1n,
      ...more,
    });
  }

  /** Listing of one inode by the primary. */
  primaryList(inode: bigint, pg: number): Promise<Message> {
    return this.link.request(OP.SEC_LIST, { list_pg: BigInt(pg), min_inode: inode, max_inode: inode, flags: 1n });
  }

  lock(pool: number, pg: number, state: bigint): Promise<Message> {
    return this.link.request(OP.SEC_LOCK, { flags: 1n, pool: BigInt(pool), pg: BigInt(pg), state });
  }

  unlock(pool: number, pg: number): Promise<Message> {
    return this.link.request(OP.SEC_LOCK, { flags: 2n, pool: BigInt(pool), pg: BigInt(pg) });
  }
}

export { LinkClosed };
