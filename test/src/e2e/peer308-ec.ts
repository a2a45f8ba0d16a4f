// SPDX-License-Identifier: GPL-2.0-or-later
// An OSD of ours leads an EC 2+1 PG whose other two chunks lie on 3.0.8: two-phase writes, rollback, recovery and parity as those expect them.

import assert from 'node:assert/strict';
import { type Lab, sleep, until } from '../lab/index.js';
import { Journal, NEWEST, PeerOpener, type PeerOsd } from '../peer308/index.js';
import { BLOCK, bytes, clock, GRANULE, INODE, insist, pgState, portOf, putPool, registerPeer, startPeer, POOL } from './peer308-rig.js';
import type { Story } from './scenario.js';

const DATA_CHUNKS = 2;
const SPAN = DATA_CHUNKS * BLOCK;
const OBJECTS = 3;
/** Each writes to granules of its own, one after the other: what it last wrote is known. */
const WRITERS = 8;

/** Offset of the granule that writer w owns in an object: writers are spread over both data chunks. */
function granuleOf(writer: number): number {
  return (writer % DATA_CHUNKS) * BLOCK + writer * GRANULE;
}

class Rig {
  /** Content that was acknowledged, by object; null: all zeroes. */
  readonly #content: (Buffer | null)[] = Array.from({ length: OBJECTS }, () => null);
  readonly #lab: Lab;
  readonly #journal: Journal;
  readonly #peers: readonly PeerOsd[];
  written = 0;

  constructor(lab: Lab, journal: Journal, peers: readonly PeerOsd[]) {
    this.#lab = lab;
    this.#journal = journal;
    this.#peers = peers;
  }

  async write(object: number, offset: number, data: Buffer): Promise<void> {
    const reply = await insist(this.#lab, this.#journal, 1, (client) => client.write(INODE, object * SPAN + offset, data), DATA_CHUNKS);
    assert.equal(reply.retval, BigInt(data.length));
    const whole = (this.#content[object] ??= Buffer.alloc(SPAN));
    data.copy(whole, offset);
    this.written++;
  }

  async delete(object: number): Promise<void> {
    const reply = await insist(this.#lab, this.#journal, 1, (client) => client.delete(INODE, object * SPAN), DATA_CHUNKS);
    assert.equal(reply.retval, 0n);
    this.#content[object] = null;
  }

  /** WRITERS writers at once until `ended`. */
  async writeUntil(ended: Promise<void>, round: number): Promise<void> {
    let stop = false;
    const writer = async (w: number): Promise<void> => {
      for (let n = 0; !stop; n++) await this.write(n % OBJECTS, granuleOf(w), bytes((round * 50 + n) % 255 + 1, GRANULE));
    };
    const all = Promise.all(Array.from({ length: WRITERS }, (_, w) => writer(w)));
    try {
      await Promise.race([ended, all]);
    } finally {
      stop = true;
    }
    await all;
  }

  /** Everything that was acknowledged reads back through our primary. */
  async expectContent(when: string): Promise<void> {
    for (const [object, content] of this.#content.entries()) {
      const reply = await insist(this.#lab, this.#journal, 1, (client) => client.read(INODE, object * SPAN, SPAN), DATA_CHUNKS);
      assert.equal(reply.retval, BigInt(SPAN), `${when}: READ of object ${object}`);
      assert.ok(reply.payload.subarray(4 * DATA_CHUNKS).equals(content ?? Buffer.alloc(SPAN)), `${when}: content of object ${object}`);
    }
  }

  /** What lies on the two peers: the second data chunk and the parity, of the version that our primary has, stable. */
  async expectChunks(when: string): Promise<void> {
    for (const [object, content] of this.#content.entries()) {
      const stripe = BigInt(object * SPAN);
      const reply = await insist(this.#lab, this.#journal, 1, (client) => client.read(INODE, object * SPAN, SPAN), DATA_CHUNKS);
      const [first, second] = [reply.payload.subarray(0, 4), reply.payload.subarray(4, 8)];
      for (const [i, peer] of this.#peers.entries()) {
        const role = BigInt(i + 1);
        const found = peer.store.find(INODE, stripe | role, NEWEST);
        const what = `${when}: chunk ${role} of object ${object}`;
        if (content === null) {
          assert.equal(found, undefined, what);
          continue;
        }
        assert.ok(found, `${what} is missing`);
        const data = i === 0 ? content.subarray(BLOCK) : xor(content.subarray(0, BLOCK), content.subarray(BLOCK));
        assert.equal(found.version, reply.field('version'), `version of ${what}`);
        assert.ok(found.data.equals(data), `content of ${what}`);
        assert.equal(found.bitmap.toString('hex'), (i === 0 ? second : xor(first, second)).toString('hex'), `bitmap of ${what}`);
        const unstable = peer.store.list((inode, s) => inode === INODE && s === (stripe | role)).unstable;
        assert.deepEqual(unstable, [], `unstable versions of ${what}`);
      }
    }
  }
}

function xor(a: Buffer, b: Buffer): Buffer {
  return Buffer.from(a.map((byte, i) => byte ^ (b[i] ?? 0)));
}

async function waitState(lab: Lab, what: string, wanted: (state: readonly string[]) => boolean): Promise<void> {
  let last: string[] = [];
  await until(what, async () => {
    last = await pgState(lab, 1);
    return wanted(last);
  }, { timeoutMs: 60_000, diagnose: () => `it is ${last.join('+')}\n${lab.daemons().map((child) => child.story()).join('\n')}` });
}

export const erasureCodedPeers: Story = {
  name: 'peer308-ec',
  short: true,
  run: async ({ lab: make, say, long }) => {
    const lab = await make();
    const journal = new Journal();
    await lab.startEtcd();
    const pools = new Map([[POOL, { scheme: 'ec' as const, pgCount: 1, pgStripeSize: BigInt(SPAN), dataChunks: DATA_CHUNKS }]]);
    const peers: PeerOsd[] = [];
    try {
      for (const osd of [2, 3]) peers.push(await startPeer(lab, journal, osd, { pools, replyDelayMs: 1 }));
      await lab.startOsd(1);
      await putPool(lab, [{ osdSet: [1, 2, 3], primary: 1 }], { scheme: 'ec', parity_chunks: 1, pg_minsize: DATA_CHUNKS, local_reads: 'nearest' });
      const clean = (): Promise<void> => waitState(lab, 'the PG is clean', (state) => state.join() === 'active');
      await clean();
      const rig = new Rig(lab, journal, peers);

      await rig.write(0, GRANULE, bytes(1, GRANULE));
      await rig.write(0, BLOCK + 3 * GRANULE, bytes(2, 2 * GRANULE));
      await rig.write(1, 0, bytes(3, SPAN));
      await rig.write(1, BLOCK - GRANULE, bytes(4, 2 * GRANULE));
      await rig.write(2, BLOCK, bytes(5, GRANULE));
      await rig.delete(2);
      await rig.expectChunks('after single writes');
      await rig.writeUntil(sleep(500), 0);
      await rig.expectContent('after parallel writes');
      await rig.expectChunks('after parallel writes');

      const client = await PeerOpener.open({ clock, journal, port: await portOf(lab, 1), wanted: 1, dataChunks: DATA_CHUNKS });
      try {
        const version = (await client.read(INODE, 0, 0)).field('version');
        assert.equal((await client.write(INODE, 0, bytes(9, GRANULE), version)).retval, -4n, 'a compare-and-set that does not match');
      } finally {
        client.close();
      }

      for (let round = 1; round <= (long ? 20 : 4); round++) {
        // In turn the data chunk and the parity: gone in the middle of two-phase writes, and back with what it had.
        const peer = peers[round % peers.length];
        assert.ok(peer);
        const degraded = async (): Promise<void> => {
          await sleep(200);
          await peer.stop();
          await lab.etcd.delete(`${lab.prefix}/osd/state/${peer.osd}`);
          await waitState(lab, 'the PG goes on without the peer', (state) => state.includes('active') && state.includes('degraded'));
          await sleep(200);
        };
        await rig.writeUntil(degraded(), round);
        await rig.expectContent(`round ${round}, without OSD ${peer.osd}`);
        await peer.restart();
        await registerPeer(lab, peer);
        await rig.writeUntil(clean(), round);
        await rig.expectContent(`round ${round}`);
        await rig.expectChunks(`round ${round}`);
        for (const one of peers) assert.equal(one.aborted, undefined, one.aborted);
      }
      journal.expectClean();
      // Local reads of chunks (docs/adr/0049) are nothing that 3.0.8 knows: it is not locked for them.
      for (const one of peers) assert.ok(!one.seen.includes('SEC_LOCK'));
      say(`${rig.written} writes, ${peers.reduce((sum, one) => sum + one.seen.length, 0)} requests to the peers`);
    } finally {
      for (const peer of peers) await peer.stop();
    }
  },
};
