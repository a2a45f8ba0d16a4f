// SPDX-License-Identifier: GPL-2.0-or-later
// Administration of OSDs: bytes against the recorded messages of 3.0.8, the connection against a scripted OSD.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { afterEach, test } from 'node:test';
import {
  decodeItems, decodeReplyHeader, encodeDeleteCopy, encodeDescribe, encodeScrub, OsdAdminLinks, SystemClock, type OsdState,
} from '../src/index.js';
import { fixture } from './paths.js';

interface Golden {
  name: string;
  kind: string;
  opcode: string;
  header_hex: string;
  payload_hex?: string;
}
const golden = JSON.parse(readFileSync(fixture('wire/golden.json'), 'utf8')) as Golden[];
function message(opcode: string, kind: string): { header: Buffer; payload: Buffer } {
  const found = golden.find((entry) => entry.opcode === opcode && entry.kind === kind);
  assert.ok(found, `${kind} ${opcode} is in the fixtures`);
  return { header: Buffer.from(found.header_hex, 'hex'), payload: Buffer.from(found.payload_hex ?? '', 'hex') };
}

const INODE = (1n << 48n) | 5n;
const REQUEST = { stateMask: 0, pool: 0, pg: 0, minInode: 0n, minOffset: 0n, maxInode: 0n, maxOffset: 0n };

test('requests have the bytes of the fixtures', () => {
  const describe = encodeDescribe(23n, {
    stateMask: 50, pool: 1, pg: 4, minInode: (1n << 48n) | 1n, minOffset: 4096n, maxInode: (1n << 48n) | 9n, maxOffset: 1n << 40n,
  });
  const expected = message('DESCRIBE', 'request').header;
  expected.writeBigUInt64LE(0n, 64); // The limit is left to the OSD.
  assert.deepEqual(describe, expected);
  assert.deepEqual(encodeScrub(22n, { inode: INODE, stripe: 393216n }), message('SCRUB', 'request').header);
  const deletion = message('SEC_DELETE', 'request').header;
  deletion.writeBigUInt64LE(0n, 40);
  deletion.writeUInt32LE(2, 48);
  assert.deepEqual(encodeDeleteCopy(16n, { inode: INODE, stripe: 393216n }, 0), deletion);
  assert.equal(encodeDeleteCopy(1n, { inode: INODE, stripe: 131072n }, 2).readBigUInt64LE(32), 131074n);
});

test('replies: items, errors, lengths that do not fit', () => {
  const { header, payload } = message('DESCRIBE', 'reply');
  assert.deepEqual(decodeReplyHeader(header), { id: 23n, opcode: 18n, retval: 2n, payloadBytes: 64 });
  const items = decodeItems(payload);
  assert.equal(items.length, 2);
  assert.equal(items[0]?.inode, INODE);
  assert.deepEqual(decodeReplyHeader(message('SCRUB', 'reply').header), { id: 22n, opcode: 17n, retval: -32n, payloadBytes: 0 });
  for (const [at, value] of [[32, 63n], [32, 0n], [32, 1n << 60n], [24, 1n << 59n]] as const) {
    const bad = Buffer.from(header);
    bad.writeBigUInt64LE(value, at);
    assert.match(String(decodeReplyHeader(bad)), /does not fit/);
  }
  assert.match(String(decodeReplyHeader(Buffer.alloc(128))), /no OSD/);
});

let server: Server | null = null;
const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  server?.close();
  server = null;
});

async function osd(onRequest: (header: Buffer, socket: Socket) => void): Promise<OsdState> {
  const listening = createServer((socket) => {
    sockets.push(socket);
    let rest = Buffer.alloc(0);
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      for (; rest.length >= 128; rest = rest.subarray(128)) onRequest(rest.subarray(0, 128), socket);
    });
  });
  server = listening;
  await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve));
  const { port } = listening.address() as AddressInfo;
  return {
    up: true, addresses: ['127.0.0.1'], port, rdmacmPort: 0, host: 'h', version: '3.0.8', primaryEnabled: true, blockstoreEnabled: true,
  };
}

function reply(request: Buffer, retval: bigint, bytes = 0n): Buffer {
  const header = Buffer.from(request);
  header.fill(0, 24);
  header.writeBigUInt64LE(0xbaa699b87b434553n, 0);
  header.writeBigInt64LE(retval, 24);
  header.writeBigUInt64LE(bytes, 32);
  return header;
}

test('answers in any order and in any pieces; a refusal names the OSD', async () => {
  const waiting: Buffer[] = [];
  const state = await osd((header, socket) => {
    if (header.readBigUInt64LE(16) === 17n) {
      waiting.push(Buffer.from(header));
      if (waiting.length < 2) return;
      for (const one of waiting.reverse()) socket.write(reply(one, one.readBigUInt64LE(24) === 1n ? 0n : -2n));
    } else if (header.readBigUInt64LE(24) === 4n) {
      socket.write(reply(header, -22n));
    } else {
      const { payload } = message('DESCRIBE', 'reply');
      const all = Buffer.concat([reply(header, 2n, 64n), payload]);
      socket.write(all.subarray(0, 150));
      socket.write(all.subarray(150));
    }
  });
  const admin = new OsdAdminLinks((num) => (num === 1 ? state : undefined), new SystemClock());
  try {
    const [first, second] = await Promise.all([
      admin.scrub(1, { inode: 1n, stripe: 0n }), admin.scrub(1, { inode: 2n, stripe: 0n }),
    ]);
    assert.deepEqual([first, second], [0, -2]);
    assert.equal((await admin.describe(1, REQUEST)).length, 2);
    await assert.rejects(admin.describe(1, { ...REQUEST, stateMask: 4 }), /OSD 1 refuses DESCRIBE: EINVAL/);
    await assert.rejects(admin.describe(2, REQUEST), /OSD 2 is down/);
  } finally {
    admin.close();
  }
});

test('garbage and a closed connection end all requests on it, the next one connects again', async () => {
  let answers = 0;
  const state = await osd((header, socket) => {
    answers++;
    if (answers === 1) socket.write(Buffer.alloc(128, 7));
    else if (answers === 2) socket.destroy();
    else socket.write(reply(header, 0n));
  });
  const admin = new OsdAdminLinks(() => state, new SystemClock());
  try {
    await assert.rejects(admin.scrub(1, { inode: 1n, stripe: 0n }), /OSD 1: what answers there is no OSD/);
    await assert.rejects(admin.scrub(1, { inode: 1n, stripe: 0n }), /OSD 1: the connection was closed/);
    assert.equal(await admin.scrub(1, { inode: 1n, stripe: 0n }), 0);
  } finally {
    admin.close();
  }
});
