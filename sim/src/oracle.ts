// SPDX-License-Identifier: GPL-2.0-or-later
// What each granule may hold. Every write fills its granules with its own number, so that a value names the write it comes from.
//
// A read is explained by write w if w began before the read ended, and no other write both began after w had taken effect for certain and was
// acknowledged before the read began. A write has taken effect for certain when it was acknowledged, or when a read has returned it:
// a value once returned never disappears.

export const GRANULE = 4096;

interface Write {
  id: number;
  began: number;
  /** Sequence number by which it has certainly taken effect; Infinity: not known yet. */
  settled: number;
}

export class Oracle {
  /** Image and granule → writes that may still be visible, oldest first. Id 0 is the state before all writes. */
  readonly #granules = new Map<string, Write[]>();
  #sequence = 0;
  #nextWrite = 1;

  /** A number for everything that happens, in order. */
  now(): number {
    return ++this.#sequence;
  }

  beginWrite(image: number, granules: readonly number[]): number {
    const id = this.#nextWrite++;
    const began = this.now();
    for (const granule of granules) this.#of(image, granule).push({ id, began, settled: Number.POSITIVE_INFINITY });
    return id;
  }

  endWrite(image: number, granules: readonly number[], id: number): void {
    const now = this.now();
    for (const granule of granules) this.#settle(this.#of(image, granule), id, now);
  }

  /** Null: explained. Else why not. `began`: now() before the read was sent. */
  checkRead(image: number, granule: number, value: number, began: number): string | null {
    const writes = this.#of(image, granule);
    const found = writes.find((write) => write.id === value);
    const where = `image ${image} granule ${granule}`;
    if (!found) return `${where}: read value ${value}, which is older than an acknowledged write or was never written (possible: ${writes.map((w) => w.id).join(', ')})`;
    const newer = writes.find((write) => write.began > found.settled && write.settled < began);
    if (newer) return `${where}: read write ${value}, but write ${newer.id} came after it and was acknowledged before the read`;
    this.#settle(writes, value, this.now());
    return null;
  }

  #of(image: number, granule: number): Write[] {
    const key = `${image}/${granule}`;
    let writes = this.#granules.get(key);
    if (!writes) this.#granules.set(key, (writes = [{ id: 0, began: 0, settled: 0 }]));
    return writes;
  }

  #settle(writes: Write[], id: number, now: number): void {
    const write = writes.find((candidate) => candidate.id === id);
    if (!write) return;
    write.settled = Math.min(write.settled, now);
    // Forget what lies behind this one for every read that begins from now on and for those in flight: bounded by keeping a few.
    while (writes.length > 64) writes.shift();
  }
}

/** One granule of write `id`: the number, over and over, so that a torn granule is noticed. */
export function fillGranule(target: Uint8Array, offset: number, id: number): void {
  const view = new DataView(target.buffer, target.byteOffset + offset, GRANULE);
  for (let i = 0; i < GRANULE; i += 8) view.setBigUint64(i, BigInt(id), true);
}

/** The write it comes from; null: torn or foreign bytes. */
export function granuleValue(data: Uint8Array, offset: number): number | null {
  const view = new DataView(data.buffer, data.byteOffset + offset, GRANULE);
  const value = view.getBigUint64(0, true);
  for (let i = 8; i < GRANULE; i += 8) if (view.getBigUint64(i, true) !== value) return null;
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : null;
}
