// SPDX-License-Identifier: GPL-2.0-or-later
// Connections of administration to OSDs: DESCRIBE, SCRUB, and deletion of one copy. One connection an OSD, opened when it is
// needed, any number of requests on it at once.

import { connect, type Socket } from 'node:net';
import { errnoText, errorText, VitastorError } from '../errors.js';
import type { OsdState } from '../schema/osd.js';
import type { Cancel, Clock } from '../seams/clock.js';
import {
  decodeItems, decodeReplyHeader, encodeDeleteCopy, encodeDescribe, encodeScrub, HEADER_BYTES,
  type DescribeItem, type DescribeRequest, type ObjectName, type ReplyHeader,
} from './admin-messages.js';

export interface OsdAdmin {
  /** All rejections are VitastorError: ERR_IO (retryable) with the OSD and the reason. */
  describe(osd: number, request: DescribeRequest): Promise<DescribeItem[]>;
  /** 0, or the negative errno of the primary. */
  scrub(osd: number, object: ObjectName): Promise<number>;
  deleteCopy(osd: number, object: ObjectName, part: number): Promise<number>;
  close(): void;
}

/** osdState: what etcd says of an OSD now; undefined = down. */
export type OpenOsdAdmin = (osdState: (osd: number) => OsdState | undefined) => OsdAdmin;

const CONNECT_MS = 5000;
/** A whole SCRUB of a large object on a busy disk. */
const REPLY_MS = 60_000;

interface Waiting {
  resolve: (reply: { header: ReplyHeader; payload: Buffer }) => void;
  reject: (error: VitastorError) => void;
}

class Link {
  readonly #osd: number;
  readonly #clock: Clock;
  readonly #socket: Socket;
  readonly #waiting = new Map<bigint, Waiting>();
  #chunks: Buffer[] = [];
  #received = 0;
  #header: ReplyHeader | null = null;
  #id = 0n;
  #timer: Cancel | null = null;
  closed = false;

  constructor(osd: number, host: string, port: number, clock: Clock) {
    this.#osd = osd;
    this.#clock = clock;
    this.#socket = connect({ host, port, noDelay: true });
    this.#guard(CONNECT_MS, `no connection to ${host} port ${port} within ${CONNECT_MS / 1000} s`);
    this.#socket.on('connect', () => this.#guard(REPLY_MS, `no answer within ${REPLY_MS / 1000} s`));
    this.#socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    this.#socket.on('error', (error) => this.close(errorText(error)));
    this.#socket.on('close', () => this.close('the connection was closed'));
  }

  send(make: (id: bigint) => Buffer): Promise<{ header: ReplyHeader; payload: Buffer }> {
    const id = ++this.#id;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#socket.write(make(id));
    });
  }

  close(reason: string): void {
    if (this.closed) return;
    this.closed = true;
    this.#timer?.();
    this.#socket.destroy();
    for (const waiting of this.#waiting.values()) {
      waiting.reject(new VitastorError('ERR_IO', `OSD ${this.#osd}: ${reason}`, { retryable: true }));
    }
    this.#waiting.clear();
  }

  #guard(ms: number, reason: string): void {
    this.#timer?.();
    this.#timer = this.#clock.after(ms, () => {
      if (this.#waiting.size > 0) this.close(reason);
    });
  }

  #onData(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#received += chunk.length;
    while (this.#received >= (this.#header ? this.#header.payloadBytes : HEADER_BYTES)) {
      if (this.#header) {
        this.#finish(this.#header, this.#take(this.#header.payloadBytes));
        this.#header = null;
        continue;
      }
      const header = decodeReplyHeader(this.#take(HEADER_BYTES));
      if (typeof header === 'string') return this.close(header);
      if (!this.#waiting.has(header.id)) return this.close('an answer to a request that was not sent');
      this.#header = header;
    }
  }

  #take(bytes: number): Buffer {
    const all = Buffer.concat(this.#chunks);
    this.#chunks = [all.subarray(bytes)];
    this.#received -= bytes;
    return all.subarray(0, bytes);
  }

  #finish(header: ReplyHeader, payload: Buffer): void {
    this.#guard(REPLY_MS, `no answer within ${REPLY_MS / 1000} s`);
    const waiting = this.#waiting.get(header.id);
    this.#waiting.delete(header.id);
    waiting?.resolve({ header, payload });
  }
}

export class OsdAdminLinks implements OsdAdmin {
  readonly #osdState: (osd: number) => OsdState | undefined;
  readonly #clock: Clock;
  readonly #links = new Map<number, Link>();

  constructor(osdState: (osd: number) => OsdState | undefined, clock: Clock) {
    this.#osdState = osdState;
    this.#clock = clock;
  }

  async describe(osd: number, message: DescribeRequest): Promise<DescribeItem[]> {
    const { header, payload } = await this.#link(osd).send((id) => encodeDescribe(id, message));
    if (header.retval < 0n) throw refused(osd, 'DESCRIBE', Number(header.retval));
    return decodeItems(payload);
  }

  async scrub(osd: number, object: ObjectName): Promise<number> {
    return Number((await this.#link(osd).send((id) => encodeScrub(id, object))).header.retval);
  }

  async deleteCopy(osd: number, object: ObjectName, part: number): Promise<number> {
    return Number((await this.#link(osd).send((id) => encodeDeleteCopy(id, object, part))).header.retval);
  }

  close(): void {
    for (const link of this.#links.values()) link.close('closed by us');
    this.#links.clear();
  }

  #link(osd: number): Link {
    const open = this.#links.get(osd);
    if (open && !open.closed) return open;
    const state = this.#osdState(osd);
    const host = state?.up ? state.addresses[0] : undefined;
    if (state === undefined || host === undefined) {
      throw new VitastorError('ERR_IO', `OSD ${osd} is down: start it, or name other OSDs`, { retryable: true });
    }
    const link = new Link(osd, host === '0.0.0.0' ? '127.0.0.1' : host, state.port, this.#clock);
    this.#links.set(osd, link);
    return link;
  }
}

function refused(osd: number, what: string, retval: number): VitastorError {
  return new VitastorError('ERR_IO', `OSD ${osd} refuses ${what}: ${errnoText(-retval)}`, { retryable: true });
}
