// SPDX-License-Identifier: GPL-2.0-or-later
// Recorded requests of 3.0.8 sent to one of our OSDs, and its replies compared with the recorded ones: result codes, versions,
// bitmaps, lists. Data is not compared, because the recordings keep only its beginning and its checksum.
//
// Versions: the recorded cluster had a past of its own, so versions may differ by epoch. Each recorded version of an object
// stands for one of ours, always the same, and both count up together.

import type { PeerOpener } from './opener.js';
import type { RecordedMessage } from './recording.js';
import { decodeTriples, ERR, type Fields, type Message, OP, payloadSizes } from './wire.js';

export interface ReplayResult {
  readonly compared: number;
  /** Requests about objects from before the session, and requests without a recorded reply. */
  readonly leftOut: number;
  readonly differences: readonly string[];
}

export interface ReplayOptions {
  /** Revision of the inode's key in our etcd; recorded revisions are replaced by it. */
  readonly inodeRevision?: (inode: bigint) => bigint;
  /** Data chunks of a pool, 1 = replicated; undefined: its requests are left out. */
  readonly dataChunks: (pool: number) => number | undefined;
}

interface Pair {
  readonly request: RecordedMessage;
  readonly reply: RecordedMessage | undefined;
}

/** Requests that `wanted` takes, in recorded order, each with its reply. */
export function pairs(session: readonly RecordedMessage[], wanted: (request: RecordedMessage) => boolean): Pair[] {
  const replies = new Map<string, RecordedMessage>();
  const key = (m: RecordedMessage, opener: string, acceptor: string): string => `${m.connection} ${opener} ${acceptor} ${m.message.id}`;
  for (const m of session) if (m.kind === 'reply') replies.set(key(m, m.to, m.from), m);
  return session
    .filter((m) => m.kind === 'request' && wanted(m))
    .map((request) => ({ request, reply: replies.get(key(request, request.from, request.to)) }));
}

/** Payload of a recorded request: what was kept of it, then zeroes. */
function payloadOf(recorded: RecordedMessage): Buffer {
  const out = Buffer.alloc(recorded.payloadLength);
  recorded.payloadStart.copy(out);
  return out;
}

/** Pool of the object or list that a client asks for; 0: it names none (SYNC). */
function poolOf(message: Message): number {
  return Number((message.fields['inode'] ?? message.fields['min_inode'] ?? 0n) >> 48n);
}

class Versions {
  readonly #ours = new Map<string, bigint>();
  readonly #last = new Map<string, [recorded: bigint, ours: bigint]>();

  /** Our version for the recorded one; undefined if it was never seen. */
  ours(object: string, recorded: bigint): bigint | undefined {
    return recorded === 0n ? 0n : this.#ours.get(`${object} ${recorded}`);
  }

  /** Complaint, or undefined. */
  check(object: string, recorded: bigint, ours: bigint): string | undefined {
    if (recorded === 0n || ours === 0n) return recorded === ours ? undefined : `version ${ours}, recorded ${recorded}`;
    const known = this.#ours.get(`${object} ${recorded}`);
    if (known !== undefined) return known === ours ? undefined : `version ${ours}, the same was ${known} before`;
    const last = this.#last.get(object);
    if (last && recorded === last[0] + 1n && ours !== last[1] + 1n) return `version ${ours} after ${last[1]}, recorded ${recorded} after ${last[0]}`;
    this.#ours.set(`${object} ${recorded}`, ours);
    this.#last.set(object, [recorded, ours]);
    return undefined;
  }

  forget(object: string): void {
    this.#last.delete(object);
  }
}

const CLIENT_OPS: readonly number[] = [OP.READ, OP.WRITE, OP.DELETE, OP.SYNC, OP.SEC_LIST];

/** Replays what clients asked in a session. `opener`: a client connection to the OSD that leads the only PG of each pool. */
export async function replayClient(session: readonly RecordedMessage[], opener: PeerOpener, options: ReplayOptions): Promise<ReplayResult> {
  const versions = new Versions();
  const differences: string[] = [];
  let [compared, leftOut] = [0, 0];
  const wanted = (m: RecordedMessage): boolean => {
    const pool = poolOf(m.message);
    return m.from === 'client' && CLIENT_OPS.includes(m.message.op) && (pool === 0 || options.dataChunks(pool) !== undefined);
  };
  for (const { request, reply } of pairs(session, wanted)) {
    if (!reply) {
      leftOut++;
      continue;
    }
    const { message } = request;
    const fields: Record<string, bigint> = { ...message.fields };
    const dataChunks = options.dataChunks(poolOf(message)) ?? 1;
    const object = message.op === OP.SYNC || message.op === OP.SEC_LIST ? '' : `${message.field('inode')}:${message.field('offset') / BigInt(131072 * dataChunks)}`;
    if (message.op === OP.READ && message.field('meta_revision') !== 0n && options.inodeRevision)
      fields['meta_revision'] = options.inodeRevision(message.field('inode'));
    const cas = message.op === OP.WRITE || message.op === OP.DELETE ? message.field('version') : 0n;
    if (cas > 1n) fields['version'] = (versions.ours(object, cas - 1n) ?? cas - 1n) + 1n;
    const got = await opener.link.request(message.op, fields as Fields, payloadOf(request), { bitmapBytes: 4 * dataChunks });
    compared++;
    const what = `${message.name} ${object} at ${request.timeMs} ms`;
    const want = reply.message;
    if (got.retval !== want.retval) {
      differences.push(`${what}: result ${got.retval}, recorded ${want.retval}`);
      continue;
    }
    if (message.op === OP.READ || message.op === OP.WRITE) {
      const complaint = versions.check(object, want.field('version'), got.field('version'));
      if (complaint !== undefined) differences.push(`${what}: ${complaint}`);
    }
    if (message.op === OP.READ && message.op === want.op) {
      const { bitmap } = payloadSizes('reply', want.header);
      const recorded = reply.payloadStart.subarray(0, bitmap).toString('hex');
      const ours = got.payload.subarray(0, bitmap).toString('hex');
      if (recorded !== ours) differences.push(`${what}: bitmap ${ours}, recorded ${recorded}`);
    }
    if (message.op === OP.DELETE) {
      versions.forget(object);
      if (got.field('flags') !== want.field('flags')) differences.push(`${what}: flags ${got.field('flags')}, recorded ${want.field('flags')}`);
    }
    if (message.op === OP.SEC_LIST) {
      // Role bits may be there or not: requesters mask them (wire-protocol 8.9).
      const list = (bytes: Buffer): string => decodeTriples(bytes).map((t) => `${t.inode}:${t.stripe & ~0xfffn}`).sort().join(' ');
      if (reply.payloadStart.length === reply.payloadLength && list(got.payload) !== list(reply.payloadStart))
        differences.push(`${what}: lists ${list(got.payload)}, recorded ${list(reply.payloadStart)}`);
      if (got.field('flags') !== want.field('flags')) differences.push(`${what}: flags ${got.field('flags')}, recorded ${want.field('flags')}`);
    }
  }
  return { compared, leftOut, differences };
}

/**
 * Replays what OSD `from` asked OSD `to` as a secondary. `opener`: announces itself as `from`, to one of ours that takes the place of `to`
 * and starts empty. Objects that the session did not create itself are left out.
 */
export async function replaySecondary(session: readonly RecordedMessage[], from: string, to: string, opener: PeerOpener): Promise<ReplayResult> {
  const differences: string[] = [];
  /** Objects that the session wrote, with the first version that it wrote. */
  const known = new Map<string, bigint>();
  let [compared, leftOut] = [0, 0];
  const wanted = (m: RecordedMessage): boolean => m.from === from && m.to === to && ![OP.SHOW_CONFIG, OP.PING].includes(m.message.op as never);
  for (const { request, reply } of pairs(session, wanted)) {
    const { message } = request;
    const objects = objectsOf(request);
    const creates = message.op === OP.SEC_WRITE || message.op === OP.SEC_WRITE_STABLE;
    const anyObject = creates || message.op === OP.SEC_SYNC || message.op === OP.SEC_LIST || message.op === OP.SEC_LOCK || message.op === OP.SEC_DELETE;
    // Refusals that came from the state of that cluster: PG not known yet, device full.
    const circumstances = reply && ((message.op === OP.SEC_LOCK && reply.message.retval < 0n) || reply.message.retval === ERR.ENOSPC);
    if (!reply || circumstances || (!anyObject && !objects.every((o) => known.has(o)))) {
      leftOut++;
      continue;
    }
    const got = await opener.link.request(message.op, message.fields, payloadOf(request), { bitmapBytes: 4 });
    const want = reply.message;
    const what = `${message.name} ${objects.join(' ')} at ${request.timeMs} ms`;
    compared++;
    if (message.op === OP.SEC_LIST) {
      compareLists(what, known, got, want, reply, differences);
      continue;
    }
    if (got.retval !== want.retval) differences.push(`${what}: result ${got.retval}, recorded ${want.retval}`);
    for (const name of ['version', 'attr_len', 'holder'])
      if (message.op !== OP.SEC_DELETE && want.fields[name] !== got.fields[name])
        differences.push(`${what}: ${name} ${got.fields[name]}, recorded ${want.fields[name]}`);
    if (message.op === OP.SEC_READ && want.retval >= 0n) {
      const [ours, theirs] = [got.payload.subarray(0, 4).toString('hex'), reply.payloadStart.subarray(0, 4).toString('hex')];
      if (ours !== theirs) differences.push(`${what}: bitmap ${ours}, recorded ${theirs}`);
    }
    if (message.op === OP.SEC_READ_BMP && !got.payload.equals(reply.payloadStart))
      differences.push(`${what}: bitmaps ${got.payload.toString('hex')}, recorded ${reply.payloadStart.toString('hex')}`);
    if (creates && got.retval >= 0n) for (const o of objects) known.set(o, known.get(o) ?? message.field('version'));
    if (message.op === OP.SEC_DELETE) for (const o of objects) known.delete(o);
  }
  return { compared, leftOut, differences };
}

function objectsOf(request: RecordedMessage): string[] {
  const { message } = request;
  const triples: readonly number[] = [OP.SEC_STABILIZE, OP.SEC_ROLLBACK, OP.SEC_READ_BMP];
  if (triples.includes(message.op)) {
    // Longer lists are not recorded completely: their objects are unknown.
    if (request.payloadStart.length < request.payloadLength) return ['unrecorded'];
    return decodeTriples(request.payloadStart).map((t) => `${t.inode}:${t.stripe}`);
  }
  const [inode, stripe] = [message.fields['inode'], message.fields['stripe']];
  return inode === undefined || stripe === undefined ? [] : [`${inode}:${stripe}`];
}

/** Only what the session wrote; the rest is from before. */
function compareLists(what: string, known: ReadonlyMap<string, bigint>, got: Message, want: Message, reply: RecordedMessage, differences: string[]): void {
  if (want.retval < 0n || got.retval < 0n) {
    if (want.retval !== got.retval) differences.push(`${what}: result ${got.retval}, recorded ${want.retval}`);
    return;
  }
  if (reply.payloadStart.length < reply.payloadLength) return;
  const list = (message: Message, payload: Buffer): string => {
    const stable = Number(message.field('stable_count'));
    return decodeTriples(payload)
      .map((t, i) => ({ name: `${t.inode}:${t.stripe}`, version: t.version, text: `${t.inode}:${t.stripe} v${t.version} ${i < stable ? 'stable' : 'unstable'}` }))
      .filter(({ name, version }) => version >= (known.get(name) ?? version + 1n))
      .map(({ text }) => text)
      .sort()
      .join(', ');
  };
  const [ours, theirs] = [list(got, got.payload), list(want, reply.payloadStart)];
  if (ours !== theirs) differences.push(`${what}: lists ${ours}, recorded ${theirs}`);
}
