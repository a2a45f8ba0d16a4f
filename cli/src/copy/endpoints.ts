// SPDX-License-Identifier: GPL-2.0-or-later
// What bytes are copied from and to: images, files, devices, pipes. Opened by files.ts and images.ts.

/** Several reads may be under way at once. */
export interface BlockSource {
  /** For messages: "image vm1", "disk.img", "standard input". */
  readonly name: string;
  /** null: nobody knows before the end. */
  readonly sizeBytes: bigint | null;
  /** Offsets and lengths are multiples of it. */
  readonly alignment: number;
  /** Offsets only grow; what lies between is read and dropped. */
  readonly sequential: boolean;
  /** Fills the target; fewer bytes at the end only, 0 behind it. */
  read(offset: bigint, target: Buffer): Promise<number>;
  close(): Promise<void>;
}

/** Several writes may be under way at once, unless it is sequential: then one, and offsets are not looked at. */
export interface BlockSink {
  readonly name: string;
  readonly alignment: number;
  readonly sequential: boolean;
  /** Room for bytes; null: as much as there is. */
  readonly sizeBytes: bigint | null;
  /** The first byte from which on nothing is but zeroes, before anything is written; null: unknown. */
  readonly blankFrom: bigint | null;
  write(offset: bigint, data: Buffer): Promise<void>;
  /** What is there now, to be compared; behind the end: fewer bytes. Not for sequential ones. */
  read(offset: bigint, target: Buffer): Promise<number>;
  /** All has been written, up to `endOffset`, zeroes perhaps left out. sync: durable on return. */
  finish(endOffset: bigint, sync: boolean): Promise<void>;
  close(): Promise<void>;
}

let zeroes: Buffer = Buffer.alloc(0);

/** As quick as memory is read. */
export function isZero(data: Buffer): boolean {
  if (zeroes.length < data.length) zeroes = Buffer.alloc(data.length);
  return data.length === 0 || zeroes.compare(data, 0, data.length, 0, data.length) === 0;
}
