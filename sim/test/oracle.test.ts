// SPDX-License-Identifier: GPL-2.0-or-later
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fillGranule, GRANULE, granuleValue, Oracle } from '../src/oracle.js';
import { SeededRandom } from '../src/rng.js';

test('an acknowledged write hides what was before it', () => {
  const oracle = new Oracle();
  const a = oracle.beginWrite(1, [0]);
  oracle.endWrite(1, [0], a);
  const began = oracle.now();
  assert.match(oracle.checkRead(1, 0, 0, began) ?? '', /acknowledged before the read/);
  assert.equal(oracle.checkRead(1, 0, a, began), null);
});

test('a write without an answer may be seen or not, but once seen it stays', () => {
  const oracle = new Oracle();
  const a = oracle.beginWrite(1, [0]);
  assert.equal(oracle.checkRead(1, 0, 0, oracle.now()), null);
  assert.equal(oracle.checkRead(1, 0, a, oracle.now()), null);
  assert.match(oracle.checkRead(1, 0, 0, oracle.now()) ?? '', /came after it/);
});

test('a read that began before the acknowledgement may return the former value', () => {
  const oracle = new Oracle();
  const a = oracle.beginWrite(1, [0]);
  const began = oracle.now();
  oracle.endWrite(1, [0], a);
  assert.equal(oracle.checkRead(1, 0, 0, began), null);
});

test('a value that was never written is refused, and a torn granule is noticed', () => {
  const oracle = new Oracle();
  assert.match(oracle.checkRead(1, 0, 77, oracle.now()) ?? '', /never written/);
  const data = new Uint8Array(GRANULE);
  fillGranule(data, 0, 5);
  assert.equal(granuleValue(data, 0), 5);
  data[2048] = 9;
  assert.equal(granuleValue(data, 0), null);
});

test('equal seeds draw alike, streams and seeds differ', () => {
  const draw = (seed: bigint, stream: string): bigint[] => {
    const random = new SeededRandom(seed, stream);
    return [random.u64(), random.u64()];
  };
  assert.deepEqual(draw(1n, 'a'), draw(1n, 'a'));
  assert.notDeepEqual(draw(1n, 'a'), draw(1n, 'b'));
  assert.notDeepEqual(draw(1n, 'a'), draw(2n, 'a'));
});
