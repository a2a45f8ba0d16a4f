// SPDX-License-Identifier: GPL-2.0-or-later
// Live migration: a guest moves from one QEMU to another and back while it writes to one image, through the driver and through vhost-user-blk. Each writer
// fills its part of the disk with numbers that no other pass has, past the guest's cache, and reads it back: a write that was lost, or that arrived after a
// later one, is seen by the guest; what it wrote last is looked for in the image afterwards.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { Client } from '@vitastor/core';
import { type Lab, until } from '../lab/index.js';
import { Guest, makeInitramfs } from './guest.js';
import { driverDisk, type GuestDisk, missingFor, vhostDisk } from './guest-disks.js';
import { migrate, Qmp } from './qmp.js';
import { smallCluster, type Story } from './scenario.js';

const WRITERS = [0, 1, 2, 3];
const BLOCKS = 96;
const BYTES = BLOCKS * 4096;
/** Lines of 11 bytes. */
const LINES = Math.ceil(BYTES / 11);

const SCRIPT = `
say() { echo "GUEST $*"; }
writer() {
  pass=0
  while [ ! -e /tmp/stop ]; do
    pass=$((pass + 1)); first=$((1000000000 + $1 * 1000000000 + pass * ${LINES}))
    seq $first $((first + ${LINES})) | head -c ${BYTES} > /tmp/out$1
    dd if=/tmp/out$1 of=/dev/vda bs=4k seek=$(($1 * ${BLOCKS})) oflag=direct conv=notrunc 2>/dev/null || say "WRITE FAILED"
    dd if=/dev/vda of=/tmp/in$1 bs=4k count=${BLOCKS} skip=$(($1 * ${BLOCKS})) iflag=direct 2>/dev/null || say "READ FAILED"
    cmp -s /tmp/out$1 /tmp/in$1 || { say "writer $1 has LOST something of pass $pass"; cmp -l /tmp/out$1 /tmp/in$1 | head -n 3; }
    echo "GUEST writer $1 pass $pass"
  done
  say "writer $1 began last at $first"
}
for writer in ${WRITERS.join(' ')}; do writer $writer & done
read word; touch /tmp/stop; wait
dmesg | grep -i 'error\\|hung' | grep -v 'RAS\\|ACPI' | sed 's/^/GUEST KERNEL /'
say "end"
poweroff -f
`;

/** A machine and its monitor. */
interface Host {
  guest: Guest;
  qmp: Qmp;
  disk: GuestDisk;
}

/** The highest pass that a writer has told of. */
function passes(guest: Guest): number[] {
  return WRITERS.map((writer) => Math.max(0, ...guest.lines.map((line) => Number(new RegExp(`GUEST writer ${writer} pass (\\d+)$`).exec(line)?.[1] ?? 0))));
}

async function writesOn(guest: Guest, beyond: readonly number[], what: string): Promise<void> {
  await until(`all writers go on ${what}`, () => passes(guest).every((pass, writer) => pass >= (beyond[writer] ?? 0) + 2), {
    timeoutMs: 150_000, everyMs: 50, diagnose: () => guest.lines.slice(-30).join('\n'), hopeless: () => (guest.child.exit ? guest.child.story() : undefined),
  });
  guest.assertSaid();
}

/** What the guest has written last is what the image holds. */
async function compare(lab: Lab, guest: Guest): Promise<void> {
  const client = new Client({ configPath: lab.configPath, buildDir: lab.programs.buildDir, config: {}, failFast: false });
  try {
    const image = await client.open({ image: 'testimg' });
    for (const writer of WRITERS) {
      const first = Number(/began last at (\d+)/.exec(await guest.says(new RegExp(`GUEST writer ${writer} began last`)))?.[1]);
      const wanted = Array.from({ length: LINES + 1 }, (_, i) => `${first + i}\n`).join('').slice(0, BYTES);
      const { data } = await image.read(BigInt(writer * BYTES), BYTES);
      assert.ok(data.toString('latin1') === wanted, `the image does not hold what writer ${writer} wrote last (numbers from ${first} on)`);
    }
    await image.close();
  } finally {
    await client.close();
  }
}

function migrationStory(name: string, way: 'driver' | 'vhost'): Story {
  return {
    name,
    short: true,
    run: async ({ lab: make, long, say }) => {
      const lab = await make({ supervise: true });
      const missing = missingFor(lab, way);
      if (missing) {
        say(`left out: ${missing} is not there`);
        return;
      }
      await smallCluster(lab, { image: '64M' });
      const initramfs = makeInitramfs(lab, SCRIPT);
      const start = async (number: number, incoming: readonly string[]): Promise<Host> => {
        const disk = way === 'driver' ? driverDisk(lab, 'testimg') : await vhostDisk(lab, 'testimg', `vda${number}`);
        const path = join(lab.dir, `qmp${number}`);
        const guest = new Guest(lab, { initramfs, unmodified: disk.unmodified, qmp: path, argv: [...disk.argv, ...incoming] });
        return { guest, disk, qmp: await Qmp.connect(path, () => (guest.child.exit ? guest.child.story() : undefined)) };
      };
      let here = await start(0, []);
      await writesOn(here.guest, [], 'after the start');
      const hops = long ? 6 : 2;
      for (let hop = 1; hop <= hops; hop++) {
        const uri = `unix:${join(lab.dir, `move${hop}`)}`;
        const there = await start(hop, ['-incoming', uri]);
        const before = passes(here.guest);
        if (long && hop === 3) lab.killOsd(2); // a move in bad times
        const state = await migrate(here.qmp, uri);
        say(`moved (${hop} of ${hops}), the guest stood still for ${String(state['downtime'])} ms`);
        here.qmp.close();
        await here.guest.child.kill9();
        here.guest.assertSaid();
        await here.disk.backend?.stop();
        await writesOn(there.guest, before, `in QEMU ${hop}`);
        if (long && hop === 3) await lab.startOsd(2);
        here = there;
      }
      here.guest.type('stop');
      await here.guest.says(/GUEST end/);
      here.guest.assertSaid();
      say(`${passes(here.guest).reduce((sum, pass) => sum + pass, 0) * BLOCKS} blocks written and read back by ${WRITERS.length} writers`);
      await compare(lab, here.guest);
    },
  };
}

export const MIGRATION_STORIES: readonly Story[] = [migrationStory('qemu-migration', 'driver'), migrationStory('vhost-migration', 'vhost')];
