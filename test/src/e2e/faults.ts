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
  etcdOutage, frozenOsd, monitorFailover,
];
