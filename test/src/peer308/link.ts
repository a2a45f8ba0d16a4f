// SPDX-License-Identifier: GPL-2.0-or-later
// One connection of the scripted peer, either end: numbers and matches, keeps alive, and closes exactly where 3.0.8 does.
// Source: wire-protocol 1.3, 2.3, 2.4, 14.

import type { Socket } from 'node:net';
import type { Cancel, Clock } from '@vitastor/core';
import type { Journal } from './journal.js';
import { BadHeader, encodeRequest, type Fields, type Message, MessageReader, OP } from './wire.js';

export interface LinkOptions {
  readonly name: string;
  readonly clock: Clock;
  readonly journal: Journal;
  /** Default 5000, as osd_idle_timeout. */
  readonly idleMs?: number;
  readonly pingTimeoutMs?: number;
  /** Requests from the other end, PING apart. Without it a request closes the connection (a client may get none). */
  readonly onRequest?: (request: Message) => void;
  readonly onClosed?: (reason: string) => void;
  /** Sees every message that comes or goes. */
  readonly onMessage?: (direction: 'in' | 'out', message: Buffer) => void;
}

/** Limits for the reply to one request. */
export interface Expect {
  /** Bytes of the bitmap buffer: a longer one closes the connection. Default 0: for operations without a bitmap. */
  readonly bitmapBytes?: number;
}

/** All requests in flight end with this when a connection is gone; stands for a local -EPIPE. */
export class LinkClosed extends Error {}

interface Waiting {
  readonly op: number;
  readonly len: bigint | undefined;
  readonly expect: Expect;
  readonly resolve: (reply: Message) => void;
  readonly reject: (error: Error) => void;
}

const DEFAULT_MS = 5000;

export class Link {
  readonly name: string;
  readonly #socket: Socket;
  readonly #options: LinkOptions;
  readonly #reader = new MessageReader();
  readonly #waiting = new Map<bigint, Waiting>();
  #lastId = 0n;
  #closedBecause: string | undefined;
  #idleTimer: Cancel | undefined;
  #pingTimer: Cancel | undefined;
  #keepalive = false;
  /** Last id of the other end's requests, checked once checkSequence is on. */
  #peerId: bigint | undefined;
  checkSequence = false;
  /** PINGs of ours that were answered. */
  pongs = 0;

  constructor(socket: Socket, options: LinkOptions) {
    this.name = options.name;
    this.#socket = socket;
    this.#options = options;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#received(chunk));
    // Half-close is close.
    socket.on('end', () => this.close('closed by the other end'));
    socket.on('error', (error) => this.close(`socket: ${error.message}`));
    socket.on('close', () => this.close('socket closed'));
  }

  get closed(): boolean {
    return this.#closedBecause !== undefined;
  }

  get closedBecause(): string | undefined {
    return this.#closedBecause;
  }

  get inFlight(): number {
    return this.#waiting.size;
  }

  close(reason: string): void {
    if (this.#closedBecause !== undefined) return;
    this.#closedBecause = reason;
    this.stopKeepalive();
    this.#socket.destroy();
    for (const waiting of this.#waiting.values()) waiting.reject(new LinkClosed(`${this.name}: ${reason}`));
    this.#waiting.clear();
    this.#options.journal.event(this.name, `connection closed: ${reason}`);
    this.#options.onClosed?.(reason);
  }

  /** The other end has broken a rule, and 3.0.8 closes there. */
  #breach(what: string, hazard?: number): void {
    this.#options.journal.violation(this.name, what, hazard);
    this.close(what);
  }

  /** Bytes as they are: replies, and what tests want to break. */
  sendRaw(bytes: Buffer): void {
    if (this.closed) return;
    this.#options.onMessage?.('out', bytes);
    this.#socket.write(bytes);
  }

  /** The next consecutive id. */
  request(op: number, fields: Fields = {}, payload: Uint8Array = Buffer.alloc(0), expect: Expect = {}): Promise<Message> {
    if (this.#closedBecause !== undefined) return Promise.reject(new LinkClosed(`${this.name}: ${this.#closedBecause}`));
    const id = ++this.#lastId;
    const len = op === OP.READ || op === OP.SEC_READ ? fields['len'] ?? 0n : undefined;
    const reply = new Promise<Message>((resolve, reject) => this.#waiting.set(id, { op, len, expect, resolve, reject }));
    this.sendRaw(encodeRequest(op, id, fields, payload));
    return reply;
  }

  startKeepalive(): void {
    this.#keepalive = true;
    this.#alive();
  }

  stopKeepalive(): void {
    this.#keepalive = false;
    this.#idleTimer?.();
    this.#pingTimer?.();
    this.#idleTimer = this.#pingTimer = undefined;
  }

  #alive(): void {
    if (!this.#keepalive) return;
    this.#pingTimer?.();
    this.#pingTimer = undefined;
    this.#idleTimer?.();
    this.#idleTimer = this.#options.clock.after(this.#options.idleMs ?? DEFAULT_MS, () => this.#ping());
  }

  #ping(): void {
    this.#idleTimer = undefined;
    this.#pingTimer = this.#options.clock.after(this.#options.pingTimeoutMs ?? DEFAULT_MS, () =>
      this.#breach('no answer to PING in time'),
    );
    this.request(OP.PING).then(
      (reply) => {
        if (reply.retval !== 0n) this.#breach(`PING answered with ${reply.retval}`);
        else this.pongs++;
      },
      () => {},
    );
  }

  #received(chunk: Buffer): void {
    if (this.closed) return;
    let messages: Message[];
    try {
      messages = this.#reader.push(chunk);
    } catch (error) {
      if (!(error instanceof BadHeader)) throw error;
      this.#breach(error.message, 12);
      return;
    }
    if (messages.length > 0) this.#alive();
    for (const message of messages) {
      if (this.closed) return;
      this.#options.onMessage?.('in', message.header);
      if (message.kind === 'reply') this.#onReply(message);
      else this.#onRequest(message);
    }
  }

  #onRequest(request: Message): void {
    if (!this.#options.onRequest) {
      this.#breach(`${request.name} was sent to a client`, 7);
      return;
    }
    if (this.checkSequence && this.#peerId !== undefined && request.id !== this.#peerId + 1n) {
      this.#breach(`request id ${request.id} follows ${this.#peerId}`, 8);
      return;
    }
    this.#peerId = request.id;
    this.#checkReserved(request);
    this.#options.onRequest(request);
  }

  #checkReserved(message: Message): void {
    const offset = message.reservedOffset();
    if (offset !== undefined)
      this.#options.journal.violation(this.name, `byte ${offset} of a ${message.name} ${message.kind} is reserved and not zero`);
  }

  #onReply(reply: Message): void {
    const waiting = this.#waiting.get(reply.id);
    if (!waiting) {
      this.#breach(`a reply has the unknown id ${reply.id}`);
      return;
    }
    if (reply.op !== waiting.op) {
      this.#breach(`a reply to opcode ${waiting.op} says ${reply.name}`);
      return;
    }
    this.#checkReserved(reply);
    if (waiting.len !== undefined) {
      const bitmap = reply.op === OP.READ ? reply.num('bitmap_len') : reply.num('attr_len');
      if (reply.retval >= 0n && reply.retval !== waiting.len) {
        this.#breach(`${reply.name} of ${waiting.len} bytes answered with ${reply.retval}`, 6);
        return;
      }
      if (bitmap > (waiting.expect.bitmapBytes ?? 0)) {
        this.#breach(`${reply.name} answered with a bitmap of ${bitmap} bytes, ${waiting.expect.bitmapBytes ?? 0} expected`, 6);
        return;
      }
      if (reply.retval < 0n && bitmap !== 0)
        this.#options.journal.violation(this.name, `an error reply to ${reply.name} has a bitmap of ${bitmap} bytes`);
      if (reply.op === OP.READ && reply.retval >= 0n && bitmap !== (waiting.expect.bitmapBytes ?? 0))
        this.#options.journal.violation(this.name, `READ answered with a bitmap of ${bitmap} bytes, clients index into the full one`);
    }
    if (reply.op === OP.DESCRIBE && reply.retval >= 0n && reply.field('result_bytes') !== reply.retval * 32n)
      this.#options.journal.violation(this.name, 'DESCRIBE: result_bytes is not 32 for each item');
    if (reply.op === OP.SEC_LIST && reply.retval >= 0n && reply.field('stable_count') > reply.retval)
      this.#options.journal.violation(this.name, 'SEC_LIST: more stable entries than entries');
    if (reply.op === OP.SHOW_CONFIG && reply.retval > 0n && reply.payload.at(-1) !== 0)
      this.#options.journal.violation(this.name, 'the reply to SHOW_CONFIG does not end with NUL', 5);
    this.#waiting.delete(reply.id);
    waiting.resolve(reply);
  }
}
