// SPDX-License-Identifier: GPL-2.0-or-later
// `npm start`, after set-up and build: a private cluster, real data written and verified.

import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { Lab, findPrograms, until } from '@vitastor/e2e/lab';
import { ioUringRefusal, takesDirect } from './machine.js';
import { HELP, type StartOptions, UsageError, parseOptions } from './options.js';
import { say, step } from './screen.js';
import { checkEarlierData, takeFigures, writeAndVerify } from './workload.js';

const POOL = 'testpool';
const IMAGE = 'testimg';

/** How a data directory was made; kept in it. */
interface Made {
  osds: number;
  immediateCommit: 'all' | 'none';
  verified: boolean;
}

function readMade(dir: string): Made | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(join(dir, 'start.json'), 'utf8'));
    if (typeof value !== 'object' || value === null) return undefined;
    const made = value as Record<string, unknown>;
    return {
      osds: Number(made['osds'] ?? 0),
      immediateCommit: made['immediateCommit'] === 'none' ? 'none' : 'all',
      verified: made['verified'] === true,
    };
  } catch {
    return undefined;
  }
}

function writeMade(dir: string, made: Made): void {
  writeFileSync(join(dir, 'start.json'), `${JSON.stringify(made)}\n`);
}

/** Takes the directory for this process. Throws when another start runs on it. */
function lock(dir: string): void {
  const file = join(dir, 'start.pid');
  if (existsSync(file)) {
    const pid = Number(readFileSync(file, 'utf8'));
    try {
      if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('start/main.js') && pid !== process.pid) {
        throw new UsageError(`${dir} is in use by another npm start (process ${pid}); end that one, or give another --data DIR`);
      }
    } catch (error) {
      if (error instanceof UsageError) throw error;
      // That process is gone.
    }
  }
  writeFileSync(file, `${process.pid}\n`);
  process.on('exit', () => rmSync(file, { force: true }));
}

/** Small programs in the data directory that know this cluster. */
function writeHelpers(lab: Lab): void {
  const cli = lab.programs.cli.map((word) => `'${word}'`).join(' ');
  const script = `#!/bin/sh\n# vitastor-cli for the cluster in this directory\nexec ${cli} "$@" --config_path '${lab.configPath}'\n`;
  const file = join(lab.dir, 'vitastor-cli');
  writeFileSync(file, script);
  chmodSync(file, 0o755);
}

function prepare(options: StartOptions): Made | undefined {
  const made = readMade(options.dir);
  if (existsSync(join(options.dir, 'etcd1')) && !made) {
    throw new UsageError(`${options.dir} holds something that npm start has not made; give another --data DIR`);
  }
  mkdirSync(options.dir, { recursive: true });
  lock(options.dir);
  if (options.fresh && made) {
    rmSync(options.dir, { recursive: true, force: true });
    mkdirSync(options.dir, { recursive: true });
    lock(options.dir);
  }
  const space = statfsSync(options.dir);
  const free = space.bavail * space.bsize;
  const need = options.copies * 256 * 2 ** 20 + 256 * 2 ** 20;
  if (free < need) {
    throw new UsageError(`${options.dir}: ${Math.floor(free / 2 ** 20)} MB are free, the check writes up to ${need / 2 ** 20} MB; give another --data DIR`);
  }
  const earlier = options.fresh ? undefined : made;
  if (!earlier) writeMade(options.dir, { osds: 0, immediateCommit: options.immediateCommit, verified: false });
  return earlier;
}

async function bringUp(lab: Lab, options: StartOptions, made: Made | undefined): Promise<void> {
  await step('etcd', async () => {
    await lab.startEtcd();
    return lab.etcdAddresses.join(', ');
  });
  const monitor = await lab.startMonitor();
  const count = Math.max(options.osds, made?.osds ?? 0);
  await step('OSDs', async (show) => {
    const direct = takesDirect(lab.dir);
    const numbers = Array.from({ length: count }, (_, index) => index + 1);
    let up = 0;
    await Promise.all(
      numbers.map(async (num) => {
        await lab.startOsd(num, direct ? {} : { data_io: 'cached' });
        show(`${++up} of ${count} up`);
      }),
    );
    const refusal = ioUringRefusal(lab.osds.get(1)?.lastLines(100) ?? []);
    return (
      `${count} up${direct ? '' : ' (this file system refuses O_DIRECT: through the page cache)'}` +
      (refusal ? ` (io_uring is refused: ${refusal}; through epoll and threads, slower; ${join(relative(process.cwd(), lab.dir), 'log', 'osd1.log')} says what to change)` : '')
    );
  });
  await step('monitor', async () => {
    await until('a monitor is elected', async () => (await lab.etcd.get(`${lab.prefix}/mon/master`)) !== undefined, {
      timeoutMs: 60_000,
      hopeless: () => (monitor.exit ? monitor.story() : undefined),
      diagnose: () => monitor.story(),
    });
    return lab.monitorAddress();
  });
  await step('pool', async (show) => {
    if (!(await lab.pools()).some((pool) => pool.name === POOL)) {
      await until('the pool is created', () => lab.createPool(POOL, { size: options.copies, pgCount: options.pgs, wait: false }).then(() => true), {
        timeoutMs: 30_000,
        everyMs: 500,
      });
    }
    await lab.waitActive({ timeoutMs: 90_000, onChange: show });
    const pool = (await lab.pools()).find(({ name }) => name === POOL);
    return `${POOL}: ${pool?.pgCount ?? 0} PGs, all active`;
  });
  await step('image', async () => {
    const list = await lab.cliJson(['ls']);
    const known = Array.isArray(list) && list.some((image: unknown) => typeof image === 'object' && image !== null && 'name' in image && image.name === IMAGE);
    if (!known) await lab.createImage(IMAGE, options.size, ['--pool', POOL]);
    return `${IMAGE}, ${known ? 'from last time' : options.size}`;
  });
}

async function work(lab: Lab, options: StartOptions, made: Made | undefined): Promise<void> {
  const megabytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MB`;
  const state: Made = { osds: Math.max(options.osds, made?.osds ?? 0), immediateCommit: lab.immediateCommit === 'none' ? 'none' : 'all', verified: made?.verified ?? false };
  writeMade(lab.dir, state);
  if (state.verified) {
    await step('data', async () => `${megabytes(await checkEarlierData(lab, IMAGE))} of the last start are still there, every checksum is right`);
  }
  // Until the new data is complete, a broken-off start leaves a mixture behind that nobody can check.
  writeMade(lab.dir, { ...state, verified: false });
  await step('check', async () => `${megabytes(await writeAndVerify(lab, IMAGE))} written through fio and verified`);
  writeMade(lab.dir, { ...state, verified: true });
  if (options.figures) {
    say();
    await takeFigures(lab, IMAGE, (line) => say(`  ${line}`));
  }
  const status = await lab.cli(['status']);
  say();
  say(status.code === 0 ? status.stdout.trimEnd() : `vitastor-cli status: exit code ${status.code}\n${status.stderr}`);
}

function hints(lab: Lab): void {
  const dir = relative(process.env['INIT_CWD'] ?? process.cwd(), lab.dir);
  const short = dir.startsWith('..') ? lab.dir : dir;
  say(`
It stays up until Ctrl-C. Next, in another terminal:

  ${short}/vitastor-cli status                 also: df, ls, osd-tree, pg-list, create -s 10G NAME
  LD_LIBRARY_PATH=${short}/lib ${lab.programs.fio.startsWith(lab.programs.root) ? lab.programs.fio : 'fio'} -thread -ioengine=vitastor -conf=${short}/vitastor.conf -image=${IMAGE} \\
    -name=test -direct=1 -bs=4k -iodepth=32 -rw=randwrite -offset=128M -size=128M -runtime=10 -time_based
  etcdctl --endpoints=${lab.etcdAddresses.join(',')} get --prefix ${lab.prefix}/pg/state
  kill -9 ${lab.osdPid(1) || 'PID'}                            ends OSD 1 hard: the cluster goes on, and it is started again

  logs: ${short}/log`);
}

async function main(): Promise<number> {
  const programs = findPrograms();
  const options = parseOptions(process.argv.slice(2), programs.root);
  if (!options) {
    process.stdout.write(HELP);
    return 0;
  }
  const made = prepare(options);
  if (made && made.osds > options.osds) say(`The data directory has ${made.osds} OSDs from last time; all of them are started.`);
  let up = false;
  const lab = await Lab.create({
    dir: options.dir,
    keep: true,
    osdBytes: options.diskBytes,
    immediateCommit: made?.immediateCommit ?? options.immediateCommit,
    respawn: true,
    onDeath: (child) => {
      if (up) say(`\n${child.story(3)}\n  It is started again.`);
    },
  });
  writeHelpers(lab);

  let stoppingSince = 0;
  let ended = (): void => {};
  const end = new Promise<void>((resolve) => (ended = resolve));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      // A second Ctrl-C ends it hard; the children are killed on the way out. One Ctrl-C may arrive twice: from the terminal and through npm.
      if (stoppingSince > 0) {
        if (performance.now() - stoppingSince > 500) process.exit(130);
        return;
      }
      stoppingSince = performance.now();
      say('\nStopping.');
      void lab.stopAll().then(() => (up ? ended() : process.exit(130)));
    });
  }

  try {
    say(`A cluster in ${options.dir}:`);
    await bringUp(lab, options, made);
    await work(lab, options, made);
    up = true;
    if (!options.once) {
      hints(lab);
      await end;
      say('Stopped; the data stays for the next start.');
    }
    return 0;
  } catch (error) {
    if (stoppingSince > 0) await new Promise(() => {}); // the signal handler ends the process
    say(`\nFailed: ${error instanceof Error ? error.message : String(error)}\n\nLogs: ${join(options.dir, 'log')}`);
    return 1;
  } finally {
    await lab.stopAll();
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 2;
}
