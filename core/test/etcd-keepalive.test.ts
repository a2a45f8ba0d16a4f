// SPDX-License-Identifier: GPL-2.0-or-later
// Which answer belongs to which keepalive.

import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import { KeepaliveStream, type KeepaliveWire } from '../src/seams/etcd3-keepalive.js';

class FakeWire extends EventEmitter {
  sent: string[] = [];
  ended = false;
  write(message: { ID: string }): void {
    this.sent.push(message.ID);
  }
  end(): void {
    this.ended = true;
  }
  cancel(): void {
    assert.ok(this.ended, 'ended before it is cancelled');
  }
  answer(lease: string, ttl: string): void {
    this.emit('data', { ID: lease, TTL: ttl });
  }
}

function open(): { wire: FakeWire; stream: KeepaliveStream } {
  const wire = new FakeWire();
  return { wire, stream: new KeepaliveStream(wire as unknown as KeepaliveWire) };
}

test('answers belong to questions in order: a late one is not taken for the next', async () => {
  const { wire, stream } = open();
  const answered: string[] = [];
  const first = stream.ask(5n).then((ttl) => answered.push(`first ${ttl}`));
  const second = stream.ask(5n).then((ttl) => answered.push(`second ${ttl}`));
  wire.answer('5', '9');
  await first;
  assert.deepEqual(answered, ['first 9']);
  wire.answer('5', '0');
  await second;
  assert.deepEqual(answered, ['first 9', 'second 0']);
  assert.deepEqual(wire.sent, ['5', '5']);
});

test('an answer for another lease, an error, an end and close() reject everything that waits, and what comes after', async () => {
  const ends: ((wire: FakeWire, stream: KeepaliveStream) => void)[] = [
    (wire) => wire.answer('6', '9'),
    (wire) => wire.emit('error', new Error('UNAVAILABLE: broken')),
    (wire) => wire.emit('end'),
    (_, stream) => stream.close(),
  ];
  for (const end of ends) {
    const { wire, stream } = open();
    const waiting = [stream.ask(5n), stream.ask(5n)];
    end(wire, stream);
    for (const result of await Promise.allSettled(waiting)) assert.equal(result.status, 'rejected');
    assert.ok(stream.dead && wire.ended);
    await assert.rejects(stream.ask(5n));
    wire.answer('5', '9');
  }
});
