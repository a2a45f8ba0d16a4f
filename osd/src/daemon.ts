// SPDX-License-Identifier: GPL-2.0-or-later
// The storage daemon itself. Exit codes: 0 after an orderly stop or when its number is already up, 1 otherwise.

import {
  Config,
  ClusterState,
  errorText,
  Etcd3Adapter,
  etcdTarget,
  KeySpace,
  loadLocalConfig,
  parseCommandLine,
  problemText,
  requireEtcdAddresses,
  SystemClock,
  SystemRandom,
  type Etcd,
} from '@vitastor/core';
import { hostname, networkInterfaces } from 'node:os';
import { loadEngine } from './addon.js';
import { publishedAddresses, type LocalAddress } from './networks.js';
import { replacedParameters } from './option-table.js';
import { osdOptions, scrubPlanOf } from './options.js';
import { OsdControl } from './osd-control.js';
import type { FromOsd, LeaseRecord } from './supervisor.js';

const HELP = `vitastor-osd --osd_num N --data_device PATH [--name value ...]

One OSD serves one file or block device. All parameters of the manual are accepted, from the command line, from
/config/global in etcd, and from the configuration file, in this order of strength.

  --osd_num N             number of this OSD
  --data_device PATH      file or block device with the data
  --meta_device PATH      metadata on another device
  --readonly 1            serve reads, change nothing
  --disable_device_lock 1 several OSDs share the device, each with --data_offset and --data_size of its own
  --immediate_commit M    all, small or none
  --disable_data_fsync 1  the device has no volatile cache
  --bind_address IP       listen here (default: addresses inside osd_network, else all)
  --bind_port PORT        default: any free port
  --hostname NAME         failure domain of this OSD (default: the name of the machine)
  --config_path FILE      default: /etc/vitastor/vitastor.conf
  --supervise HOW         be a small parent of the daemon: when it dies by itself, its lease is revoked at once and the
                          others go on in well under a second. revoke: end with it; restart: start it again
  --etcd_address LIST     [http://]host:port,...
`;

type Level = 'error' | 'warning' | 'info' | 'debug';

const clock = new SystemClock();

function log(level: Level, text: string): void {
  const line = `${new Date(clock.wallMs()).toISOString()} ${level} ${text}\n`;
  (level === 'error' || level === 'warning' ? process.stderr : process.stdout).write(line);
}

function localAddresses(): LocalAddress[] {
  return Object.values(networkInterfaces()).flatMap((list) => list ?? [])
    .filter(({ address }) => !address.startsWith('fe80:'))
    .map(({ address, internal }) => ({ address, loopback: internal }));
}

/** Waits for etcd as long as it takes: an OSD that starts before etcd is the ordinary case after a power cut. */
async function globalConfig(etcd: Etcd, clock: SystemClock, keys: KeySpace, local: Config): Promise<Config> {
  const state = new ClusterState({
    etcd, clock, keys, paths: ['config/global'],
    onProblem: (problem) => log('warning', problemText(problem)),
    onTrouble: (text) => log('warning', text),
  });
  try {
    await state.load({
      attempts: Number.POSITIVE_INFINITY,
      timeoutMs: local.number('etcd_quick_timeout'),
      pauseMs: 500,
    });
  } finally {
    state.stop();
  }
  return local.withEtcd(state.view.global);
}

async function main(words: readonly string[]): Promise<number> {
  if (words.length === 0) {
    process.stderr.write(HELP);
    return 1;
  }
  const { options, args } = parseCommandLine(words, { flags: new Set(['help']), short: { h: 'help' } });
  if (options['help'] !== undefined || args[0] === 'help') {
    process.stdout.write(HELP);
    return 0;
  }
  const local = await loadLocalConfig(options);
  const keys = new KeySpace(local.string('etcd_prefix'));
  const target = await etcdTarget(local);
  const etcd = new Etcd3Adapter({ ...target, clock, random: new SystemRandom() });
  let stopEarly: (() => void) | undefined;
  const early = new Promise<null>((resolve) => (stopEarly = () => resolve(null)));
  let control: OsdControl | null = null;
  const onSignal = (): void => {
    stopEarly?.();
    if (control) void control.stop();
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  let asked = false;
  const onAsked = (): void => {
    if (!asked) onSignal();
    asked = true;
  };
  // From a supervisor. Without one nobody would revoke our lease if we died, nor start us again: that ends in order too.
  process.on('message', (message) => {
    if (message === 'stop') onAsked();
  });
  process.on('disconnect', onAsked);
  try {
    const config = await Promise.race([globalConfig(etcd, clock, keys, local), early]);
    if (config === null) return 0;
    for (const line of config.describeSources('O')) log('info', line);
    for (const line of replacedParameters(config)) log('warning', line);
    let addresses = requireEtcdAddresses(config).join();
    const tellLease = (lease: LeaseRecord['lease'], ttlSeconds: number): void => {
      const record: FromOsd = lease === '' ? null : { lease, ttlSeconds, etcd: { addresses: addresses.split(','), tls: target.tls } };
      process.send?.(record, undefined, {}, () => undefined);
    };
    const environment = { hostname: hostname(), localAddresses: localAddresses() };
    control = new OsdControl({
      etcd, clock, keys,
      createEngine: loadEngine(process.env['VITASTOR_BUILD_DIR']),
      options: osdOptions(config, environment),
      publishedAddresses: (bound) => publishedAddresses(bound, localAddresses()),
      settingsFor: (global) => local.withEtcd(global).asText(),
      scrubPlanFor: (global) => scrubPlanOf(local.withEtcd(global)),
      onGlobal: (global) => {
        const list = requireEtcdAddresses(local.withEtcd(global));
        if (list.join() === addresses) return;
        addresses = list.join();
        log('info', `etcd addresses are now ${addresses}`);
        etcd.setAddresses(list);
      },
      onLease: (lease, ttlSeconds) => tellLease(lease === 0n ? '' : lease.toString(), ttlSeconds),
      log,
    });
    const end = await control.run();
    log(end.exitCode === 0 ? 'info' : 'error', `OSD ends: ${end.reason}`);
    return end.exitCode;
  } finally {
    etcd.close();
  }
}

/** Ends this process. */
export async function runDaemon(words: readonly string[]): Promise<never> {
  try {
    process.exitCode = await main(words);
  } catch (error) {
    log('error', errorText(error));
    process.exitCode = 1;
  }
  // Whatever an addon or a library still holds must not keep a stopped daemon alive.
  process.exit();
}
