// SPDX-License-Identifier: GPL-2.0-or-later
// vitastor-disk: the program.

import { text } from 'node:stream/consumers';
import { loadStartJob } from './native.js';
import { runDisk } from './run.js';

const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort());
// A reader that has gone away (`| head`) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));

process.exitCode = await runDisk(process.argv[1] ?? '', process.argv.slice(2), {
  startJob: () => loadStartJob(process.env['VITASTOR_BUILD_DIR']),
  stdout: (out) => void process.stdout.write(out),
  stderr: (out) => void process.stderr.write(out),
  stdin: () => text(process.stdin),
  signal: interrupted.signal,
});
