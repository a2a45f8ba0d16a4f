// SPDX-License-Identifier: GPL-2.0-or-later
// One member of etcd through the package etcd3: raw calls with a deadline, errors sorted. No retries, no leases or
// watches of etcd3's own.

import type { Etcd3, ICompare, IDuplexStream, IKeyValue, IRequestOp, IWatchRequest, IWatchResponse } from 'etcd3';
import { isIP } from 'node:net';
import { errorText, VitastorError } from '../errors.js';
import { dialTarget, type EtcdAddress } from './etcd-address.js';
import { readEtcdCredentials, tlsHint, type EtcdCredentials, type EtcdTlsFiles } from './etcd-tls.js';
import { KeepaliveStream } from './etcd3-keepalive.js';
import type { Compare, KeyRange, KeyValue, MemberStatus, Txn, TxnOp, TxnResult } from './etcd.js';

export type WatchStream = IDuplexStream<IWatchRequest, IWatchResponse>;

const COMPARE_TARGET = { version: 0, createRevision: 1, modRevision: 2, lease: 4 } as const;
const COMPARE_RESULT = { equal: 0, greater: 1, less: 2 } as const;

/** A key that nobody writes: reading it proves that the member has a quorum behind it. */
const PROBE_KEY = Buffer.from('\0');

const CHANNEL_OPTIONS = {
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
  'grpc.enable_http_proxy': 0,
  // A new client dials anew, whatever back-off an older one had.
  'grpc.use_local_subchannel_pool': 1,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
} as const;

export function rangeEnd(range: KeyRange): { key: Buffer; range_end?: Buffer } {
  if ('key' in range) return { key: Buffer.from(range.key) };
  const key = Buffer.from(range.prefix);
  const end = Buffer.from(key);
  const last = end.length - 1;
  end.writeUInt8(end.readUInt8(last) + 1, last); // Keys are UTF-8 text: no byte of theirs is 0xff.
  return { key, range_end: end };
}

export function fromKv(kv: IKeyValue): KeyValue {
  return {
    key: kv.key.toString(),
    value: kv.value.toString(),
    createRevision: BigInt(kv.create_revision),
    modRevision: BigInt(kv.mod_revision),
    version: BigInt(kv.version),
    lease: BigInt(kv.lease),
  };
}

function toCompare(compare: Compare): ICompare {
  const common = {
    key: Buffer.from(compare.key),
    target: COMPARE_TARGET[compare.target],
    result: COMPARE_RESULT[compare.result],
  };
  const value = compare.value.toString();
  switch (compare.target) {
    case 'version': return { ...common, version: value };
    case 'createRevision': return { ...common, create_revision: value };
    case 'modRevision': return { ...common, mod_revision: value };
    case 'lease': return { ...common, lease: value };
  }
}

function toOp(op: TxnOp): IRequestOp {
  switch (op.op) {
    case 'put':
      return {
        request_put: { key: Buffer.from(op.key), value: Buffer.from(op.value), lease: (op.lease ?? 0n).toString() },
      };
    case 'delete':
      return { request_delete_range: rangeEnd(op.range) };
    case 'range':
      return { request_range: { ...rangeEnd(op.range), keys_only: op.keysOnly ?? false } };
  }
}

/** How a call failed. `sent`: it may have been carried out. */
export interface CallFailure {
  error: VitastorError;
  sent: boolean;
}

/** The outcome is unknown or the member is not fit to answer: another one may be. */
const UNAVAILABLE =
  /UNAVAILABLE|DEADLINE_EXCEEDED|CANCELLED|no leader|leader changed|request timed out|not capable|too many requests|stopped|INTERNAL/;

export function sortFailure(address: string, error: unknown): CallFailure {
  const text = errorText(error).replace(/\s*(?:\(\d{4}-\d\d-\d\dT[^)]*\))?\.? Resolution note:\s*$/, '');
  if (error instanceof VitastorError) return { error, sent: true };
  if (text.includes('requested lease not found'))
    return {
      error: new VitastorError('ERR_LEASE_LOST', 'etcd does not know the lease: it has expired or was revoked', {
        cause: error,
      }),
      sent: true,
    };
  if (UNAVAILABLE.test(text)) {
    const sent =
      !/No connection established|ECONNREFUSED|ENOTFOUND|EHOSTUNREACH|ENETUNREACH|Name resolution failed/.test(text);
    return {
      error: new VitastorError('ERR_ETCD_UNAVAILABLE', `etcd at ${address} did not answer: ${text}${tlsHint(text)}`, {
        retryable: true,
        cause: error,
        data: { address },
      }),
      sent,
    };
  }
  return {
    error: new VitastorError('ERR_ETCD_REQUEST', `etcd at ${address} refused a request: ${text}`, {
      cause: error,
      data: { address },
    }),
    sent: true,
  };
}

type Library = [typeof import('etcd3'), typeof import('cockatiel')];

/** Loads etcd3, which takes a quarter of a second: once a process, and only where etcd is spoken to at all. */
export function loadEtcd3(): Promise<Library> {
  return Promise.all([import('etcd3'), import('cockatiel')]);
}

/** Calls reject with what gRPC said; sortFailure() makes sense of it. */
export class Etcd3Member {
  readonly address: EtcdAddress;
  readonly #tls: EtcdTlsFiles;
  #client: Etcd3 | null = null;
  #keepalive: KeepaliveStream | null = null;
  #closed = false;

  /** tls: what an https address needs. */
  constructor(address: EtcdAddress, tls: EtcdTlsFiles = { ca: '', cert: '', key: '' }) {
    this.address = address;
    this.#tls = tls;
  }

  async txn(txn: Txn, deadlineMs: number): Promise<TxnResult> {
    const reply = await (await this.#etcd()).kv.txn({
      compare: txn.compare.map(toCompare), success: txn.success.map(toOp), failure: (txn.failure ?? []).map(toOp),
    }, { deadline: deadlineMs });
    return {
      succeeded: reply.succeeded,
      revision: BigInt(reply.header.revision),
      responses: reply.responses.map((r) => r.response_range?.kvs?.map(fromKv) ?? []),
    };
  }

  async probe(deadlineMs: number): Promise<void> {
    await (await this.#etcd()).kv.range({ key: PROBE_KEY, count_only: true }, { deadline: deadlineMs });
  }

  async leaseGrant(ttlSeconds: number, deadlineMs: number): Promise<bigint> {
    const reply = await (await this.#etcd()).leaseClient.leaseGrant({ TTL: ttlSeconds }, { deadline: deadlineMs });
    return BigInt(reply.ID);
  }

  /** The deadline is the caller's: after it, reset() drops the stream. */
  async leaseKeepalive(lease: bigint): Promise<number> {
    const client = await this.#etcd();
    if (!this.#keepalive || this.#keepalive.dead) {
      const stream = new KeepaliveStream(await client.leaseClient.leaseKeepAlive());
      // Meanwhile another keepalive may have opened one, or reset() have been called.
      this.#keepalive?.close();
      this.#keepalive = stream;
      if (client !== this.#client) stream.close();
    }
    return this.#keepalive.ask(lease);
  }

  async leaseRevoke(lease: bigint, deadlineMs: number): Promise<void> {
    await (await this.#etcd()).leaseClient.leaseRevoke({ ID: lease.toString() }, { deadline: deadlineMs });
  }

  async status(deadlineMs: number): Promise<MemberStatus> {
    const reply = await (await this.#etcd()).maintenance.status({ deadline: deadlineMs });
    return { address: this.address.text, alive: true, dbSizeBytes: Number(reply.dbSize) };
  }

  async watchStream(): Promise<WatchStream> {
    return (await this.#etcd()).watchClient.watch();
  }

  /** The next call dials anew; calls under way go on until their deadline. */
  reset(): void {
    this.#keepalive?.close();
    this.#keepalive = null;
    this.#client?.close();
    this.#client = null;
  }

  close(): void {
    this.#closed = true;
    this.reset();
  }

  /** The files were good at the start: what is wrong with them now (half renewed, say) may pass. */
  async #credentials(): Promise<EtcdCredentials> {
    try {
      return await readEtcdCredentials(this.#tls);
    } catch (error) {
      throw new VitastorError(
        'ERR_ETCD_UNAVAILABLE',
        `etcd at ${this.address.text} cannot be reached: ${errorText(error)}`,
        { retryable: true, cause: error },
      );
    }
  }

  async #etcd(): Promise<Etcd3> {
    const [library, { noop }] = await loadEtcd3();
    const credentials = this.address.https && !this.#client ? await this.#credentials() : undefined;
    if (this.#closed) throw new VitastorError('ERR_ABORTED', 'the connection to etcd was closed');
    // gRPC names an IP address as the server's name, and Node warns once that it leaves it out of the handshake: no
    // matter of our users.
    if (credentials && isIP(this.address.host)) process.noDeprecation = true;
    this.#client ??= new library.Etcd3({
      hosts: dialTarget(this.address),
      ...(credentials ? { credentials } : {}),
      grpcOptions: CHANNEL_OPTIONS,
      faultHandling: { global: noop, host: () => noop },
    });
    return this.#client;
  }
}
