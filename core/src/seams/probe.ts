// SPDX-License-Identifier: GPL-2.0-or-later
// Probes of rare branches, as VITASTOR_PROBE in C++: counted per process, read by the simulator, which reports those that no seed reached.

const counts = new Map<string, number>();

/** Marks that a rare branch ran. name: a literal, one place each. */
export function probe(name: string): void {
  counts.set(name, (counts.get(name) ?? 0) + 1);
}

/** Name → times hit in this process. */
export function probeCounts(): Record<string, number> {
  return Object.fromEntries(counts);
}
