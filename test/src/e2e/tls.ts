// SPDX-License-Identifier: GPL-2.0-or-later
// TLS to etcd: a whole cluster over https with client certificates, and what each part says when a file is not the right one.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { writeFileSync } from 'node:fs';
import { assertSays, fioVerify, smallCluster, type Story } from './scenario.js';

const tlsToEtcd: Story = {
  name: 'tls-to-etcd',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make({ etcdTls: true });
    await smallCluster(lab, { image: '64M' });
    assert.match(lab.etcdAddresses[0] ?? '', /^https:/);
    await fioVerify(lab, { depth: 16, seconds: 1, megabytes: 8 });
    // The CLI's native part, too: it removes data.
    await lab.createImage('second', '8M');
    const rm = await lab.cli(['rm', 'second']);
    assert.equal(rm.code, 0, rm.stderr);
    // A second life: etcd ends, and the connections come up again.
    await lab.etcds.get('etcd1')?.kill9();
    await lab.restartEtcd();
    await lab.waitActive();
    await fioVerify(lab, { depth: 16, seconds: 1, megabytes: 8 });

    const file = (name: string): string => join(lab.dir, 'tls', name);
    writeFileSync(file('empty.crt'), '');
    // Daemons keep trying, and say what to look at.
    const wrong = { etcd_ca: file('other.crt') };
    const daemons = [await lab.startMonitor('mon2', wrong), await lab.startOsd(4, wrong, { wait: false })];
    for (const daemon of daemons) await daemon.waitForLine(/certificate.*etcd_ca/, 30_000);
    for (const daemon of daemons) await daemon.stop();

    const cases: [what: string, settings: Record<string, string>, ...says: RegExp[]][] = [
      ['another authority', { etcd_ca: file('other.crt') }, /certificate/i, /etcd_ca/, /https:\/\/127\.0\.0\.1/],
      ['no certificate of our own', { etcd_cert: '', etcd_key: '' }, /etcd_cert and etcd_key/],
      ['a certificate of another authority', { etcd_cert: file('other.crt'), etcd_key: file('other.key') }, /etcd_cert and etcd_key/],
      ['a certificate without its key', { etcd_key: '' }, /etcd_cert is set, but etcd_key is not/],
      ['a file that is not there', { etcd_ca: file('none.crt') }, /etcd_ca: .*none\.crt/],
      ['a file without a certificate', { etcd_ca: file('empty.crt') }, /etcd_ca: .*empty\.crt.*PEM/],
    ];
    for (const [what, settings, ...says] of cases) {
      const config = join(lab.dir, 'wrong.conf');
      writeFileSync(config, JSON.stringify({
        etcd_address: lab.etcdAddresses, etcd_ca: file('ca.crt'), etcd_cert: file('client.crt'), etcd_key: file('client.key'),
        max_etcd_attempts: 2, client_infinite_start: false, ...settings,
      }));
      const cli = await lab.command('cli', [...lab.programs.cli, 'status', '--config_path', config], { timeoutMs: 60_000 });
      assert.notEqual(cli.code, 0, what);
      const lines = cli.stderr.trimEnd().split('\n');
      const last = lines.pop() ?? '';
      assertSays(last, ...says);
      // Whoever has to wait is told for what (only where an attempt takes long).
      assert.deepEqual(lines.filter((line) => !/; attempt 1 of 2$/.test(line)), [], `one line says it: ${cli.stderr}`);
      const fio = await lab.rawFio(['-thread', '-ioengine=vitastor', `-conf=${config}`, '-name=x', '-image=testimg', '-rw=read', '-bs=4k', '-size=1M'], { timeoutMs: 60_000 });
      assert.notEqual(fio.code, 0, what);
      assertSays(fio.stdout + fio.stderr, ...says);
      for (const daemon of [lab.programs.monitor, [...lab.programs.osd, '--osd_num', '9', '--data_device', lab.osdFile(9)]]) {
        if (!/etcd_(ca|cert): |is set, but/.test(String(says[0]))) continue; // Those that could be over later: a daemon keeps trying.
        const result = await lab.command('daemon', [...daemon, '--config_path', config], { timeoutMs: 60_000 });
        assert.notEqual(result.code, 0, what);
        assertSays(result.stderr + result.stdout, ...says);
      }
    }
  },
};

export const TLS_STORIES: readonly Story[] = [tlsToEtcd];
