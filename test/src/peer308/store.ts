// SPDX-License-Identifier: GPL-2.0-or-later
// Objects of the scripted OSD in memory, with the rules and the crashes of 3.0.8's store. Versions of one object: at most one
// counts as newest stable, newer ones are unstable. Source: wire-protocol 3.4, 9.2-9.7, 14; semantics 15.

import { ERR, NEWEST, type Triple } from './wire.js';

/** The point where the process of 3.0.8 would die (or worse). */
export class Abort extends Error {
  readonly hazard: number;
  constructor(hazard: number, what: string) {
    super(what);
    this.hazard = hazard;
  }
}

interface StoredVersion {
  readonly version: bigint;
  stable: boolean;
  readonly data: Buffer;
  readonly bitmap: Buffer;
}
interface StoredObject {
  readonly inode: bigint;
  readonly stripe: bigint;
  /** Ascending. */
  readonly versions: StoredVersion[];
}

export interface Found {
  readonly version: bigint;
  readonly data: Buffer;
  readonly bitmap: Buffer;
}

export interface StoreOptions {
  readonly blockSize: number;
  readonly granularity: number;
  /** Writes and deletes count only after sync(); crash() forgets the others. */
  readonly volatile: boolean;
  /** Answer -ENOSPC when this many objects exist. */
  readonly maxObjects?: number;
}

function keyOf(inode: bigint, stripe: bigint): string {
  return `${inode}:${stripe}`;
}

export class PeerStore {
  readonly bitmapBytes: number;
  readonly #options: StoreOptions;
  #objects = new Map<string, StoredObject>();
  #durable = new Map<string, StoredObject>();
  #dirty = new Set<string>();

  constructor(options: StoreOptions) {
    this.#options = options;
    this.bitmapBytes = options.blockSize / options.granularity / 8;
  }

  get size(): number {
    return this.#objects.size;
  }

  /** Newest version ≤ `version`. */
  find(inode: bigint, stripe: bigint, version: bigint): Found | undefined {
    const object = this.#objects.get(keyOf(inode, stripe));
    const limit = version === NEWEST ? undefined : version;
    return object?.versions.filter((v) => limit === undefined || v.version <= limit).at(-1);
  }

  /** Result code. Throws Abort where 3.0.8 has no defined behaviour. */
  write(
    object: { inode: bigint; stripe: bigint },
    version: bigint,
    offset: number,
    data: Buffer,
    bitmap: Buffer | undefined,
    stable: boolean,
  ): bigint {
    const key = keyOf(object.inode, object.stripe);
    const existing = this.#objects.get(key);
    const newest = existing?.versions.at(-1);
    if (version === 0n) throw new Abort(1, 'a write with version 0');
    if (newest && version <= newest.version)
      throw new Abort(1, `a write with version ${version} over version ${newest.version} of ${key}`);
    if (newest && stable && !newest.stable) throw new Abort(1, `a stable write over an unstable version of ${key}`);
    if (bitmap && bitmap.length !== this.bitmapBytes)
      throw new Abort(4, `a write with a bitmap of ${bitmap.length} bytes instead of ${this.bitmapBytes}`);
    if (!existing && this.#objects.size >= (this.#options.maxObjects ?? Number.POSITIVE_INFINITY)) return ERR.ENOSPC;
    const whole = newest ? Buffer.from(newest.data) : Buffer.alloc(this.#options.blockSize);
    data.copy(whole, offset);
    const added: StoredVersion = {
      version,
      stable,
      data: whole,
      bitmap: bitmap ? Buffer.from(bitmap) : Buffer.from(newest?.bitmap ?? Buffer.alloc(this.bitmapBytes)),
    };
    const versions = stable ? [added] : [...(existing?.versions ?? []), added];
    this.#objects.set(key, { ...object, versions });
    this.#dirty.add(key);
    return BigInt(data.length);
  }

  delete(inode: bigint, stripe: bigint): void {
    this.#objects.delete(keyOf(inode, stripe));
    this.#dirty.add(keyOf(inode, stripe));
  }

  stabilize(t: Triple): bigint {
    const key = keyOf(t.inode, t.stripe);
    const object = this.#objects.get(key);
    if (!object) return ERR.ENOENT;
    const newest = object.versions.at(-1);
    const exact = object.versions.find((v) => v.version === t.version);
    if (!exact) {
      // Already stable at or above it: no effect.
      if (newest && object.versions.some((v) => v.stable && v.version >= t.version)) return 0n;
      throw new Abort(2, `SEC_STABILIZE of version ${t.version} of ${key}, which has ${object.versions.map((v) => v.version).join(', ')}`);
    }
    exact.stable = true;
    this.#objects.set(key, { ...object, versions: object.versions.filter((v) => v.version >= t.version) });
    this.#makeDurable(key);
    return 0n;
  }

  rollback(t: Triple): bigint {
    const key = keyOf(t.inode, t.stripe);
    const object = this.#objects.get(key);
    if (!object) return ERR.ENOENT;
    if (object.versions.some((v) => v.stable && v.version > t.version)) return ERR.EBUSY;
    const left = object.versions.filter((v) => v.version <= t.version);
    if (left.length > 0) this.#objects.set(key, { ...object, versions: left });
    else this.#objects.delete(key);
    this.#makeDurable(key);
    return 0n;
  }

  /** Newest stable version of each object, and all newer unstable ones. */
  list(matches: (inode: bigint, stripe: bigint) => boolean): { stable: Triple[]; unstable: Triple[] } {
    const stable: Triple[] = [];
    const unstable: Triple[] = [];
    for (const object of this.#objects.values()) {
      if (!matches(object.inode, object.stripe)) continue;
      const newestStable = object.versions.filter((v) => v.stable).at(-1);
      const at = (version: bigint): Triple => ({ inode: object.inode, stripe: object.stripe, version });
      if (newestStable) stable.push(at(newestStable.version));
      for (const v of object.versions) if (!v.stable && v.version > (newestStable?.version ?? 0n)) unstable.push(at(v.version));
    }
    return { stable, unstable };
  }

  sync(): void {
    for (const key of this.#dirty) this.#makeDurable(key);
    this.#dirty.clear();
  }

  /** Loses what was not synced, if the store is volatile. */
  crash(): void {
    if (!this.#options.volatile) return;
    this.#objects = new Map([...this.#durable].map(([key, object]) => [key, copyOf(object)]));
    this.#dirty.clear();
  }

  #makeDurable(key: string): void {
    const object = this.#objects.get(key);
    if (object) this.#durable.set(key, copyOf(object));
    else this.#durable.delete(key);
  }
}

function copyOf(object: StoredObject): StoredObject {
  return { ...object, versions: object.versions.map((v) => ({ ...v })) };
}
