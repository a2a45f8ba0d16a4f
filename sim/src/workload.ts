// SPDX-License-Identifier: GPL-2.0-or-later
// What the clients do: reads, writes, compare-and-set, discards and flushes, several at once, each answer given to the oracle.

import type { ClientProcess } from './client.js';
import type { SimCluster } from './cluster.js';
import { fillGranule, GRANULE, granuleValue, Oracle, VersionOracle, type WriteToken } from './oracle.js';
import type { SeededRandom } from './rng.js';
import { granulesOf, isBuffered, isShared, objectBytes } from './shape.js';

const EINTR = -4;
const EIO = -5;
const ENOSPC = -28;
const RELIEF_OBJECTS = 4;

export class Workload {
  readonly #cluster: SimCluster;
  readonly #random: SeededRandom;
  readonly #oracle = new Oracle();
  readonly #versions = new Map<string, VersionOracle>();
  /** Acknowledged writes of a client and image that no flush has covered: only where a write alone is not durable. */
  readonly #unsynced = new Map<string, Set<WriteToken>>();
  /** The same, before they are answered. */
  readonly #sent = new Map<ClientProcess, Set<WriteToken>>();
  /** Values that may vanish: their client died before it had flushed, or will not send them again. */
  readonly #unsure = new Set<number>();
  /** Granules of images that are smaller than they were: nothing is begun behind them. */
  readonly #ends = new Map<number, number>();
  readonly #isLayered: boolean;
  readonly #objectGranules: number;
  readonly #total: number;
  readonly #isLazy: boolean;
  readonly #pauseMs: number;
  #working = false;
  /** Chains of operations that run, by client. */
  readonly #chains = new Map<ClientProcess, number>();
  /** Media decay while other OSDs are away: what is left may be too little, until they are back. */
  isDecaying: () => boolean = () => false;
  readonly #readers = new Set<ClientProcess>();
  readonly failures: string[] = [];
  operations = 0;
  inFlight = 0;
  /** By kind, for the report. */
  readonly counts: Record<string, number> = {};

  constructor(cluster: SimCluster, random: SeededRandom) {
    const { shape } = cluster;
    this.#cluster = cluster;
    this.#random = random;
    this.#objectGranules = objectBytes(shape) / GRANULE;
    this.#total = granulesOf(shape);
    this.#isLazy = shape.immediateCommit !== 'all' || isBuffered(shape);
    this.#isLayered = shape.isLayered;
    this.#pauseMs = (shape.clients * shape.depth * 60_000) / shape.operationsPerMinute;
  }

  /** Local reads are in use from now on. Those of chunks are linearizable as all others (docs/adr/0049). */
  allowLocalReads(): void {
    if (this.#cluster.shape.scheme === 'replicated') this.#oracle.isRegular = true;
  }

  start(): void {
    if (this.#cluster.shape.localReads !== 'primary') this.allowLocalReads();
    // A write that was refused on some copies can be read, and is gone while its client sends again, in order, what it had done before.
    if (this.#cluster.shape.isTight && this.#isLazy) this.#oracle.isRegular = true;
    this.#working = true;
    for (const client of this.#cluster.clients) this.fillUp(client);
  }

  /** No new operations; those in flight go on. */
  stop(): void {
    this.#working = false;
  }

  /** After a client has started: opens its images and begins its chains. */
  fillUp(client: ClientProcess): void {
    const { generation } = client;
    this.#chains.set(client, 0);
    for (const image of this.imagesOf(client)) {
      client.open(image, this.#cluster.imageName(image), (result) => {
        if (client.generation !== generation) return;
        if (result !== 0) this.fail(`client${client.num}: opening image ${image} answered ${result}`);
        while (this.#working && (this.#chains.get(client) ?? 0) < this.#cluster.shape.depth) {
          this.#chains.set(client, (this.#chains.get(client) ?? 0) + 1);
          this.#next(client, generation);
        }
      });
    }
  }

  /** From now on it begins reads only. */
  onlyReads(client: ClientProcess, isReader: boolean): void {
    if (isReader) this.#readers.add(client);
    else this.#readers.delete(client);
  }

  /** Its operations are never answered; what it had not flushed may vanish. */
  killClient(client: ClientProcess): void {
    if (!client.isRunning) return;
    client.kill();
    for (const image of this.imagesOf(client)) {
      for (const token of this.#unsynced.get(keyOf(client, image)) ?? []) this.#forget(token);
      this.#unsynced.delete(keyOf(client, image));
    }
    for (const token of this.#sent.get(client) ?? []) this.#forget(token);
    this.#sent.delete(client);
    this.inFlight -= this.#pending.get(client) ?? 0;
    this.#pending.set(client, 0);
  }

  #forget(token: WriteToken): void {
    this.#oracle.forget(token);
    this.#unsure.add(token.id);
  }

  /** In modes in which an answer alone does not make it durable, and where layers may go that it was sent to. */
  #sending(client: ClientProcess, token: WriteToken): void {
    if (!this.#isLazy && !this.#isLayered) return;
    const sent = this.#sent.get(client) ?? new Set();
    this.#sent.set(client, sent.add(token));
  }

  /** Of the oracle: a number for this moment. */
  now(): number {
    return this.#oracle.now();
  }

  /** Whatever was written before `moment` is answered and durable, or nobody counts on it. */
  isSettledSince(image: number, moment: number): boolean {
    const isOld = (token: WriteToken): boolean => (token.effects[0]?.effect.began ?? 0) < moment;
    for (const client of this.#cluster.clients) {
      for (const tokens of [this.#sent.get(client), this.#unsynced.get(keyOf(client, image))]) {
        for (const token of tokens ?? []) if (isOld(token)) return false;
      }
    }
    return true;
  }

  /** What a copy of the image, made between the two moments, has in a granule: an error, or null. */
  checkCopy(image: number, granule: number, value: number | null, began: number, ended: number): string | null {
    if (value === null) return 'torn or foreign bytes';
    if (this.#unsure.has(value) || this.#oracle.mayHaveHeld(image, granule, value, began, ended)) return null;
    return `value ${value}, which the image did not have then`;
  }

  /** What was under way when a copy was made may come into it later, with an OSD that was lost (docs/reliability.md). */
  mayComeLater(image: number, granule: number, value: number, began: number, ended: number): boolean {
    return this.#unsure.has(value) || this.#oracle.wasUnderWay(image, granule, value, began, ended, isBuffered(this.#cluster.shape));
  }

  isUnsure(value: number): boolean {
    return this.#unsure.has(value);
  }

  /** Granules of an image that are in use. */
  endOf(image: number): number {
    return this.#ends.get(image) ?? this.#total;
  }

  /** For a shrink before it begins, and for a grow when clients know of it. */
  setEnd(image: number, granules: number): void {
    this.#ends.set(image, granules);
  }

  /** A shrink from granule `end` to `before` begins; endCut() when it is done. */
  beginCut(image: number, end: number, before: number): WriteToken {
    return this.#oracle.beginDiscard(image, range(end, before - end));
  }

  endCut(token: WriteToken): void {
    this.#oracle.endWrite(token);
  }

  imagesOf(client: ClientProcess): number[] {
    const images = Array.from({ length: this.#cluster.shape.images }, (_, i) => i + 1);
    return isShared(this.#cluster.shape) ? images : images.filter((image) => (image - 1) % this.#cluster.shape.clients === client.num - 1);
  }

  fail(text: string): void {
    this.#cluster.note(`WRONG ${text}`);
    this.failures.push(text);
  }

  /** Reads every image wholly; `done` when all is answered. */
  readEverything(done: () => void): void {
    let left = 1;
    const finish = (): void => {
      if (--left === 0) done();
    };
    for (const image of Array.from({ length: this.#cluster.shape.images }, (_, i) => i + 1)) {
      const client = this.#cluster.clients.find((candidate) => this.imagesOf(candidate).includes(image));
      if (!client) continue;
      const end = this.endOf(image);
      for (let first = 0; first < end; first += this.#objectGranules) {
        left++;
        this.#read(client, image, first, Math.min(this.#objectGranules, end - first), finish);
      }
    }
    finish();
  }

  /** Discards a few objects, while everything else waits for room. */
  relieve(): void {
    for (let i = 0; i < RELIEF_OBJECTS; i++) {
      const image = 2 * this.#random.between(1, Math.floor(this.#cluster.shape.images / 2));
      const client = this.#cluster.clients.find((candidate) => this.imagesOf(candidate).includes(image));
      if (!client?.isRunning || !client.isOpen(image)) continue;
      const first = this.#random.below(this.#total / this.#objectGranules) * this.#objectGranules;
      this.#discard(client, image, first, this.#objectGranules, () => undefined);
    }
  }

  /** Deletes everything that may be deleted, to make room. `done` when all is answered. */
  removeDeletable(done: () => void): void {
    let left = 1;
    const finish = (): void => {
      if (--left === 0) done();
    };
    for (let image = 2; image <= this.#cluster.shape.images; image += 2) {
      const client = this.#cluster.clients.find((candidate) => this.imagesOf(candidate).includes(image));
      if (!client?.native || !client.isOpen(image)) continue;
      for (let first = 0; first < this.#total; first += this.#objectGranules) {
        left++;
        const token = this.#oracle.beginDiscard(image, range(first, this.#objectGranules));
        this.#begin(client, 'delete');
        client.native.remove(image, offsetOf(first), (result) => {
          if (result < 0) this.fail(`delete of image ${image} granule ${first} answered ${result}`);
          else this.#acknowledged(client, image, token);
          this.#end(client);
          finish();
        });
      }
    }
    finish();
  }

  // ---------------------------------------------------------------- chains

  readonly #pending = new Map<ClientProcess, number>();

  #begin(client: ClientProcess, kind: string): void {
    this.inFlight++;
    this.#pending.set(client, (this.#pending.get(client) ?? 0) + 1);
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
  }

  #end(client: ClientProcess): void {
    this.inFlight--;
    this.operations++;
    this.#pending.set(client, (this.#pending.get(client) ?? 0) - 1);
  }

  #next(client: ClientProcess, generation: number): void {
    if (!this.#working || this.failures.length > 0 || client.generation !== generation || !client.isRunning) {
      if (client.generation === generation) this.#chains.set(client, (this.#chains.get(client) ?? 1) - 1);
      return;
    }
    const random = this.#random;
    const images = this.imagesOf(client).filter((image) => client.isOpen(image));
    const then = (): void => {
      const pauseMs = random.chance(80) ? random.below(10) : random.below(Math.max(10, Math.round(10 * (this.#pauseMs - 4))));
      this.#cluster.clock.after(pauseMs, () => this.#next(client, generation));
    };
    if (images.length === 0) return void this.#cluster.clock.after(10, () => this.#next(client, generation));
    const image = random.pick(images);
    const end = this.endOf(image);
    const isWhole = random.chance(5) && end >= this.#objectGranules;
    const count = isWhole ? this.#objectGranules : random.chance(75) ? 1 : Math.min(end, random.between(2, this.#objectGranules));
    const range = random.chance(40) ? Math.min(end, 2 * this.#objectGranules) : end;
    const first = isWhole ? random.below(Math.floor(range / count)) * count : random.below(range - count + 1);
    const kind = random.below(100);
    const { discardPercent } = this.#cluster.shape;
    if (this.#readers.has(client)) this.#read(client, image, first, count, then);
    else if (image % 2 === 0 && random.chance(discardPercent)) this.#discardSome(client, image, first, count, then);
    else if (kind < 42) this.#write(client, image, first, count, then);
    else if (kind < 80) this.#read(client, image, first, count, then);
    else if (kind < 88) this.#compareAndSet(client, image, first, then);
    else this.#flush(client, image, then);
  }

  // ---------------------------------------------------------------- operations

  #write(client: ClientProcess, image: number, first: number, count: number, then: () => void): void {
    const granules = range(first, count);
    const token = this.#oracle.beginWrite(image, granules);
    const began = this.#oracle.now();
    this.#begin(client, 'write');
    this.#sending(client, token);
    client.native?.write(image, offsetOf(first), filled(count, token.id), (result, version) => {
      this.#sent.get(client)?.delete(token);
      this.#cluster.trace(() => `client${client.num} write ${token.id} at ${image}:${first}+${count} answers ${result} version ${version}`);
      if (result === ENOSPC && this.#mayBeFull) this.#refused(token);
      else if (result !== count * GRANULE) this.fail(`write ${token.id} at image ${image} granule ${first} answered ${result}`);
      else this.#written(client, image, first, token, version, began, null);
      this.#end(client);
      then();
    });
  }

  #compareAndSet(client: ClientProcess, image: number, first: number, then: () => void): void {
    const readBegan = this.#oracle.now();
    const isLate = this.#random.chance(20);
    this.#begin(client, 'compare-and-set');
    client.native?.read(image, offsetOf(first), GRANULE, (result, expected, data) => {
      if (result === GRANULE) this.#checkRead(image, first, 1, expected, data, readBegan);
      else this.fail(`read before a compare-and-set at image ${image} granule ${first} answered ${result}`);
      const go = (): void => {
        if (!client.native || !client.isOpen(image)) return;
        if (first >= this.endOf(image)) {
          this.#end(client);
          return then();
        }
        const token = this.#oracle.beginWrite(image, [first]);
        const began = this.#oracle.now();
        // Sent once, and durable by a SYNC of its own: until it is answered well it may be read, and vanish with the power.
        if (this.#isLazy) this.#unsure.add(token.id);
        if (this.#isLayered) this.#sending(client, token);
        client.native.compareWrite(image, offsetOf(first), filled(1, token.id), expected, (answer, version) => {
          if (answer === GRANULE) this.#unsure.delete(token.id);
          this.#sent.get(client)?.delete(token);
          // It may still arrive, in a layer that is on its way out.
          if (answer !== GRANULE && this.#isLayered) this.#forget(token);
          this.#cluster.trace(() => `client${client.num} compare-and-set ${token.id} of version ${expected} at ${image}:${first} answers ${answer} version ${version}`);
          if (answer === GRANULE) this.#written(client, image, first, token, version, began, expected);
          else if (answer !== EINTR && !this.#mayFail(answer)) this.fail(`compare-and-set ${token.id} at image ${image} granule ${first} answered ${answer}`);
          this.#end(client);
          then();
        });
      };
      const { generation } = client;
      if (!isLate) go();
      else this.#cluster.clock.after(20, () => client.generation === generation && go());
    });
  }

  /** Half of them whole objects, which are deleted; of others zeroes are left. */
  #discardSome(client: ClientProcess, image: number, first: number, count: number, then: () => void): void {
    const isWhole = this.#random.chance(50);
    const begin = isWhole ? first - (first % this.#objectGranules) : first;
    this.#discard(client, image, begin, isWhole ? Math.min(this.#objectGranules, this.endOf(image) - begin) : count, then);
  }

  #discard(client: ClientProcess, image: number, first: number, count: number, then: () => void): void {
    const token = this.#oracle.beginDiscard(image, range(first, count));
    this.#begin(client, 'discard');
    const isDelete = this.#cluster.shape.removes && count === this.#objectGranules && first % count === 0;
    const send = (done: (result: number) => void): void =>
      isDelete ? client.native?.remove(image, offsetOf(first), done) : client.native?.discard(image, offsetOf(first), count * GRANULE, done);
    this.#sending(client, token);
    send((result) => {
      this.#sent.get(client)?.delete(token);
      this.#cluster.trace(() => `client${client.num} discard ${token.id} at ${image}:${first}+${count} answers ${result}`);
      if (result < 0 && !(result === ENOSPC && this.#mayBeFull)) this.fail(`discard ${token.id} at image ${image} granule ${first} answered ${result}`);
      else if (result >= 0) this.#acknowledged(client, image, token);
      else this.#refused(token);
      this.#end(client);
      then();
    });
  }

  /** There was no room. Some of it may be there, and what the client sends again of older writes may take that away. */
  #refused(token: WriteToken): void {
    this.counts['no space'] = (this.counts['no space'] ?? 0) + 1;
    if (this.#isLazy) this.#forget(token);
  }

  #flush(client: ClientProcess, image: number, then: () => void): void {
    const covered = [...(this.#unsynced.get(keyOf(client, image)) ?? [])];
    this.#begin(client, 'flush');
    client.native?.flush(image, (result) => {
      if (result !== 0) this.fail(`flush of image ${image} answered ${result}`);
      else for (const token of covered) this.#unsynced.get(keyOf(client, image))?.delete(token);
      this.#end(client);
      then();
    });
  }

  #read(client: ClientProcess, image: number, first: number, count: number, then: () => void): void {
    const began = this.#oracle.now();
    this.#begin(client, 'read');
    client.native?.read(image, offsetOf(first), count * GRANULE, (result, version, data) => {
      if (result !== count * GRANULE) this.fail(`client${client.num}: read at image ${image} granule ${first} answered ${result}`);
      else this.#checkRead(image, first, count, version, data, began);
      this.#end(client);
      then();
    });
  }

  // ---------------------------------------------------------------- checks

  /** What a compare-and-set, which is sent only once, may be answered with. */
  #mayFail(answer: number): boolean {
    return (answer === ENOSPC && this.#mayBeFull) || (answer === EIO && this.isDecaying());
  }

  /** A write that found no room was not answered as done: the oracle lets it be there or not. A compare-and-set is sent only once. */
  get #mayBeFull(): boolean {
    return this.#cluster.shape.isTight;
  }

  #written(client: ClientProcess, image: number, first: number, token: WriteToken, version: bigint, began: number, expected: bigint | null): void {
    this.#acknowledged(client, image, token);
    const versions = this.#versionsOf(image, first, token.effects.length);
    if (!versions || version === 0n) return;
    const values = new Map(range(first, token.effects.length).map((granule) => [granule, token.id]));
    const wrong = versions.write(version, values, began, this.#oracle.now()) ?? (expected === null ? null : versions.compareWrite(expected, version));
    if (wrong !== null) this.fail(`image ${image} granule ${first}: ${wrong}`);
  }

  #acknowledged(client: ClientProcess, image: number, token: WriteToken): void {
    this.#oracle.endWrite(token);
    if (!this.#isLazy) return;
    const key = keyOf(client, image);
    const unsynced = this.#unsynced.get(key) ?? new Set();
    this.#unsynced.set(key, unsynced.add(token));
  }

  #checkRead(image: number, first: number, count: number, version: bigint, data: Uint8Array, began: number): void {
    const values = new Map<number, number>();
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
    for (let i = 0; i < count; i++) {
      const value = granuleValue(bytes, i * GRANULE);
      if (value === null) this.fail(`image ${image} granule ${first + i}: torn or foreign bytes`);
      else if (!this.#unsure.has(value)) {
        const wrong = this.#oracle.checkRead(image, first + i, value, began);
        if (wrong !== null) this.fail(wrong);
        values.set(first + i, value);
      }
    }
    const wrong = this.#versionsOf(image, first, count)?.read(version, values, began, this.#oracle.now(), count === this.#objectGranules && !this.#oracle.isRegular ? 'whole' : 'part');
    if (wrong) this.fail(`image ${image} granule ${first}: ${wrong}`);
  }

  /** Null where versions prove nothing: several objects, objects that are deleted, layers that come and go, writes that may be lost. */
  #versionsOf(image: number, first: number, count: number): VersionOracle | null {
    const object = Math.floor(first / this.#objectGranules);
    if (this.#isLazy || this.#isLayered || image % 2 === 0 || Math.floor((first + count - 1) / this.#objectGranules) !== object) return null;
    const key = `${image}/${object}`;
    let versions = this.#versions.get(key);
    if (!versions) this.#versions.set(key, (versions = new VersionOracle()));
    return versions;
  }
}

function keyOf(client: ClientProcess, image: number): string {
  return `${client.num}/${image}`;
}

function range(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}

function offsetOf(granule: number): bigint {
  return BigInt(granule) * BigInt(GRANULE);
}

/** Its bytes are taken at once, so all writes share one piece of memory: garbage collection costs more than filling it. */
let memory = new Uint8Array(0);

function filled(count: number, id: number): Uint8Array {
  if (memory.length < count * GRANULE) memory = new Uint8Array(count * GRANULE);
  const data = memory.subarray(0, count * GRANULE);
  for (let i = 0; i < count; i++) fillGranule(data, i * GRANULE, id);
  return data;
}
