// SPDX-License-Identifier: GPL-2.0-or-later
// QEMU's tools with the driver preloaded, as users run them.

import assert from 'node:assert/strict';
import { type Child, type CommandResult, type Lab, until } from '../lab/index.js';

/** `vitastor:` and where etcd is, ready for more keys. */
export function address(lab: Lab): string {
  const [first = ''] = lab.etcdAddresses;
  return `vitastor:etcd_host=${first.replace('http://', '').replaceAll(':', '\\:')}/v3`;
}

/** The variable stands on the QEMU process alone. */
export function preloaded(lab: Lab, argv: readonly string[]): string[] {
  return ['env', `LD_PRELOAD=${lab.programs.qemuDriver}`, ...argv];
}

export async function qemu(lab: Lab, argv: readonly string[]): Promise<CommandResult> {
  return await lab.command('qemu', preloaded(lab, argv), { timeoutMs: 120_000 });
}

export async function mustQemu(lab: Lab, argv: readonly string[]): Promise<string> {
  const result = await qemu(lab, argv);
  assert.equal(result.code, 0, `${argv.join(' ')}\nexit code ${result.code}\n${result.stdout}${result.stderr}`);
  return result.stdout;
}

/** QEMU's tools as they are, for local files. */
export async function plainQemu(lab: Lab, argv: readonly string[]): Promise<string> {
  const result = await lab.command('qemu', argv);
  assert.equal(result.code, 0, `${argv.join(' ')}\nexit code ${result.code}\n${result.stdout}${result.stderr}`);
  return result.stdout;
}

/** qemu-io runs `commands`; its exit code says nothing of them, its words do. */
export async function qemuIo(lab: Lab, file: string, ...commands: readonly string[]): Promise<string> {
  const result = await qemu(lab, ['qemu-io', '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), file]);
  return result.stdout + result.stderr;
}

/** qemu-io must do all of it: patterns match, nothing fails. */
export async function mustQemuIo(lab: Lab, file: string, ...commands: readonly string[]): Promise<void> {
  const text = await qemuIo(lab, file, ...commands);
  assert.doesNotMatch(text, /fail|error|invalid|denied|not permitted/i, `${commands.join('; ')}\n${text}`);
  const done = text.match(/^(wrote|read|discard) (\d+)\/\2 bytes/gm) ?? [];
  const wanted = commands.filter((command) => /^(write|read|discard)/.test(command)).length;
  assert.equal(done.length, wanted, `${commands.join('; ')}\n${text}`);
}

export interface Extent {
  start: number;
  length: number;
  data: boolean;
  zero: boolean;
}

export async function map(lab: Lab, file: string): Promise<Extent[]> {
  return JSON.parse(await mustQemu(lab, ['qemu-img', 'map', '--output=json', '-f', 'raw', file])) as Extent[];
}

/** Bytes that are data. */
export function dataBytes(extents: readonly Extent[]): number {
  return extents.filter((extent) => extent.data).reduce((sum, extent) => sum + extent.length, 0);
}

/** A qemu-io that has an image open and takes commands one by one. */
export class QemuSession {
  readonly child: Child;
  #lines: string[] = [];
  constructor(lab: Lab, file: string, options: readonly string[] = []) {
    this.child = lab.background('qemu-io', preloaded(lab, ['qemu-io', '-f', 'raw', ...options, file]), (line) => this.#lines.push(line));
  }
  /** Gives the line that `pattern` matches; fails with all that was said instead. */
  async run(command: string, pattern: RegExp): Promise<string> {
    this.#lines = [];
    this.child.write(`${command}\n`);
    return await until(`qemu-io answers ${command}`, () => this.#lines.find((line) => pattern.test(line)), {
      timeoutMs: 60_000,
      everyMs: 10,
      diagnose: () => this.#lines.join('\n'),
      hopeless: () => (this.child.exit ? this.child.story() : undefined),
    });
  }
  async write(pattern: number, offset: string, length: string): Promise<void> {
    await this.run(`write -P ${pattern} ${offset} ${length}`, /wrote (\d+)\/\1 bytes/);
  }
  /** The bytes must all be `pattern`. */
  async read(pattern: number, offset: string, length: string): Promise<void> {
    const line = await this.run(`read -P ${pattern} ${offset} ${length}`, /read (\d+)\/\1 bytes|Pattern verification failed|failed/);
    assert.match(line, /read \d/, `reading ${length} at ${offset}: ${this.#lines.join('\n')}`);
  }
  /** hasFailed: a command has, which qemu-io ends with 1 for. */
  async close(hasFailed = false): Promise<void> {
    this.child.write('quit\n');
    const exit = await this.child.exited;
    assert.equal(exit.code, hasFailed ? 1 : 0, this.child.story());
  }
}
