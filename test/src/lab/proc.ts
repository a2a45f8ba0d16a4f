// SPDX-License-Identifier: GPL-2.0-or-later
// What the kernel knows about a process.

import { readFileSync, readdirSync } from 'node:fs';

/** USER_HZ: a tick is 10 ms on every Linux that Debian ships. */
const TICKS_PER_SECOND = 100;

export interface ProcUsage {
  /** User and system time of all threads, ended ones included. */
  cpuSeconds: number;
  residentBytes: number;
}

/** Zeros when the process is gone. */
export function procUsage(pid: number): ProcUsage {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const resident = /^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1];
    return {
      cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND,
      residentBytes: Number(resident ?? 0) * 1024,
    };
  } catch {
    return { cpuSeconds: 0, residentBytes: 0 };
  }
}

/** Processes whose parent is `pid`, oldest first. */
export function childrenOf(pid: number): number[] {
  const found: number[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (Number(parent) === pid && state !== 'Z') found.push(Number(name));
    } catch {
      // It has just ended.
    }
  }
  return found.sort((a, b) => a - b);
}

/** Processes whose command line contains `text` (a data directory, say), this one left out. */
export function processesNaming(text: string): { pid: number; command: string }[] {
  const found: { pid: number; command: string }[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    try {
      const command = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
      if (command.includes(text)) found.push({ pid: Number(name), command });
    } catch {
      // It has just ended.
    }
  }
  return found;
}
