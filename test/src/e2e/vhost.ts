// SPDX-License-Identifier: GPL-2.0-or-later
// vitastor-vhost with an unmodified QEMU. The guest is a boot sector: SeaBIOS's own virtio-blk driver reads it, and does for it what it asks for ever:
// read sector 9, add one to its first word, write it back, say so on the serial line. So the smallest writes of all meet the granules of OSDs.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Client, type Image } from '@vitastor/core';
import { Child, type Lab, until } from '../lab/index.js';
import { assertSays, smallCluster, type Story } from './scenario.js';

/*
 * 7c00  xor ax,ax; mov ds,ax; mov es,ax; mov ss,ax; mov sp,7c00; mov [7c43],dl
 * 7c0f  mov si,7c44; mov ah,42; mov dl,[7c43]; int 13; jc failed; inc dword [8000]
 * 7c22  mov si,7c44; mov ax,4300; mov dl,[7c43]; int 13; jc failed; mov al,'.'; call put; jmp 7c0f
 * 7c36  failed: mov al,'!'; call put; hlt; jmp $-1;  put: mov dx,3f8; out dx,al; ret
 * 7c44  packet: 16 bytes, 1 sector, 0000:8000, sector 9
 */
const BOOT_CODE =
  '31c08ed88ec08ed0bc007c8816437cbe447cb4428a16437ccd13721a66ff060080be447cb800438a16437ccd137207b02ee80a00ebd9b021e80300f4ebfdbaf803eec300' +
  '10000100008000000900000000000000';
const SECTOR = 512;
const COUNTER_AT = 9 * SECTOR;
const GRANULE = 4096;

class Machine {
  readonly #lab: Lab;
  readonly serial: string;
  readonly socket: string;
  #backend: Child | null = null;
  #qemu: Child | null = null;

  constructor(lab: Lab) {
    this.#lab = lab;
    this.serial = join(lab.dir, 'serial');
    this.socket = join(lab.dir, 'vhost.sock');
  }

  vhost(args: readonly string[]): string[] {
    return [join(this.#lab.programs.buildDir, 'bin', 'vitastor-vhost'), '--config_path', this.#lab.configPath, ...args];
  }

  async startBackend(): Promise<void> {
    this.#backend = this.#child('vhost', this.vhost(['--image', 'testimg', '--socket', this.socket]));
    await this.#backend.waitForLine(/bytes at/, 30_000);
  }

  startQemu(): void {
    this.#qemu = this.#child('qemu', [
      'qemu-system-x86_64', '-accel', 'tcg', '-m', '128', '-nodefaults', '-no-user-config', '-display', 'none',
      '-object', 'memory-backend-memfd,id=mem,size=128M,share=on', '-machine', 'pc,memory-backend=mem', '-serial', `file:${this.serial}`,
      '-chardev', `socket,id=c0,path=${this.socket},reconnect=1`, '-device', 'vhost-user-blk-pci,chardev=c0,num-queues=1,bootindex=1',
    ]);
  }

  async killBackend(): Promise<void> {
    await this.#backend?.kill9();
  }

  async killQemu(): Promise<void> {
    await this.#qemu?.kill9();
  }

  async stop(): Promise<void> {
    await this.killQemu();
    await this.#backend?.stop();
  }

  /** Writes that the guest has seen answered since it was started. */
  get written(): number {
    return existsSync(this.serial) ? statSync(this.serial).size : 0;
  }

  async writesMore(what: string): Promise<void> {
    const before = this.written;
    await until(`the guest goes on ${what}`, () => this.written > before + 50, {
      timeoutMs: 60_000, diagnose: async () => `${this.#qemu?.lastLines().join('\n') ?? ''}\n${this.#backend?.lastLines().join('\n') ?? ''}\n${await this.#lab.diagnose()}`,
    });
    assert.ok(!readFileSync(this.serial, 'latin1').includes('!'), `the guest got an error ${what}`);
  }

  #child(name: string, argv: readonly string[]): Child {
    return new Child({ name, argv, logFile: join(this.#lab.dir, 'log', `${name}.log`) });
  }
}

async function counter(image: Image, pattern: Buffer): Promise<number> {
  const { data } = await image.read(BigInt(GRANULE), GRANULE);
  const at = COUNTER_AT - GRANULE;
  const value = data.readUInt32LE(at);
  data.writeUInt32LE(pattern.readUInt32LE(at), at);
  assert.ok(data.equals(pattern), 'something beside the guest\'s word has changed in its granule');
  return value;
}

const vhost: Story = {
  name: 'vhost',
  short: true,
  run: async ({ lab: make, say }) => {
    const lab = await make();
    await smallCluster(lab, { image: '64M' });
    const client = new Client({ configPath: lab.configPath, buildDir: lab.programs.buildDir, config: {}, failFast: false });
    const machine = new Machine(lab);
    try {
      const image = await client.open({ image: 'testimg' });
      const boot = Buffer.alloc(GRANULE);
      boot.write(BOOT_CODE, 'hex');
      boot.writeUInt16LE(0xaa55, 510);
      await image.write(0n, boot);
      const pattern = Buffer.from(Array.from({ length: GRANULE }, (_, i) => (i * 7 + 1) % 256));
      pattern.writeUInt32LE(0, COUNTER_AT - GRANULE);
      await image.write(BigInt(GRANULE), pattern);
      await image.flush();

      await machine.startBackend();
      machine.startQemu();
      await machine.writesMore('after the start');
      assert.ok((await counter(image, pattern)) >= 50);
      const again = await lab.command('vhost-again', machine.vhost(['--image', 'testimg', '--socket', machine.socket]));
      assert.notEqual(again.code, 0);
      assertSays(again.stderr, /another process serves it/);

      say('an OSD is killed and comes back');
      await lab.osds.get(2)?.kill9();
      await machine.writesMore('while an OSD is away');
      await lab.startOsd(2);
      await machine.writesMore('when the OSD is back');

      for (let round = 0; round < 3; round++) {
        await machine.killBackend();
        await machine.startBackend();
        await machine.writesMore(`after the backend was killed (${round + 1})`);
      }
      say('the backend is killed three times and started again');

      await machine.killQemu();
      const value = await counter(image, pattern);
      assert.ok(value >= machine.written, `the guest has seen ${machine.written} writes answered, the image has ${value}`);
      assert.ok(value <= machine.written + 4, `the guest has seen ${machine.written} writes answered, the image has ${value}: some were done twice`);
      machine.startQemu();
      await until('another QEMU starts from 0 dots', () => machine.written > 0 && machine.written < value, { timeoutMs: 60_000, diagnose: () => lab.diagnose() });
      await machine.writesMore('in another QEMU');
      assert.ok((await counter(image, pattern)) >= value + 50);
      await machine.stop();
      assert.ok(!existsSync(machine.socket), 'a clean stop takes the socket away');

      const unknown = await lab.command('vhost-unknown', machine.vhost(['--image', 'nothing', '--socket', machine.socket]));
      assert.equal(unknown.code, 2);
      assertSays(unknown.stderr, /image nothing does not exist/);
      const wrong = await lab.command('vhost-wrong', machine.vhost(['--imag', 'testimg', '--socket', machine.socket]));
      assert.equal(wrong.code, 22);
      assertSays(wrong.stderr, /--image/);
      await image.close();
    } finally {
      await machine.stop();
      await client.close();
    }
  },
};

export const VHOST_STORIES: readonly Story[] = [vhost];
