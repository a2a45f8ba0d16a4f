// SPDX-License-Identifier: GPL-2.0-or-later
// What each granule may hold, for any number of clients. Every write fills its granules with its own number, so that a value names the
// write it comes from; a discard leaves value 0, as before all writes.
//
// A client sends a write again until it is answered, so a write takes effect once or more between its begin and its answer, and never
// after. Whatever certainly held at some time is evidence: a write, from its begin to its answer; a read, likewise. A read that returns v
// is explained by an effect of v, unless for each effect evidence of another value lies wholly between its answer and the begin of the
// read. A write without an answer may take effect at any time.

export const GRANULE = 4096;
/** Of an image. Small, so that keys of granules are small integers to V8. */
const GRANULES_MAX = 2 ** 24;

/** A write or discard, as one granule sees it. Numbers are the oracle's, in order of happening. */
interface Effect {
  value: number;
  began: number;
  /** Infinity: not answered. */
  ended: number;
}

/** The granule certainly held `value` at some time in between. */
interface Evidence {
  value: number;
  began: number;
  ended: number;
}

interface Granule {
  effects: Effect[];
  /** In order of `ended`. */
  evidence: Evidence[];
}

/** What a write is known by until it is answered. */
export interface WriteToken {
  id: number;
  effects: { granule: Granule; effect: Effect }[];
}

export class Oracle {
  readonly #granules = new Map<number, Granule>();
  /**
   * A read of a write in progress proves nothing, nor do zeroes while a discard is. Local reads of copies: they get a write one after the
   * other, so a reader may see it on one and then not yet on another, until it is acknowledged (semantics.md: no linearizability).
   */
  isRegular = false;
  #sequence = 0;
  #nextWrite = 1;

  /** A number for everything that happens, in order. */
  now(): number {
    return ++this.#sequence;
  }

  /** Fill the granules with the token's id. */
  beginWrite(image: number, granules: readonly number[]): WriteToken {
    const id = this.#nextWrite++;
    return this.#begin(image, granules, id, id);
  }

  beginDiscard(image: number, granules: readonly number[]): WriteToken {
    return this.#begin(image, granules, this.#nextWrite++, 0);
  }

  /** It was acknowledged. A write that failed, or whose client died, never ends. */
  endWrite(token: WriteToken): void {
    const now = this.now();
    for (const { granule, effect } of token.effects) {
      effect.ended = now;
      granule.evidence.push({ value: effect.value, began: effect.began, ended: now });
    }
  }

  /** Its client died before it was durable: it may be there or not, and what was seen of it proves nothing any more. */
  forget(token: WriteToken): void {
    for (const { granule, effect } of token.effects) {
      effect.ended = Number.POSITIVE_INFINITY;
      granule.evidence = granule.evidence.filter((item) => item.value !== effect.value);
    }
  }

  /** Might the granule have held `value` between `began` and `ended`, both now() of then? For copies that were made there. */
  mayHaveHeld(image: number, granule: number, value: number, began: number, ended: number): boolean {
    const { effects, evidence } = this.#of(image, granule);
    return effects.some((effect) => effect.value === value && effect.began < ended && contradiction(evidence, effect, began) === null);
  }

  /** Was a write or discard of `value` there under way between the two moments? Buffered ones may still be when they are answered. */
  wasUnderWay(image: number, granule: number, value: number, began: number, ended: number, isBuffered: boolean): boolean {
    return this.#of(image, granule).effects.some((effect) => effect.value === value && effect.began < ended && (isBuffered || effect.ended > began));
  }

  /** Null: explained. Else why not. `began`: now() before the read was sent. */
  checkRead(image: number, granule: number, value: number, began: number): string | null {
    const { effects, evidence } = this.#of(image, granule);
    const where = (): string => `image ${image} granule ${granule}`;
    const candidates = effects.filter((effect) => effect.value === value);
    if (candidates.length === 0) return `${where()}: read value ${value}, which was never written there`;
    let against: Evidence | null = null;
    const explained = candidates.some((effect) => {
      against = contradiction(evidence, effect, began);
      return against === null;
    });
    if (!explained) {
      const other = against as Evidence | null;
      return `${where()}: read ${named(value)}, which had ended before ${named(other?.value ?? 0)} was written or read there (${other?.began} to ${other?.ended}, this read began at ${began})`;
    }
    if (!this.isRegular || candidates.every((effect) => effect.ended < began)) evidence.push({ value, began, ended: this.now() });
    return null;
  }

  #begin(image: number, granules: readonly number[], id: number, value: number): WriteToken {
    const began = this.now();
    const effects = granules.map((number) => {
      const granule = this.#of(image, number);
      const effect: Effect = { value, began, ended: Number.POSITIVE_INFINITY };
      granule.effects.push(effect);
      return { granule, effect };
    });
    return { id, effects };
  }

  #of(image: number, number: number): Granule {
    const key = image * GRANULES_MAX + number;
    let granule = this.#granules.get(key);
    if (!granule) this.#granules.set(key, (granule = { effects: [{ value: 0, began: 0, ended: 0 }], evidence: [] }));
    return granule;
  }
}

function contradiction(evidence: readonly Evidence[], effect: Effect, readBegan: number): Evidence | null {
  for (let i = evidence.length - 1; i >= 0; i--) {
    const item = evidence[i];
    if (!item || item.ended <= effect.ended) break;
    if (item.ended < readBegan && item.began > effect.ended && item.value !== effect.value) return item;
  }
  return null;
}

function named(value: number): string {
  return value === 0 ? 'zeroes' : `write ${value}`;
}

interface Seen {
  version: bigint;
  began: number;
  ended: number;
  isWrite: boolean;
  /** Of all that ended until then, the newest version. */
  newest: Seen | null;
}

/**
 * Versions of one object whose writes are durable when acknowledged and which is never deleted: they grow with time, one version means
 * one content, and a compare-and-set takes effect right after the version that it named. A read of a part may name the version of a write
 * to another part that is still in progress, and that may fail: it proves nothing about others.
 */
export class VersionOracle {
  readonly #contents = new Map<bigint, Map<number, number>>();
  /** In order of `ended`. */
  readonly #seen: Seen[] = [];
  readonly #written = new Set<bigint>();

  /** values: granule → value. Null: explained. */
  read(version: bigint, values: ReadonlyMap<number, number>, began: number, ended: number, part: 'whole' | 'part'): string | null {
    return this.#order({ version, began, ended, isWrite: false, newest: null }, part === 'whole') ?? this.#content(version, values);
  }

  write(version: bigint, values: ReadonlyMap<number, number>, began: number, ended: number): string | null {
    return this.#order({ version, began, ended, isWrite: true, newest: null }, true) ?? this.#content(version, values);
  }

  /** After write(): was there anything between `expected` and `version`? */
  compareWrite(expected: bigint, version: bigint): string | null {
    const between = this.#seen.find((item) => item.version > expected && item.version < version);
    if (version <= expected) return `compare-and-set of version ${expected} made version ${version}`;
    return between ? `compare-and-set of version ${expected} made version ${version}, but version ${between.version} lies between` : null;
  }

  #order(next: Seen, isProof: boolean): string | null {
    const item = this.#newestBefore(next.began);
    if (item && (next.version < item.version || (next.isWrite && next.version === item.version))) {
      return `${next.isWrite ? 'write' : 'read'} of version ${next.version} began after version ${item.version} had been ${item.isWrite ? 'written' : 'read'}`;
    }
    if (next.isWrite && this.#written.has(next.version)) return `two writes made version ${next.version}`;
    if (!isProof) return null;
    if (next.isWrite) this.#written.add(next.version);
    const last = this.#seen[this.#seen.length - 1]?.newest ?? null;
    next.newest = last && last.version >= next.version ? last : next;
    this.#seen.push(next);
    return null;
  }

  /** The newest version of those that ended before `time`. */
  #newestBefore(time: number): Seen | null {
    for (let i = this.#seen.length - 1; i >= 0; i--) {
      const item = this.#seen[i];
      if (item && item.ended < time) return item.newest;
    }
    return null;
  }

  #content(version: bigint, values: ReadonlyMap<number, number>): string | null {
    let known = this.#contents.get(version);
    if (!known) this.#contents.set(version, (known = new Map()));
    for (const [granule, value] of values) {
      const before = known.get(granule);
      if (before !== undefined && before !== value) return `version ${version} holds ${before} and ${value} in granule ${granule}`;
      known.set(granule, value);
    }
    return null;
  }
}

/** One granule of write `id`: the number, over and over, so that a torn granule is noticed. */
export function fillGranule(target: Uint8Array, offset: number, id: number): void {
  const words = new BigUint64Array(target.buffer, target.byteOffset + offset, GRANULE / 8);
  words.fill(BigInt(id));
}

/** The write it comes from; null: torn or foreign bytes. */
export function granuleValue(data: Buffer, offset: number): number | null {
  if (data.compare(data, offset + 8, offset + GRANULE, offset, offset + GRANULE - 8) !== 0) return null;
  const high = data.readUInt32LE(offset + 4);
  return high < 0x200000 ? high * 0x100000000 + data.readUInt32LE(offset) : null;
}
