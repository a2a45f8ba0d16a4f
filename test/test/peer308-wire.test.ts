// SPDX-License-Identifier: GPL-2.0-or-later
// The codec of the scripted peer against the golden messages and the recorded sessions.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import {
  BadHeader,
  decodeTriples,
  encodeReply,
  encodeRequest,
  encodeTriples,
  goldenPath,
  HEADER_BYTES,
  type Kind,
  Message,
  MessageReader,
  OP,
  type OpName,
  payloadSizes,
  readSession,
  recordingsFolder,
  sessionNames,
} from '../src/peer308/index.js';

interface Golden {
  name: string;
  kind: Kind;
  opcode: OpName;
  header: { id: string; retval?: string };
  fields: Record<string, string>;
  header_hex: string;
  payload_hex: string;
}

function golden(): Golden[] {
  return JSON.parse(readFileSync(goldenPath(), 'utf8')) as Golden[];
}

describe('wire of peer308', () => {
  it('decodes and encodes every golden message', () => {
    for (const sample of golden()) {
      const header = Buffer.from(sample.header_hex, 'hex');
      const payload = Buffer.from(sample.payload_hex, 'hex');
      const message = new Message(sample.kind, header, payload);
      assert.equal(message.name, sample.opcode, sample.name);
      assert.equal(message.id, BigInt(sample.header.id), sample.name);
      assert.equal(message.reservedOffset(), undefined, sample.name);
      const fields = Object.fromEntries(Object.entries(sample.fields).map(([name, value]) => [name, BigInt(value)]));
      for (const [name, value] of Object.entries(message.fields)) assert.equal(value, fields[name] ?? 0n, `${sample.name}: ${name}`);
      const op = OP[sample.opcode];
      const again =
        sample.kind === 'request'
          ? encodeRequest(op, message.id, fields, payload)
          : encodeReply(op, message.id, BigInt(sample.header.retval ?? 0), fields, payload);
      assert.equal(again.toString('hex'), sample.header_hex + sample.payload_hex, sample.name);
      const sizes = payloadSizes(sample.kind, header);
      assert.equal(sizes.bitmap + sizes.data, payload.length, sample.name);
    }
  });

  it('cuts a stream of all golden messages at any place', () => {
    const samples = golden();
    const stream = Buffer.concat(samples.map((s) => Buffer.from(s.header_hex + s.payload_hex, 'hex')));
    for (const step of [1000, 77, stream.length]) {
      const reader = new MessageReader();
      const got: Message[] = [];
      for (let at = 0; at < stream.length; at += step) got.push(...reader.push(stream.subarray(at, at + step)));
      assert.deepEqual(
        got.map((m) => m.header.toString('hex') + m.payload.toString('hex')),
        samples.map((s) => s.header_hex + s.payload_hex),
      );
    }
  });

  it('refuses wrong magic and lengths over the limits', () => {
    assert.throws(() => new MessageReader().push(Buffer.alloc(HEADER_BYTES)), BadHeader);
    const huge = encodeRequest(OP.WRITE, 1n, { len: 0xffffffffn });
    assert.throws(() => new MessageReader().push(huge), BadHeader);
    assert.throws(() => decodeTriples(Buffer.alloc(25)), BadHeader);
  });

  it('names reserved bytes that are not zero', () => {
    const header = encodeRequest(OP.PING, 1n);
    header[90] = 1;
    assert.equal(new Message('request', header, Buffer.alloc(0)).reservedOffset(), 90);
  });

  it('decodes and encodes every recorded message of 3.0.8', (t) => {
    const folder = recordingsFolder();
    if (folder === undefined) {
      t.skip('left out: no recordings (VITASTOR_FIXTURES)');
      return;
    }
    let count = 0;
    for (const name of sessionNames(folder)) {
      for (const { message, payloadLength, kind, op, payloadStart } of readSession(folder, name)) {
        assert.equal(message.name, op);
        const sizes = payloadSizes(kind, message.header);
        assert.equal(sizes.bitmap + sizes.data, payloadLength, `${name}: ${op}`);
        const offset = message.reservedOffset();
        // Leftover memory of the sender is allowed from byte 64 of SEC_READ and SEC_WRITE requests on.
        if (offset !== undefined) assert.ok(kind === 'request' && message.op <= OP.SEC_WRITE_STABLE && offset >= 64, `${name}: ${op} ${offset}`);
        if (op === 'SEC_LIST' && kind === 'reply' && payloadStart.length === payloadLength)
          assert.deepEqual(encodeTriples(decodeTriples(payloadStart)), payloadStart);
        count++;
      }
    }
    assert.ok(count > 3000, `${count} messages`);
  });
});
