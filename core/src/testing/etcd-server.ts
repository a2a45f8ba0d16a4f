// SPDX-License-Identifier: GPL-2.0-or-later
// A private etcd for tests: free loopback ports, a temporary directory, stopped and removed at the end.

import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const ETCD_MISSING: string | false =
  spawnSync('etcd', ['--version'], { stdio: 'ignore' }).error ? 'the program etcd is not installed' : false;

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

export class EtcdServer {
  readonly #dir: string;
  readonly #clientPort: number;
  readonly #peerPort: number;
  #process: ChildProcess | null = null;

  private constructor(dir: string, clientPort: number, peerPort: number) {
    this.#dir = dir;
    this.#clientPort = clientPort;
    this.#peerPort = peerPort;
  }

  static async start(): Promise<EtcdServer> {
    const server = new EtcdServer(await mkdtemp(join(tmpdir(), 'vitastor-etcd-')), await freePort(), await freePort());
    try {
      await server.launch();
    } catch (error) {
      await server.stop();
      throw error;
    }
    return server;
  }

  get address(): string {
    return `127.0.0.1:${this.#clientPort}`;
  }

  /** Starts the process (again) on the same data and waits until it serves. */
  async launch(): Promise<void> {
    const client = `http://127.0.0.1:${this.#clientPort}`;
    const peer = `http://127.0.0.1:${this.#peerPort}`;
    const child = spawn(
      'etcd',
      [
        '--name',
        'n1',
        '--data-dir',
        this.#dir,
        '--unsafe-no-fsync',
        '--listen-client-urls',
        client,
        '--advertise-client-urls',
        client,
        '--listen-peer-urls',
        peer,
        '--initial-advertise-peer-urls',
        peer,
        '--initial-cluster',
        `n1=${peer}`,
        '--max-txn-ops',
        '100000',
        '--log-level',
        'info',
      ],
      { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ETCD_UNSUPPORTED_ARCH: 'arm64' } },
    );
    this.#process = child;
    let log = '';
    await new Promise<void>((resolve, reject) => {
      child.stderr?.on('data', (chunk: Buffer) => {
        log += chunk.toString();
        if (
          /ready to serve client requests|serving insecure client requests|serving client traffic insecurely/.test(log)
        )
          resolve();
      });
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`etcd ended with ${code}: ${log.slice(-500)}`)));
    });
    child.stderr?.removeAllListeners('data');
    child.stderr?.resume();
  }

  /** Freezes or thaws the process: connections stay, nothing answers. */
  freeze(frozen: boolean): void {
    this.#process?.kill(frozen ? 'SIGSTOP' : 'SIGCONT');
  }

  async kill(): Promise<void> {
    const child = this.#process;
    this.#process = null;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGCONT');
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  async stop(): Promise<void> {
    await this.kill();
    await rm(this.#dir, { recursive: true, force: true });
  }
}
