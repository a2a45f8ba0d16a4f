// SPDX-License-Identifier: GPL-2.0-or-later
// What `npm start` does with the image through stock fio: proves that data is there, and shows a few figures.
//
// The image's first 96 MiB hold data with checksums inside (64 MiB written in sequence, 32 MiB in random order), which
// every start reads back; figures are taken behind them.

import type { FioJob, FioSide, Lab } from '@vitastor/e2e/lab';
import { decimal } from './screen.js';

const SEQUENCE = ['-bs=1M', '-iodepth=8', '-offset=0', '-size=64M'];
const SCATTER = ['-bs=4k', '-iodepth=32', '-offset=64M', '-size=32M'];
const FIGURES = ['-offset=128M', '-size=128M'];

async function fio(lab: Lab, image: string, args: readonly string[], timeoutMs = 120_000): Promise<FioJob> {
  const result = await lab.fio(['-direct=1', `-image=${image}`, ...args], { timeoutMs });
  const job = result.jobs[0];
  if (result.code !== 0 || !job || job.error !== 0) {
    throw new Error(
      `fio failed (exit code ${result.code}${job ? `, error ${job.error}` : ''}):\n` +
        `  fio ${[...lab.fioArgs, `-image=${image}`, ...args].join(' ')}\n${result.stderr.trim()}\n${textOf(result.stdout)}`,
    );
  }
  return job;
}

/** fio's words around its report. */
function textOf(stdout: string): string {
  return stdout.slice(0, Math.max(0, stdout.indexOf('{\n'))).trim().split('\n').slice(-20).join('\n');
}

/** Reads back what an earlier start has written; every block carries its own checksum. Bytes checked. */
export async function checkEarlierData(lab: Lab, image: string): Promise<number> {
  const first = await fio(lab, image, ['-name=reread', '-rw=read', '-verify=crc32c', ...SEQUENCE]);
  const second = await fio(lab, image, ['-name=reread', '-rw=read', '-verify=crc32c', ...SCATTER]);
  return first.read.bytes + second.read.bytes;
}

/** Writes both regions and verifies every block. Bytes written. */
export async function writeAndVerify(lab: Lab, image: string): Promise<number> {
  const first = await fio(lab, image, ['-name=fill', '-rw=write', '-verify=crc32c', '-do_verify=1', '-verify_fatal=1', ...SEQUENCE]);
  const second = await fio(lab, image, ['-name=scatter', '-rw=randwrite', '-verify=crc32c', '-do_verify=1', '-verify_fatal=1', ...SCATTER]);
  return first.write.bytes + second.write.bytes;
}

function figure(name: string, side: FioSide): string {
  return `${name.padEnd(26)} ${`${decimal(side.bytesPerSecond)}B/s`.padStart(11)} ${`${decimal(side.iops)}iops`.padStart(13)}   latency ${side.latencyUsMean.toFixed(0)} µs, p99 ${side.latencyUsP99.toFixed(0)} µs`;
}

/** A few seconds of load; one line each. onFigure: called as they come. */
export async function takeFigures(lab: Lab, image: string, onFigure: (line: string) => void): Promise<void> {
  const timed = ['-time_based', '-runtime=2', ...FIGURES];
  const rows = [
    { name: '1 MB write, depth 8', args: ['-rw=write', '-bs=1M', '-iodepth=8'], side: 'write' },
    { name: '1 MB read, depth 8', args: ['-rw=read', '-bs=1M', '-iodepth=8'], side: 'read' },
    { name: '4 KB random write, depth 1', args: ['-rw=randwrite', '-bs=4k', '-iodepth=1'], side: 'write' },
    { name: '4 KB random write, depth 64', args: ['-rw=randwrite', '-bs=4k', '-iodepth=64'], side: 'write' },
    { name: '4 KB random read, depth 1', args: ['-rw=randread', '-bs=4k', '-iodepth=1'], side: 'read' },
    { name: '4 KB random read, depth 64', args: ['-rw=randread', '-bs=4k', '-iodepth=64'], side: 'read' },
  ] as const;
  for (const row of rows) {
    const job = await fio(lab, image, [`-name=figure`, ...row.args, ...timed], 60_000);
    onFigure(figure(row.name, job[row.side]));
  }
}
