// SPDX-License-Identifier: GPL-2.0-or-later
// vitastor-cli: the program (main.ts starts it).

import { Etcd3Adapter, openNativeDataOps, openNativeImageClient, OsdAdminLinks, SystemClock, SystemRandom } from '@vitastor/core';
import { runCli } from './run.js';
import { openStdin } from './stdin.js';

const clock = new SystemClock();
const random = new SystemRandom();
/** Work on data stops in order within this time; whatever waits for etcd is cut off. A second signal kills at once. */
const STOP_LIMIT_MS = 2000;
const interrupted = new AbortController();
let stopTimer = (): void => undefined;
for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143]] as const) {
  process.once(signal, () => {
    interrupted.abort();
    stopTimer = clock.after(STOP_LIMIT_MS, () => process.exit(code));
  });
}
// A reader that has gone away (`| head`) is no error, unless it is a backup that is cut off.
let writesData = false;
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (!writesData) process.exit(error.code === 'EPIPE' ? 0 : 5);
});

process.exitCode = await runCli(process.argv[1] ?? '', process.argv.slice(2), {
  clock,
  openEtcd: (target) => new Etcd3Adapter({ ...target, clock, random }),
  openDataOps: openNativeDataOps,
  openOsdAdmin: (osdState) => new OsdAdminLinks(osdState, clock),
  openImageClient: openNativeImageClient,
  readStdin: async () => {
    const chunks: Buffer[] = [];
    for await (const chunk of openStdin()) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks).toString();
  },
  stdin: openStdin,
  writeStdout: (data) => {
    writesData ||= typeof data !== 'string';
    return new Promise((resolve, reject) => {
      process.stdout.write(data, (error) => {
        if (error) reject(error);
        else resolve();
      });
    });
  },
  stdout: (text) => void process.stdout.write(text),
  stderr: (text) => void process.stderr.write(text),
  stdoutIsTerminal: process.stdout.isTTY === true,
  stdoutColumns: () => (process.stdout.isTTY === true ? process.stdout.columns : undefined),
  stderrIsTerminal: process.stderr.isTTY === true,
  signal: interrupted.signal,
});
stopTimer();
