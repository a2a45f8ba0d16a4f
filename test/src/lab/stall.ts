// SPDX-License-Identifier: GPL-2.0-or-later
// Preloaded into a daemon (NODE_OPTIONS=--import=...): SIGUSR2 stalls its JavaScript for STALL_MS milliseconds; its native threads go on.

process.on('SIGUSR2', () => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(process.env['STALL_MS'] ?? 1000));
});
