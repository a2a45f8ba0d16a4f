// SPDX-License-Identifier: GPL-2.0-or-later
// The stream format: golden bytes, round trips, and what happens to streams that are cut off, damaged, or put together wrongly.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { sameIdentity, StreamDecoder, StreamEncoder, STREAM_DATA_MAX, type StreamHeader, type StreamRecord, type StreamTotals } from '../src/backup-stream.js';
import { VitastorError } from '../src/errors.js';
import { loadNativeClient } from '../src/native/addon.js';
import { nativeMissing } from '../src/testing/native-missing.js';

const HEADER: StreamHeader = {
  image: 'vm', sizeBytes: 1n << 40n, granularity: 4096,
  to: { name: 'vm@b', sizeBytes: 1n << 40n, pool: 2, inode: 5n }, from: { name: 'vm@a', sizeBytes: 1n << 39n, pool: 1, inode: (1n << 48n) - 1n },
};

/** Small numbers from a seed. */
function dice(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function encode(records: readonly StreamRecord[], header: StreamHeader = HEADER): Buffer {
  const encoder = new StreamEncoder();
  const bytes = [encoder.header(header)];
  for (const record of records) {
    if (record.type === 'data') bytes.push(encoder.data(record.offset, record.data), record.data);
    else bytes.push(encoder.zero(record.offset, record.length));
  }
  return Buffer.concat([...bytes, encoder.end()]);
}

async function* cut(bytes: Buffer, size: (left: number) => number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length;) {
    const count = Math.max(1, size(bytes.length - at));
    yield bytes.subarray(at, at + count);
    at += count;
  }
}

async function decode(bytes: Buffer, size: (left: number) => number = (left) => left): Promise<{ header: StreamHeader; records: StreamRecord[]; totals: StreamTotals }> {
  const decoder = new StreamDecoder(cut(bytes, size));
  const header = await decoder.header();
  const records: StreamRecord[] = [];
  const all = decoder.records();
  for (;;) {
    const next = await all.next();
    if (next.done === true) return { header, records, totals: next.value };
    records.push(next.value);
  }
}

/** Records in order, of a seed. */
function draw(seed: number, count: number): StreamRecord[] {
  const roll = dice(seed);
  const records: StreamRecord[] = [];
  let at = 0n;
  for (let i = 0; i < count; i++) {
    at += BigInt(roll(4)) * 4096n;
    const length = 4096 * (1 + roll(5));
    if (roll(3) === 0) records.push({ type: 'zero', offset: at, length: BigInt(length) * BigInt(1 + roll(1 << 20)) });
    else records.push({ type: 'data', offset: at, data: Buffer.from(Array.from({ length }, () => roll(256))) });
    const last = records[records.length - 1];
    at += last?.type === 'data' ? BigInt(last.data.length) : last?.length ?? 0n;
  }
  return records;
}

const bad = (text: RegExp) => (error: unknown): boolean => {
  assert.ok(error instanceof VitastorError && error.code === 'ERR_BAD_VALUE', String(error));
  assert.match(error.message, text);
  return true;
};

describe('streams', { skip: nativeMissing() }, () => {
  test('CRC-32C, and memory for O_DIRECT', () => {
    const { crc32c, alignedBuffer } = loadNativeClient();
    assert.equal(crc32c(Buffer.from('123456789'), 0), 0xe3069283);
    assert.equal(crc32c(Buffer.from('6789'), crc32c(Buffer.from('12345'), 0)), 0xe3069283);
    assert.equal(crc32c(Buffer.alloc(0), 7), 7);
    assert.throws(() => crc32c('x' as unknown as Buffer, 0), TypeError);
    assert.equal(alignedBuffer(5000).length, 5000);
    for (const size of [0, -1, 2 ** 33]) assert.throws(() => alignedBuffer(size), RangeError);
  });

  test('golden bytes', () => {
    const bytes = encode([{ type: 'data', offset: 4096n, data: Buffer.alloc(4096, 0xab) }, { type: 'zero', offset: 16384n, length: 8192n }], {
      image: 'vm', sizeBytes: 65536n, granularity: 4096, to: { name: 'vm@a', sizeBytes: 65536n, pool: 1, inode: 3n }, from: null,
    });
    const json = '{"image":"vm","size":65536,"granularity":4096,"to":{"name":"vm@a","size":65536,"pool":1,"inode":3},"from":null}';
    assert.equal(bytes.toString('latin1', 0, 8), 'VitaStrm');
    assert.equal(bytes.toString('latin1', 16, 16 + json.length), json);
    const records = bytes.subarray(16 + json.length + 4);
    const heads = Buffer.concat([records.subarray(0, 40), records.subarray(40 + 4096)]);
    assert.equal(heads.toString('hex'), GOLDEN);
  });

  test('round trips, in pieces of any size', async () => {
    for (let seed = 1; seed <= 60; seed++) {
      const roll = dice(seed * 77);
      const records = draw(seed, roll(40));
      const from = seed % 2 ? HEADER.from : null;
      const bytes = encode(records, { ...HEADER, from });
      const back = await decode(bytes, seed % 3 ? (left) => 1 + roll(Math.min(left, 9000)) : () => 1 + roll(50));
      assert.deepEqual(back.header, { ...HEADER, from });
      assert.deepEqual(back.records.length, records.length);
      for (const [i, record] of records.entries()) {
        const other = back.records[i];
        assert.ok(other && other.type === record.type && other.offset === record.offset);
        if (record.type === 'data') assert.ok(other.type === 'data' && other.data.equals(record.data));
        else assert.ok(other.type === 'zero' && other.length === record.length);
      }
      assert.equal(back.totals.records, BigInt(records.length));
    }
  });

  test('a stream that is cut off anywhere is an error', async () => {
    const bytes = encode(draw(5, 6));
    const places = new Set<number>([...Array(400).keys(), ...Array.from({ length: 100 }, (_, i) => bytes.length - 1 - i)]);
    for (let at = 0; at < bytes.length; at += 501) places.add(at);
    for (const at of places) await assert.rejects(decode(bytes.subarray(0, at)), bad(/cut off|empty|no stream/), `cut at ${at}`);
    await assert.rejects(decode(Buffer.concat([bytes, Buffer.from('x')])), bad(/something follows/));
  });

  test('a bit that is turned anywhere is an error', async () => {
    const bytes = encode(draw(6, 8));
    const roll = dice(99);
    for (let i = 0; i < 1500; i++) {
      const at = i < 400 ? i : roll(bytes.length);
      const wrong = Buffer.from(bytes);
      wrong[at] = (wrong[at] ?? 0) ^ (1 << roll(8));
      await assert.rejects(decode(wrong), bad(/damaged|no stream|version|cut off/), `byte ${at}`);
    }
  });

  test('records left out, doubled, swapped, or of another stream are an error', async () => {
    const records: StreamRecord[] = [0, 1, 2, 3].map((i) => ({ type: 'zero', offset: BigInt(i) * 8192n, length: 4096n }));
    const bytes = encode(records);
    const start = bytes.length - 5 * 40;
    const part = (i: number): Buffer => bytes.subarray(start + i * 40, start + (i + 1) * 40);
    const put = (...order: number[]): Buffer => Buffer.concat([bytes.subarray(0, start), ...order.map(part)]);
    await decode(put(0, 1, 2, 3, 4));
    for (const order of [[0, 2, 3, 4], [0, 1, 1, 2, 3, 4], [1, 0, 2, 3, 4], [4], [0, 1, 2, 4]]) await assert.rejects(decode(put(...order)), bad(/not the next one/));
    const other = encode(records, { ...HEADER, image: 'other' });
    await assert.rejects(decode(Buffer.concat([bytes.subarray(0, start), other.subarray(other.length - 5 * 40)])), bad(/damaged/));
  });

  test('whole streams that make no sense are refused', async () => {
    const data = (offset: bigint, length: number): StreamRecord => ({ type: 'data', offset, data: Buffer.alloc(length, 1) });
    for (const records of [
      [data(0n, 8192), data(4096n, 4096)], [data(HEADER.sizeBytes, 4096)], [data(HEADER.sizeBytes - 4096n, 8192)], [data(0n, 0)], [data(100n, 4096)], [data(0n, 100)],
    ]) await assert.rejects(decode(encode(records)), bad(/outside of its place/));
    await assert.rejects(decode(encode([data(0n, STREAM_DATA_MAX + 4096)])), bad(/too long/));
    await decode(encode([data(4096n, 100)], { ...HEADER, sizeBytes: 4196n }));
    for (const header of [{ ...HEADER, granularity: 0 }, { ...HEADER, image: '' }, { ...HEADER, sizeBytes: -1n }, { ...HEADER, to: { ...HEADER.to, pool: 0 } as never }])
      await assert.rejects(decode(encode([], header)), bad(/the header is damaged/));
  });

  test('random bytes are an error, and nothing else', async () => {
    const roll = dice(3);
    for (let i = 0; i < 500; i++) {
      const bytes = Buffer.from(Array.from({ length: roll(300) }, () => roll(256)));
      if (i % 2) Buffer.from('VitaStrm\u0001\0\0\0', 'latin1').copy(bytes);
      await assert.rejects(decode(bytes), bad(/./));
    }
  });

  test('identities', () => {
    assert.ok(sameIdentity(null, null) && sameIdentity(HEADER.to, { ...(HEADER.to as NonNullable<StreamHeader['to']>) }));
    assert.ok(!sameIdentity(HEADER.to, null) && !sameIdentity(HEADER.to, HEADER.from));
  });
});

/** Made by a few lines of Python after docs/formats/stream.md. */
const GOLDEN = '56456364010000000000000000000000001000000000000000100000000000009341379429a600a55645636402000000010000000000000000400000000000000020000000000000000000000c4c280156456364030000000200000000000000001000000000000000200000000000005d8a7eaaa0253bc1';
