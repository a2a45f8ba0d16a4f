// SPDX-License-Identifier: GPL-2.0-or-later
// Hosts of their own for processes under test: a network namespace each, joined by a bridge in a namespace that belongs to this process
// tree alone, so that the machine's network is not touched and nothing of it stays. What one host sends to another can be lost, silently
// and in one direction: its table of neighbours then names a hardware address that nobody has.
//
// Needs iproute2 and util-linux, and the right to make namespaces (root, or user namespaces for everybody).

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { Child } from './child.js';

/** Set in a process that Network.inside() has started. */
const MARK = 'VITASTOR_TEST_NETWORK';
const SUBNET = '10.77.0';
const NOBODY = '02:00:00:00:ff:ff';

function unshare(): string[] {
  return ['unshare', ...(process.getuid?.() === 0 ? [] : ['--map-root-user']), '--net', '--'];
}

function ip(argv: readonly string[], under: readonly string[] = []): void {
  const [command = '', ...args] = [...under, 'ip', ...argv];
  const result = spawnSync(command, args, { encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`${[command, ...args].join(' ')}: ${result.error?.message ?? result.stderr}`);
}

interface Host {
  number: number;
  holder: Child;
}

export class Network {
  /** Where this process itself is: on the bridge. */
  readonly hub = `${SUBNET}.254`;
  #dir: string;
  #hosts = new Map<string, Host>();
  #lost = new Set<string>();

  private constructor(dir: string) {
    this.#dir = dir;
  }

  /** This process may call create(). */
  static get isInside(): boolean {
    return process.env[MARK] === '1';
  }

  /** What is missing here, or null. */
  static missing(): string | null {
    const [command = '', ...args] = [...unshare(), 'ip', 'link', 'add', 'probe', 'type', 'bridge'];
    const result = spawnSync(command, args, { encoding: 'utf8' });
    return result.status === 0 ? null : `network namespaces with a bridge (${(result.error?.message ?? result.stderr).trim()})`;
  }

  /** Runs this program again, with `args`, in a network of its own. Gives its exit code; its output goes to onLine. */
  static async inside(args: readonly string[], onLine: (line: string) => void): Promise<number> {
    const child = new Child({
      name: 'a network of its own', argv: [...unshare(), process.execPath, process.argv[1] ?? '', ...args], logFile: '/dev/null', onLine,
      env: { ...process.env, [MARK]: '1' },
    });
    const exit = await child.exited;
    return exit.code ?? 128;
  }

  /** logDir: for the processes that keep the namespaces. */
  static create(logDir: string): Network {
    if (!Network.isInside) throw new Error('Network.create() belongs into a process of Network.inside()');
    const network = new Network(logDir);
    ip(['link', 'set', 'lo', 'up']);
    ip(['link', 'add', 'bridge', 'address', network.#hardware(network.hub), 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0']);
    ip(['addr', 'add', `${network.hub}/24`, 'dev', 'bridge']);
    ip(['link', 'set', 'bridge', 'up']);
    return network;
  }

  /** Gives its address. It lives until stop(). */
  async addHost(name: string): Promise<string> {
    const number = this.#hosts.size + 1;
    const holder = new Child({ name: `network of ${name}`, argv: ['unshare', '--net', '--', 'sh', '-c', 'echo here; exec sleep infinity'], logFile: join(this.#dir, `network-${name}.log`) });
    await holder.waitForLine(/here/, 30_000);
    const address = `${SUBNET}.${number}`;
    ip(['link', 'add', `host${number}`, 'type', 'veth', 'peer', 'name', 'eth0', 'address', this.#hardware(address), 'netns', String(holder.pid)]);
    ip(['link', 'set', `host${number}`, 'master', 'bridge', 'up']);
    this.#hosts.set(name, { number, holder });
    const under = this.under(name);
    ip(['link', 'set', 'lo', 'up'], under);
    ip(['addr', 'add', `${address}/24`, 'dev', 'eth0'], under);
    ip(['link', 'set', 'eth0', 'up'], under);
    return address;
  }

  /** Words before a command line that make it run on that host. [] for the hub and for names that are no hosts. */
  under(name: string): string[] {
    const host = this.#hosts.get(name);
    return host ? ['nsenter', `--net=/proc/${host.holder.pid}/ns/net`, '--'] : [];
  }

  /** From now on nothing that `from` sends reaches `to`. `hub`: this process and all that runs on no host. */
  lose(from: string, to: string): void {
    this.#neighbour(from, to, NOBODY);
    this.#lost.add(`${from} ${to}`);
  }

  cut(one: string, other: string): void {
    this.lose(one, other);
    this.lose(other, one);
  }

  /** Everything reaches everybody again. */
  heal(): void {
    for (const pair of this.#lost) {
      const [from = '', to = ''] = pair.split(' ');
      this.#neighbour(from, to, this.#hardware(this.#address(to)));
    }
    this.#lost.clear();
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#hosts.values()].map(({ holder }) => holder.kill9()));
  }

  /** The other hosts, and the hub. */
  others(name: string): string[] {
    return ['hub', ...this.#hosts.keys()].filter((other) => other !== name);
  }

  #address(name: string): string {
    if (name === 'hub') return this.hub;
    const host = this.#hosts.get(name);
    if (!host) throw new Error(`no host ${name} in this network`);
    return `${SUBNET}.${host.number}`;
  }

  #hardware(address: string): string {
    return `02:00:00:00:00:${Number(address.split('.').pop()).toString(16).padStart(2, '0')}`;
  }

  #neighbour(from: string, to: string, hardware: string): void {
    const device = from === 'hub' ? 'bridge' : 'eth0';
    ip(['neigh', 'replace', this.#address(to), 'lladdr', hardware, 'dev', device, 'nud', 'permanent'], this.under(from));
  }
}
