// SPDX-License-Identifier: GPL-2.0-or-later
// vitastor-mon: wires the monitor to the machine. node mon/dist/src/main.js --name value ...

import { hostname, networkInterfaces } from 'node:os';
import {
  Etcd3Adapter,
  etcdTarget,
  errorText,
  KeySpace,
  loadLocalConfig,
  parseCommandLine,
  requireEtcdAddresses,
  SystemClock,
  SystemRandom,
  type Config,
} from '@vitastor/core';
import { pino } from 'pino';
import { MonitorHttp } from './http/server.js';
import type { Log } from './log.js';
import { Monitor } from './monitor.js';
import { WorkerSolver } from './worker-solver.js';

const HELP = `Vitastor monitor: decides where data lives and who leads it, and adds up statistics.

USAGE
  vitastor-mon [--etcd_address HOST:PORT,...] [--config_path FILE] [--etcd_prefix /vitastor] [--name value ...]

Several may run; one is master, the others stand by. Every monitor parameter of the manual works as --name value;
priority: command line, then /config/global in etcd, then the file (default /etc/vitastor/vitastor.conf).
SIGINT or SIGTERM: gives its lease back and exits 0.
`;

/** Every hand-over of the lease is bounded; this is for what nobody thought of. */
const STOP_TIMEOUT_MS = 10_000;

function localIps(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter((a) => !a.internal && a.family === 'IPv4')
    .map((a) => a.address);
}

function makeLog(verbose: boolean): Log {
  const logger = pino({
    base: null,
    level: verbose ? 'debug' : 'info',
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  });
  return {
    info: (text) => logger.info(text),
    warn: (text) => logger.warn(text),
    error: (text) => logger.error(text),
  };
}

async function main(words: readonly string[]): Promise<number> {
  const { options, args } = parseCommandLine(words, {
    flags: new Set(['help', 'version']),
    short: { h: 'help' },
  });
  if (options['help'] !== undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  if (args.length > 0) throw new Error(`unexpected argument "${args[0]}"; see --help`);
  const config = await loadLocalConfig(options);
  const log = makeLog(config.number('verbose') > 0 || config.number('log_level') > 0);
  const { addresses, tls } = await etcdTarget(config);
  const clock = new SystemClock();
  const etcd = new Etcd3Adapter({ addresses, tls, clock, random: new SystemRandom() });
  const solver = new WorkerSolver();
  const described = new Set<string>();
  const describe = (current: Config): void => {
    const lines = current.describeSources('M').filter((line) => !described.has(line));
    for (const line of lines) log.info(line);
    for (const line of lines) described.add(line);
  };
  describe(config);
  if (config.boolean('use_antietcd'))
    log.warn('use_antietcd is set, but this monitor has no etcd in it: start etcd, and unset it');
  let used = addresses.join(',');
  const monitor = new Monitor({
    etcd,
    clock,
    solver,
    log,
    config,
    keys: new KeySpace(config.string('etcd_prefix')),
    hostname: hostname(),
    ips: localIps(),
    onConfig: (current) => {
      describe(current);
      const next = requireEtcdAddresses(current);
      if (next.join(',') === used) return;
      used = next.join(',');
      etcd.setAddresses(next);
    },
  });
  const http = config.boolean('enable_prometheus') ? new MonitorHttp(monitor, config, log) : null;
  const port = await http?.listen(config.string('mon_http_ip'), config.number('mon_http_port'));
  if (typeof port === 'number')
    log.info(
      `metrics: http://${config.string('mon_http_ip') || 'localhost'}:${port}${config.string('prometheus_path')}`,
    );
  monitor.start();
  const signal = await new Promise<NodeJS.Signals>((resolve) => {
    process.once('SIGINT', resolve);
    process.once('SIGTERM', resolve);
  });
  log.info(`${signal}: stopping`);
  // A second signal ends it at once.
  for (const again of ['SIGINT', 'SIGTERM'] as const) process.once(again, () => process.exit(0));
  clock.after(STOP_TIMEOUT_MS, () => process.exit(0));
  await http?.close();
  await monitor.stop();
  await solver.close();
  etcd.close();
  return 0;
}

main(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`vitastor-mon: ${errorText(error)}\n`);
    process.exit(1);
  },
);
