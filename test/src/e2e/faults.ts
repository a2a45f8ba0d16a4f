// SPDX-License-Identifier: GPL-2.0-or-later
// Processes that die, freeze or are cut off while fio writes and verifies.

import assert from 'node:assert/strict';
import { type Lab, sleep, until } from '../lab/index.js';
import { fioVerify, smallCluster, type Story } from './scenario.js';

/** Runs fio for a while and something nasty in the middle. */
async function during(lab: Lab, depth: number, seconds: number, nasty: () => Promise<void>): Promise<void> {
  const writing = fioVerify(lab, { depth, seconds });
  const disturbed = sleep(1500).then(nasty);
  await Promise.all([writing, disturbed]);
}

function killStory(what: 'osd' | 'monitor' | 'etcd', short: boolean): Story {
  return {
    name: `kill-${what}`,
    short,
    run: async ({ lab: make, long, say }) => {
      const lab = await make();
      await smallCluster(lab);
      for (const depth of long ? [1, 32] : [32]) {
        say(`depth ${depth}`);
        await during(lab, depth, long ? 20 : 6, async () => {
          const child = what === 'osd' ? lab.osds.get(1) : what === 'monitor' ? lab.monitors.get('mon1') : lab.etcds.get('etcd1');
          await child?.kill9();
          await sleep(long ? 8000 : 1000);
          if (what === 'osd') await lab.startOsd(1);
          else if (what === 'monitor') await lab.startMonitor('mon1');
          else await lab.restartEtcd('etcd1');
        });
        await lab.waitActive({ timeoutMs: 60_000 });
      }
    },
  };
}

/**
 * OSDs die again and again, one at a time and now and then all of them, and are started again at once or after a while, also before the
 * others have recovered. fio goes on writing and verifying. Each mode of immediate_commit gets a third of the time. `kill-osd` is the short form.
 */
const killLoop: Story = {
  name: 'kill-osd-loop',
  short: false,
  run: async ({ lab: make, minutes, say }) => {
    const total = { kills: 0, rounds: 0, megabytes: 0 };
    for (const immediateCommit of ['all', 'small', 'none'] as const) {
      const lab = await make({ immediateCommit });
      await smallCluster(lab);
      const endMs = performance.now() + (minutes * 60_000) / 3;
      let writing = true;
      let kills = 0;
      const kill = async (): Promise<void> => {
        while (writing) {
          await sleep(300 + ((kills * 733) % 2500));
          if (!writing) break;
          const numbers = kills % 7 === 6 ? [1, 2, 3] : [1 + (kills % 3)];
          await Promise.all(numbers.map((num) => lab.osds.get(num)?.kill9()));
          kills += numbers.length;
          await sleep((kills * 389) % 3000);
          await Promise.all(numbers.map((num) => lab.startOsd(num)));
        }
      };
      const killing = kill();
      try {
        for (let round = 0; performance.now() < endMs; round++) {
          const bs = ['4k', '16k', '64k', '4k-128k'][round % 4] ?? '4k';
          const megabytes = 24;
          const result = await lab.fio([
            `-name=soak${round}`, '-image=testimg', '-rw=randwrite', ...(bs.includes('-') ? [`-bsrange=${bs}`, '-bs_unaligned=0'] : [`-bs=${bs}`]),
            `-offset=${(round % 8) * 32}M`, `-size=${megabytes}M`, `-iodepth=${[1, 16, 64][round % 3]}`, '-rate=6m', '-direct=1', '-verify=crc32c',
            '-verify_fatal=1', '-do_verify=1', `-randseed=${round + 1}`,
          ], { timeoutMs: 300_000 });
          assert.equal(result.code, 0, `fio with verification failed after ${kills} kills:\n${result.stdout.slice(-3000)}\n${result.stderr}`);
          assert.ok(result.jobs.every((job) => job.error === 0), `fio reports errors: ${JSON.stringify(result.jobs)}`);
          total.rounds++;
          total.megabytes += megabytes;
        }
      } finally {
        writing = false;
        await killing;
      }
      await lab.waitActive({ timeoutMs: 120_000 });
      total.kills += kills;
      say(`immediate_commit ${immediateCommit}: ${kills} kills`);
      await lab.stopAll();
    }
    assert.ok(total.kills >= 3, 'hardly anything was killed');
    say(`${total.kills} OSDs killed in ${minutes} minutes, ${total.rounds} runs of fio, ${total.megabytes} MB written and verified, nothing lost`);
  },
};

/** Every process of the cluster at once, started again while fio waits. */
function wholeClusterStory(immediateCommit: 'all' | 'none', depth: number, short: boolean): Story {
  return {
    name: `whole-cluster-${immediateCommit}-q${depth}`,
    short,
    run: async ({ lab: make, long, say }) => {
      const lab = await make({ immediateCommit });
      await smallCluster(lab);
      await during(lab, depth, 5, async () => {
        await lab.kill9All();
        say('everything is dead');
        await sleep(long ? 60_000 : 3000);
        await lab.restartAll();
        say('everything is started again');
      });
      await lab.waitActive({ timeoutMs: 60_000 });
    },
  };
}

const etcdOutage: Story = {
  name: 'etcd-outage',
  short: true,
  run: async ({ lab: make, long }) => {
    const lab = await make();
    await smallCluster(lab);
    const pids = [...lab.osds.values()].map((child) => child.pid);
    await during(lab, 16, 8, async () => {
      await lab.etcds.get('etcd1')?.stop();
      await sleep(long ? 20_000 : 7000);
      await lab.restartEtcd('etcd1');
    });
    await lab.waitActive({ timeoutMs: 60_000 });
    assert.deepEqual([...lab.osds.values()].map((child) => child.pid), pids);
    for (const child of lab.osds.values()) assert.equal(child.exit, null, 'an OSD that lost its lease registers again and does not end');
  },
};

const frozenOsd: Story = {
  name: 'frozen-osd',
  short: true,
  run: async ({ lab: make, long }) => {
    const lab = await make();
    await smallCluster(lab);
    await during(lab, 16, long ? 30 : 12, async () => {
      const osd = lab.osds.get(2);
      osd?.pause();
      await sleep(8000);
      osd?.resume();
    });
    await lab.waitActive({ timeoutMs: 60_000 });
  },
};

const monitorFailover: Story = {
  name: 'monitor-failover',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make();
    await lab.startEtcd();
    await lab.startMonitor('mon1');
    await lab.startMonitor('mon2');
    for (const num of [1, 2, 3]) await lab.startOsd(num);
    await lab.createPool('testpool', { size: 2, minSize: 1, pgCount: 16 });
    await lab.createImage('testimg', '64M');
    const before = await lab.etcd.get('/vitastor/pg/config');
    await fioVerify(lab, { depth: 8, seconds: 1, megabytes: 8 });
    await lab.monitors.get('mon1')?.kill9();
    await lab.osds.get(3)?.stop();
    await until('the other monitor has taken over and moved the primaries of OSD 3', async () => {
      const config = await lab.etcd.get('/vitastor/pg/config');
      return config !== undefined && !/"primary":\s*"?3/.test(config);
    }, { timeoutMs: 60_000, diagnose: () => lab.diagnose() });
    await lab.waitActive();
    await fioVerify(lab, { depth: 8, seconds: 1, megabytes: 8 });
    await lab.startOsd(3);
    await lab.waitActive();
    const items = (text: string | undefined): string => JSON.stringify(
      Object.values((JSON.parse(text ?? '{}') as { items?: Record<string, Record<string, { osd_set: unknown }>> }).items?.['1'] ?? {}).map((pg) => pg.osd_set));
    assert.equal(items(await lab.etcd.get('/vitastor/pg/config')), items(before), 'a short absence moves no data');
  },
};

export const FAULT_STORIES: readonly Story[] = [
  killStory('osd', true), killStory('monitor', true), killStory('etcd', true),
  wholeClusterStory('all', 1, false), wholeClusterStory('all', 32, true), wholeClusterStory('none', 1, false), wholeClusterStory('none', 32, true),
  etcdOutage, frozenOsd, monitorFailover, killLoop,
];
