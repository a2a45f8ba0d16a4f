// SPDX-License-Identifier: GPL-2.0-or-later
// The three requests of the OSD protocol that administration needs, and their replies. No user data passes here.
// Source: wire-protocol 2, 8.1, 8.7, 8.8, 9.5.

export const HEADER_BYTES = 128;
const REQUEST_MAGIC = 0x2bd7b10325434553n;
const REPLY_MAGIC = 0xbaa699b87b434553n;
/** Bytes of one item of DESCRIBE. */
export const ITEM_BYTES = 32;
/** An OSD stops a reply after this many, at the end of an object. */
export const DESCRIBE_LIMIT = 1048576;
const MAX_ITEMS = BigInt(DESCRIBE_LIMIT + 65536);
/** sub_flags: PG locks do not matter. */
const IGNORE_LOCK = 2;

export const ADMIN_OPCODES = { secDelete: 7n, scrub: 17n, describe: 18n } as const;

/** Bits of an object's state, as DESCRIBE filters by them. */
export const OBJECT_STATE_BITS = {
  degraded: 0x2,
  incomplete: 0x4,
  misplaced: 0x8,
  corrupted: 0x10,
  inconsistent: 0x20,
} as const;
export type ObjectStateWord = keyof typeof OBJECT_STATE_BITS;

export interface DescribeRequest {
  /** Bits of OBJECT_STATE_BITS, 0 = all. */
  stateMask: number;
  /** Full inode numbers and offsets; lower and upper bound (inclusive) are pairs. Both 0n: no bound. */
  minInode: bigint;
  minOffset: bigint;
  maxInode: bigint;
  maxOffset: bigint;
  /** 0 = all. */
  pool: number;
  pg: number;
}

/** One known copy (part 0) or chunk of an unclean object. */
export interface DescribeItem {
  /** Full number. */
  inode: bigint;
  /** Without role bits. */
  stripe: bigint;
  part: number;
  osd: number;
  outdated: boolean;
  corrupted: boolean;
  inconsistent: boolean;
}

export interface ObjectName {
  inode: bigint;
  stripe: bigint;
}

function request(opcode: bigint, id: bigint): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeBigUInt64LE(REQUEST_MAGIC, 0);
  header.writeBigUInt64LE(id, 8);
  header.writeBigUInt64LE(opcode, 16);
  return header;
}

export function encodeDescribe(id: bigint, message: DescribeRequest): Buffer {
  const header = request(ADMIN_OPCODES.describe, id);
  header.writeBigUInt64LE(BigInt(message.stateMask), 24);
  header.writeBigUInt64LE(message.minInode, 32);
  header.writeBigUInt64LE(message.minOffset, 40);
  header.writeBigUInt64LE(message.maxInode, 48);
  header.writeBigUInt64LE(message.maxOffset, 56);
  header.writeUInt32LE(message.pool, 72);
  header.writeUInt32LE(message.pg, 76);
  return header;
}

export function encodeScrub(id: bigint, object: ObjectName): Buffer {
  const header = request(ADMIN_OPCODES.scrub, id);
  header.writeBigUInt64LE(object.inode, 24);
  header.writeBigUInt64LE(object.stripe, 32);
  return header;
}

/** Version 0: whatever is there. */
export function encodeDeleteCopy(id: bigint, object: ObjectName, part: number): Buffer {
  const header = request(ADMIN_OPCODES.secDelete, id);
  header.writeBigUInt64LE(object.inode, 24);
  header.writeBigUInt64LE(object.stripe | BigInt(part), 32);
  header.writeUInt32LE(IGNORE_LOCK, 48);
  return header;
}

export interface ReplyHeader {
  id: bigint;
  opcode: bigint;
  retval: bigint;
  payloadBytes: number;
}

/** Text of what is wrong with the header, or the header. `header`: HEADER_BYTES long. */
export function decodeReplyHeader(header: Buffer): ReplyHeader | string {
  if (header.readBigUInt64LE(0) !== REPLY_MAGIC) return 'what answers there is no OSD (wrong magic number)';
  const opcode = header.readBigUInt64LE(16);
  const retval = header.readBigInt64LE(24);
  const bytes = opcode === ADMIN_OPCODES.describe ? header.readBigUInt64LE(32) : 0n;
  const items = opcode === ADMIN_OPCODES.describe && retval > 0n ? retval : 0n;
  if (bytes !== items * BigInt(ITEM_BYTES) || items > MAX_ITEMS)
    return 'the reply to DESCRIBE has a length that does not fit the number of items';
  return { id: header.readBigUInt64LE(8), opcode, retval, payloadBytes: Number(bytes) };
}

/** payload: a multiple of ITEM_BYTES. */
export function decodeItems(payload: Buffer): DescribeItem[] {
  const items: DescribeItem[] = [];
  for (let at = 0; at + ITEM_BYTES <= payload.length; at += ITEM_BYTES) {
    const flags = payload.readUInt32LE(at + 20);
    items.push({
      inode: payload.readBigUInt64LE(at),
      stripe: payload.readBigUInt64LE(at + 8),
      part: payload.readUInt32LE(at + 16),
      osd: Number(payload.readBigUInt64LE(at + 24)),
      outdated: (flags & 1) !== 0,
      corrupted: (flags & 2) !== 0,
      inconsistent: (flags & 4) !== 0,
    });
  }
  return items;
}
