// SPDX-License-Identifier: GPL-2.0-or-later
// A whole cluster of real processes in one directory: etcd, monitors, OSDs, and the tools against it.
// Promises: everything it starts listens on loopback only, and nothing outlives stopAll() or this process.
//
//   const lab = await Lab.create();
//   try {
//     await lab.startEtcd();
//     await lab.startMonitor();
//     for (const n of [1, 2, 3]) await lab.startOsd(n);
//     await lab.createPool('testpool', { size: 2 });
//     await lab.createImage('testimg', '1G');
//     const { jobs } = await lab.fio(['-name=w', '-image=testimg', '-rw=randwrite', '-bs=4k', '-io_size=64M']);
//   } finally {
//     await lab.stopAll();
//   }

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, openSync, closeSync, ftruncateSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Child } from './child.js';
import { EtcdHttp } from './etcd-http.js';
import { type FioJob, parseFio } from './fio.js';
import { freePort } from './ports.js';
import { childrenOf } from './proc.js';
import { type Programs, findPrograms } from './programs.js';
import { parse, readPools, type PoolState } from './pools.js';
import { etcdTlsFlags, makeCertificates, tlsConfig } from './tls.js';
import { until } from './wait.js';

/** `--name value` options of a daemon. */
export type Params = Readonly<Record<string, string | number | boolean>>;

export interface LabOptions {
  /** Default: a fresh temporary directory. */
  dir?: string;
  /** The temporary directory is made in /dev/shm: for figures, and for tests that write much. */
  ram?: boolean;
  /** Keep the directory after stopAll(). Default: true for a given directory, false for a temporary one. */
  keep?: boolean;
  /** Where everything listens. `::1` for IPv6. */
  host?: string;
  etcdPrefix?: string;
  /** etcd speaks TLS only, under an authority made for this lab, and wants client certificates; vitastor.conf names the files. */
  etcdTls?: boolean;
  /** More keys for vitastor.conf, which every daemon and tool of the lab reads. */
  config?: Readonly<Record<string, unknown>>;
  /** Default: all. `global` is what is put into `/config/global`, and every OSD is started with it. */
  immediateCommit?: 'all' | 'small' | 'none';
  /** Size of an OSD's data file. Sparse. */
  osdBytes?: number;
  /** etcd without fsync: quick, and good enough against kill -9. Default: true in RAM or a temporary directory. */
  etcdUnsafe?: boolean;
  /**
   * An OSD or monitor that ends by itself is started again, and OSDs are supervised. Without it, only an OSD that ends with 0 (its number
   * was still up) is started again, as its unit file would.
   */
  respawn?: boolean;
  /** OSDs are started under `--supervise revoke` (true) or restart: the lease of one that dies by itself is revoked at once. */
  supervise?: boolean | 'restart';
  /** More environment for OSDs. */
  osdEnv?: NodeJS.ProcessEnv;
  /** Words before the command line of a daemon (`osd1`, `mon1`, `etcd1`), such as Network.under gives. */
  under?: (name: string) => readonly string[];
  /** Called when a daemon ends by itself. */
  onDeath?: (child: Child) => void;
}

export interface CommandResult {
  code: number;
  stdout: string;
  stderr: string;
}

export interface CommandOptions {
  timeoutMs?: number;
  env?: NodeJS.ProcessEnv;
  onLine?: (line: string) => void;
  /** Words before the command line. */
  under?: readonly string[];
}

export interface PoolOptions {
  size?: number;
  minSize?: number;
  pgCount?: number;
  failureDomain?: string;
  /** More options of create-pool. */
  args?: readonly string[];
  /** Wait until all PGs are active. Default: true. */
  wait?: boolean;
}

function flags(params: Params): string[] {
  return Object.entries(params).flatMap(([name, value]) => [`--${name}`, String(value)]);
}

/** Pause before a daemon that ended by itself is started again. */
const RESPAWN_MS = 500;

export class Lab {
  readonly dir: string;
  readonly programs: Programs;
  readonly host: string;
  readonly prefix: string;
  readonly etcds = new Map<string, Child>();
  readonly monitors = new Map<string, Child>();
  readonly osds = new Map<number, Child>();
  readonly immediateCommit: 'all' | 'small' | 'none';
  #options: LabOptions;
  #keep: boolean;
  /** lab: with TLS, where the lab itself asks this member in plain words. */
  #etcdPorts = new Map<string, { client: number; peer: number; lab?: number }>();
  #osdParams = new Map<number, Params>();
  #monitorParams = new Map<string, Params>();
  #commands = new Set<Child>();
  #started = new Set<Child>();
  #commandNumber = 0;
  #stopping = false;
  #stopped = false;
  /** Revision at which the state key of an OSD's earlier life was made: not a sign of the new one. */
  #osdBefore = new Map<number, string>();

  private constructor(dir: string, keep: boolean, options: LabOptions) {
    this.dir = dir;
    this.programs = findPrograms();
    this.host = options.host ?? '127.0.0.1';
    this.prefix = options.etcdPrefix ?? '/vitastor';
    this.immediateCommit = options.immediateCommit ?? 'all';
    this.#options = options;
    this.#keep = keep;
    mkdirSync(join(dir, 'log'), { recursive: true });
    mkdirSync(join(dir, 'lib'), { recursive: true });
    // fio passes a bare engine name to dlopen(), which looks for a file of exactly that name.
    const links = {
      vitastor: this.programs.fioEngine,
      'libfio_vitastor.so': this.programs.fioEngine,
      'libvitastor.so.1': join(this.programs.buildDir, 'libvitastor.so.1'),
    };
    for (const [name, target] of Object.entries(links)) {
      rmSync(join(dir, 'lib', name), { force: true });
      symlinkSync(target, join(dir, 'lib', name));
    }
  }

  static async create(options: LabOptions = {}): Promise<Lab> {
    let dir = options.dir;
    if (dir === undefined) {
      const parent = options.ram === true && existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
      dir = mkdtempSync(join(parent, 'vitastor-lab-'));
    } else {
      mkdirSync(dir, { recursive: true });
    }
    return new Lab(dir, options.keep ?? options.dir !== undefined, options);
  }

  /** The configuration file that daemons and tools of this lab read. */
  get configPath(): string {
    return join(this.dir, 'vitastor.conf');
  }

  #url(port: number): string {
    return `http://${this.host.includes(':') ? `[${this.host}]` : this.host}:${port}`;
  }

  #clientUrl(port: number): string {
    return this.#options.etcdTls === true ? this.#url(port).replace('http:', 'https:') : this.#url(port);
  }

  /** Client addresses of all etcd members, as in vitastor.conf. */
  get etcdAddresses(): string[] {
    return [...this.#etcdPorts.values()].map(({ client }) => this.#clientUrl(client));
  }

  /** Calls to the first living etcd member. */
  get etcd(): EtcdHttp {
    const name = [...this.etcds].find(([, child]) => !child.exit)?.[0] ?? 'etcd1';
    const ports = this.#etcdPorts.get(name);
    if (!ports) throw new Error('no etcd was started in this lab');
    return new EtcdHttp(this.#url(ports.lab ?? ports.client));
  }

  writeConfig(): void {
    const config = {
      etcd_address: this.etcdAddresses,
      ...(this.#options.etcdTls === true ? tlsConfig(this.dir) : {}),
      ...(this.prefix === '/vitastor' ? {} : { etcd_prefix: this.prefix }),
      ...this.#options.config,
    };
    writeFileSync(this.configPath, `${JSON.stringify(config, null, 2)}\n`);
  }

  #daemon(name: string, argv: readonly string[], onEnd?: (child: Child) => void, env: NodeJS.ProcessEnv = {}): Child {
    const onDeath = (child: Child): void => {
      if (this.#stopping) return;
      this.#options.onDeath?.(child);
      onEnd?.(child);
    };
    const child = new Child({
      name,
      argv: [...(this.#options.under?.(name) ?? []), ...argv],
      logFile: join(this.dir, 'log', `${name}.log`),
      env: { ...process.env, VITASTOR_BUILD_DIR: this.programs.buildDir, ...env },
      onDeath,
    });
    this.#started.add(child);
    return child;
  }

  /** Runs `again` after a pause unless `child` was stopped for good meanwhile. */
  #later(child: Child, again: () => Promise<unknown>): void {
    const timer = setTimeout(() => {
      if (!this.#stopping && !child.unwanted) void again().catch(() => {});
    }, RESPAWN_MS);
    timer.unref();
  }

  // ------------------------------------------------------------ etcd

  /**
   * Starts `members` etcd processes (named etcd1, etcd2 ...) and waits until they answer. On a directory that was used before, their data is
   * there again, and their ports if those are free.
   */
  async startEtcd(members = 1): Promise<void> {
    const names = Array.from({ length: members }, (_, index) => `etcd${index + 1}`);
    const file = join(this.dir, 'ports.json');
    const old = existsSync(file) ? parse(readFileSync(file, 'utf8')) : {};
    for (const name of names) {
      if (this.#etcdPorts.has(name)) continue;
      const before = parse(JSON.stringify(old[name] ?? {}));
      this.#etcdPorts.set(name, {
        client: await freePort(this.host, typeof before['client'] === 'number' ? before['client'] : undefined),
        peer: await freePort(this.host, typeof before['peer'] === 'number' ? before['peer'] : undefined),
      });
    }
    if (this.#options.etcdTls === true) {
      makeCertificates(this.dir, this.host);
      for (const ports of this.#etcdPorts.values()) ports.lab ??= await freePort(this.host);
    }
    writeFileSync(file, `${JSON.stringify(Object.fromEntries(this.#etcdPorts))}\n`);
    this.writeConfig();
    await Promise.all(names.map((name) => this.restartEtcd(name)));
    const global = `${this.prefix}/config/global`;
    if ((await this.etcd.get(global)) === undefined) {
      await this.etcd.put(global, JSON.stringify({ immediate_commit: this.immediateCommit }));
    }
  }

  /** Starts one member (again) on its data, and waits until it answers. */
  async restartEtcd(name = 'etcd1'): Promise<Child> {
    const ports = this.#etcdPorts.get(name);
    if (!ports) throw new Error(`no etcd member ${name} in this lab`);
    const cluster = [...this.#etcdPorts].map(([member, { peer }]) => `${member}=${this.#url(peer)}`).join(',');
    const unsafe = this.#options.etcdUnsafe ?? !this.#keep;
    const child = this.#daemon(name, [
      this.programs.etcd,
      '--name', name,
      '--data-dir', join(this.dir, name),
      '--listen-client-urls', [this.#clientUrl(ports.client), ...(ports.lab === undefined ? [] : [this.#url(ports.lab)])].join(','),
      '--advertise-client-urls', this.#clientUrl(ports.client),
      ...(this.#options.etcdTls === true ? etcdTlsFlags(this.dir) : []),
      '--listen-peer-urls', this.#url(ports.peer),
      '--initial-advertise-peer-urls', this.#url(ports.peer),
      '--initial-cluster', cluster,
      '--max-txn-ops', '100000',
      '--max-request-bytes', '104857600',
      '--auto-compaction-mode', 'revision',
      '--auto-compaction-retention', '10000',
      '--snapshot-count', '10000',
      '--logger', 'zap',
      '--log-level', 'warn',
      ...(unsafe && this.#etcdHasUnsafe() ? ['--unsafe-no-fsync'] : []),
    ]);
    this.etcds.set(name, child);
    const client = new EtcdHttp(this.#url(ports.lab ?? ports.client));
    await until(`${name} answers at ${client.address}`, () => client.alive(), {
      timeoutMs: 60_000,
      everyMs: 50,
      diagnose: () => child.story(),
      hopeless: () => (child.exit ? child.story() : undefined),
    });
    return child;
  }

  #etcdHasUnsafe(): boolean {
    // etcd 3.5 and later; an unknown flag would stop it.
    return etcdMinor(this.programs.etcd) >= 5;
  }

  // ------------------------------------------------------------ daemons

  /** Starts a monitor; does not wait for its election. */
  async startMonitor(name = 'mon1', params: Params = {}): Promise<Child> {
    const all: Params = {
      config_path: this.configPath,
      mon_http_ip: this.host,
      mon_http_port: this.#monitorParams.get(name)?.['mon_http_port'] ?? (await freePort(this.host)),
      ...this.#monitorParams.get(name),
      ...params,
    };
    this.#monitorParams.set(name, all);
    const child = this.#daemon(name, [...this.programs.monitor, ...flags(all)], (dead) => {
      if (this.#options.respawn === true) this.#later(dead, () => this.startMonitor(name));
    });
    this.monitors.set(name, child);
    return child;
  }

  /** Where a monitor answers over HTTP. */
  monitorAddress(name = 'mon1'): string {
    return this.#url(Number(this.#monitorParams.get(name)?.['mon_http_port'] ?? 0));
  }

  /** The data file of an OSD: sparse, made on first use. */
  osdFile(num: number): string {
    return join(this.dir, `osd${num}.data`);
  }

  /**
   * Starts OSD `num` on its file and waits until it is up in etcd. Parameters are remembered, so that startOsd(num) starts it
   * again as it was; a parameter given anew wins.
   */
  async startOsd(num: number, params: Params = {}, options: { wait?: boolean } = {}): Promise<Child> {
    const file = this.osdFile(num);
    const own = { ...this.#osdParams.get(num), ...params };
    if (own['data_device'] === undefined && !existsSync(file)) {
      const fd = openSync(file, 'w');
      ftruncateSync(fd, this.#options.osdBytes ?? 4 * 1024 ** 3);
      closeSync(fd);
    }
    this.#osdParams.set(num, own);
    const durable = this.immediateCommit === 'all' ? { disable_data_fsync: true } : {};
    const all: Params = {
      osd_num: num,
      data_device: file,
      config_path: this.configPath,
      bind_address: this.host,
      hostname: `host${num}`,
      immediate_commit: this.immediateCommit,
      ...durable,
      ...(this.immediateCommit === 'small' ? { disable_journal_fsync: true } : {}),
      ...own,
    };
    this.#osdBefore.set(num, await this.#osdStateRevision(num));
    this.#spawnOsd(num, flags(all));
    if (options.wait !== false) await this.waitOsdUp(num);
    return this.#osd(num);
  }

  #spawnOsd(num: number, args: readonly string[]): void {
    const supervise = this.#isSupervised ? ['--supervise', this.#options.supervise === 'restart' ? 'restart' : 'revoke'] : [];
    const child = this.#daemon(`osd${num}`, [...this.programs.osd, ...supervise, ...args], (dead) => {
      if (this.#options.respawn === true || dead.exit?.code === 0) {
        this.#later(dead, () => Promise.resolve(this.#spawnOsd(num, args)));
      }
    }, this.#options.osdEnv);
    this.osds.set(num, child);
  }

  #osd(num: number): Child {
    const child = this.osds.get(num);
    if (!child) throw new Error(`OSD ${num} was not started in this lab`);
    return child;
  }

  async #osdStateRevision(num: number): Promise<string> {
    try {
      return (await this.etcd.origin(`${this.prefix}/osd/state/${num}`))?.createRevision ?? '';
    } catch {
      return ''; // etcd is down: whatever comes later is new enough
    }
  }

  get #isSupervised(): boolean {
    return (this.#options.supervise ?? false) !== false || this.#options.respawn === true;
  }

  /** The OSD's own process: under a supervisor its child. 0: there is none. */
  osdPid(num: number): number {
    const { pid, exit } = this.#osd(num);
    if (exit) return 0;
    return this.#isSupervised ? (childrenOf(pid)[0] ?? 0) : pid;
  }

  /** kill -9 on the OSD's own process alone, as when it crashes: a supervisor survives it and does its work. */
  killOsd(num: number): void {
    const child = this.#osd(num);
    const pid = this.osdPid(num);
    child.expectExit();
    if (pid !== 0) process.kill(pid, 'SIGKILL');
  }

  async waitOsdUp(num: number, timeoutMs = 60_000): Promise<void> {
    const key = `${this.prefix}/osd/state/${num}`;
    const before = this.#osdBefore.get(num) ?? '';
    await until(
      `OSD ${num} is up (key ${key})`,
      async () => {
        const origin = await this.etcd.origin(key);
        return origin !== undefined && origin.createRevision !== before;
      },
      {
        timeoutMs,
        everyMs: 50,
        diagnose: () => this.#osd(num).story(),
        hopeless: () => {
          const { exit } = this.#osd(num);
          return exit && exit.code !== 0 ? this.#osd(num).story() : undefined;
        },
      },
    );
  }

  /** Kills every daemon of the lab at once, as a power cut would end the processes. */
  async kill9All(): Promise<void> {
    await Promise.all(this.daemons().map((child) => child.kill9()));
  }

  /** Starts again whatever kill9All() ended, etcd first. OSDs are not waited for. */
  async restartAll(): Promise<void> {
    await Promise.all([...this.etcds.keys()].map((name) => this.restartEtcd(name)));
    for (const name of this.monitors.keys()) await this.startMonitor(name, this.#monitorParams.get(name));
    for (const num of this.osds.keys()) await this.startOsd(num, {}, { wait: false });
  }

  daemons(): Child[] {
    return [...this.osds.values(), ...this.monitors.values(), ...this.etcds.values()];
  }

  // ------------------------------------------------------------ tools

  /** Runs a program to its end; it is killed when the time is up (code 124). */
  async command(name: string, argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    const timeoutMs = options.timeoutMs ?? 120_000;
    const child = new Child({
      name: `${name}.${++this.#commandNumber}`,
      argv: [...(options.under ?? []), ...argv],
      logFile: join(this.dir, 'log', `${name}.log`),
      capture: true,
      env: { ...process.env, VITASTOR_BUILD_DIR: this.programs.buildDir, ...options.env },
      ...(options.onLine ? { onLine: options.onLine } : {}),
    });
    this.#commands.add(child);
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      void child.kill9();
    }, timeoutMs);
    const exit = await child.exited;
    clearTimeout(timer);
    this.#commands.delete(child);
    const code = late ? 124 : (exit.code ?? 128);
    return {
      code,
      stdout: child.stdout,
      stderr: child.stderr + (late ? `${name} was killed after ${timeoutMs / 1000} s\n` : exit.code === 127 ? child.lastLines().join('\n') : ''),
    };
  }

  /** vitastor-cli with this cluster's configuration. */
  /** Starts a program that goes on beside the test, with a pipe to its standard input. stopAll() ends it at the latest. */
  background(name: string, argv: readonly string[], onLine?: (line: string) => void): Child {
    const child = new Child({
      name: `${name}.${++this.#commandNumber}`,
      argv,
      logFile: join(this.dir, 'log', `${name}.log`),
      capture: true,
      stdin: true,
      env: { ...process.env, VITASTOR_BUILD_DIR: this.programs.buildDir },
      ...(onLine ? { onLine } : {}),
    });
    this.#commands.add(child);
    void child.exited.then(() => this.#commands.delete(child));
    return child;
  }

  async cli(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return await this.command('cli', [...this.programs.cli, ...args, '--config_path', this.configPath], options);
  }

  /** vitastor-cli that must succeed, with `--json`. */
  async cliJson(args: readonly string[], options: CommandOptions = {}): Promise<unknown> {
    const result = await this.cli([...args, '--json'], options);
    if (result.code !== 0) throw new Error(`vitastor-cli ${args.join(' ')}: exit code ${result.code}\n${result.stdout}${result.stderr}`);
    return JSON.parse(result.stdout) as unknown;
  }

  /** Environment in which a bare `-ioengine=vitastor` is found. */
  get fioEnv(): { LD_LIBRARY_PATH: string } {
    const before = process.env['LD_LIBRARY_PATH'];
    return { LD_LIBRARY_PATH: `${join(this.dir, 'lib')}:${this.programs.buildDir}${before ? `:${before}` : ''}` };
  }

  /** The words before `-image=...` in every fio command line of this lab. */
  get fioArgs(): string[] {
    return ['-thread', '-ioengine=vitastor', `-conf=${this.configPath}`];
  }

  /** fio with the engine; `args` are job options. `jobs` is its report, also when it fails. */
  async fio(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult & { jobs: FioJob[] }> {
    return await this.rawFio([...this.fioArgs, ...args], options);
  }

  /** fio without our engine's options, for raw figures. */
  async rawFio(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult & { jobs: FioJob[] }> {
    const result = await this.command('fio', [this.programs.fio, '--output-format=json', '--verify_state_save=0', ...args], {
      ...options,
      env: { ...this.fioEnv, ...options.env },
    });
    return { ...result, jobs: parseFio(result.stdout) };
  }

  /** Creates a replicated pool; with wait (default) until all PGs are active. */
  async createPool(name: string, options: PoolOptions = {}): Promise<void> {
    const result = await this.cli([
      'create-pool', name,
      '-s', String(options.size ?? 2),
      ...(options.minSize === undefined ? [] : ['--pg_minsize', String(options.minSize)]),
      '-n', String(options.pgCount ?? 16),
      '--failure_domain', options.failureDomain ?? 'host',
      ...(options.args ?? []),
    ]);
    if (result.code !== 0) {
      throw new Error(`vitastor-cli create-pool ${name}: exit code ${result.code}\n${result.stdout}${result.stderr}${await this.diagnose()}`);
    }
    if (options.wait !== false) await this.waitActive();
  }

  async createImage(name: string, size: string, args: readonly string[] = []): Promise<void> {
    const result = await this.cli(['create', '-s', size, ...args, name]);
    if (result.code !== 0) throw new Error(`vitastor-cli create ${name}: exit code ${result.code}\n${result.stdout}${result.stderr}`);
  }

  // ------------------------------------------------------------ state

  async pools(): Promise<PoolState[]> {
    return await readPools(this.etcd, this.prefix);
  }

  /**
   * Waits until every PG of every pool is active; with `clean`, until nothing else is to be said about them.
   * onChange: called with one line whenever the picture has changed.
   */
  async waitActive(options: { timeoutMs?: number; clean?: boolean; onChange?: (line: string) => void } = {}): Promise<void> {
    let last = '';
    await until(
      options.clean === true ? 'all PGs are exactly active' : 'all PGs are active',
      async () => {
        const pools = await this.pools();
        const line = pools.map((pool) => `${pool.name}: ${pool.active} of ${pool.pgCount} PGs active`).join(', ');
        if (line !== last) options.onChange?.((last = line));
        return (
          pools.length > 0 &&
          pools.every((pool) => pool.pgCount > 0 && (options.clean === true ? (pool.states.get('active') ?? 0) : pool.active) === pool.pgCount)
        );
      },
      {
        timeoutMs: options.timeoutMs ?? 60_000,
        everyMs: 100,
        diagnose: () => this.diagnose(),
        hopeless: () => {
          const dead = [...this.etcds.values()].find((child) => child.exit);
          return dead && this.etcds.size === 1 ? dead.story() : undefined;
        },
      },
    );
  }

  /** What each part says about itself, in plain lines. Never throws. */
  async diagnose(): Promise<string> {
    const lines: string[] = [];
    for (const child of this.daemons()) {
      if (child.exit) lines.push(child.story());
    }
    try {
      const up = [...(await this.etcd.prefix(`${this.prefix}/osd/state/`)).keys()].map((key) => key.split('/').pop());
      const master = await this.etcd.get(`${this.prefix}/mon/master`);
      lines.push(`OSDs up in etcd: ${up.join(', ') || 'none'} (started: ${[...this.osds.keys()].join(', ') || 'none'})`);
      lines.push(master === undefined ? 'no monitor is elected' : 'a monitor is elected');
      const configured = await this.etcd.get(`${this.prefix}/pg/config`);
      lines.push(configured === undefined ? 'the monitor has not assigned PGs yet (no /pg/config)' : 'PGs are assigned');
      for (const pool of await this.pools()) {
        const states = [...pool.states].map(([state, count]) => `${count} ${state}`).join(', ');
        lines.push(`pool ${pool.name}: ${pool.pgCount} PGs, reported: ${states || 'none'}`);
      }
    } catch (error) {
      lines.push(`etcd does not answer: ${error instanceof Error ? error.message : String(error)}`);
    }
    for (const child of this.daemons()) {
      if (!child.exit && !child.name.startsWith('etcd')) lines.push(child.story());
    }
    return lines.join('\n');
  }

  /** Stops tools, OSDs, monitors and etcd, in this order; removes a temporary directory. May be called twice. */
  async stopAll(): Promise<void> {
    this.#stopping = true;
    await Promise.all([...this.#commands].map((child) => child.kill9()));
    await Promise.all([...this.osds.values()].map((child) => child.stop()));
    await Promise.all([...this.monitors.values()].map((child) => child.stop()));
    await Promise.all([...this.etcds.values()].map((child) => child.stop()));
    // Those that a later one of the same name has taken the place of.
    await Promise.all([...this.#started].map((child) => child.stop()));
    if (!this.#keep && !this.#stopped) rmSync(this.dir, { recursive: true, force: true });
    this.#stopped = true;
  }
}

const minors = new Map<string, number>();

function etcdMinor(path: string): number {
  let minor = minors.get(path);
  if (minor === undefined) {
    minor = Number(/etcd Version: 3\.(\d+)/.exec(spawnSync(path, ['--version'], { encoding: 'utf8' }).stdout)?.[1] ?? 0);
    minors.set(path, minor);
  }
  return minor;
}
