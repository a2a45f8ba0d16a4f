// SPDX-License-Identifier: GPL-2.0-or-later
// Probes of rare branches: VITASTOR_PROBE("…") in C++, probe('…') in TypeScript. Their names are read from the sources, so that one which
// no seed reaches is known too.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Where simulated code lies. The rest runs on real hardware only. */
const FOLDERS = [
  'core/native/net', 'core/native/client', 'core/native/cluster', 'core/native/runtime/sim', 'core/src', 'osd/native/store', 'osd/native/pg',
  'osd/native/serve', 'osd/native/engine', 'osd/src', 'mon/src',
];
const NOT_SIMULATED = /etcd_gateway|\/test\/|\/bench\/|etcd3-/;

/** Probes of simulated code that no seed can reach, or none of some ten thousand has, and who reaches them instead. */
const ELSEWHERE: ReadonlyMap<string, string> = new Map([
  ['the end of the log is missing', 'needs damage to the metadata log: salvage_test'],
  ['replay loses checksums', 'needs damage to the metadata log: salvage_test'],
  ['a list of checksums is lost', 'needs damage to the metadata log: checksum tests of the store'],
  ['the start of the log is found without a checkpoint', 'needs damage to both checkpoints: salvage_test'],
  ['announced write of several granules is torn', 'needs a disk that tears what it calls atomic: store_crash_test'],
  ['data of an announced write failed', 'needs write errors of the disk: store_test'],
  ['discard queue is full', 'needs 65536 pieces of a store'],
  ['a store of an older release gets a new feature', 'new stores have all features: store_test opens older ones'],
  // The smallest log takes more entries than a seed writes in the time that the cleaner needs.
  ['operation waits for room in the log', 'needs a log that is full: store_test, store_model_test'],
  ['the end of the log is named while its start moves', 'needs a log that is full, and a power failure: store_test'],
  ['no room in the log for another redirect', 'needs more redirects than a seed has granules: store_test, store_model_test'],
  ['no spare room: home is made free durably', 'needs more redirects than a seed has granules: store_test'],
  // A request that overtakes another one on the way, within one client: seeds with nothing else did not meet it.
  ['a compare-and-set overtook a write', 'needs replies in another order than requests: test_client'],
  ['a write waits for a part of a granule', 'clients of seeds write whole granules: test_client, e2e fsx'],
  ['bitmap of a layer in another pool', 'seeds do not ask for bitmaps: test_client'],
  ['chunks of different versions', 'needs a write of a primary that was replaced, late and not refused: engine_test'],
]);

/** Names of all probes that seeds can reach, in order. */
export function registeredProbes(): string[] {
  const root = fileURLToPath(new URL('../../..', import.meta.url));
  const names = new Set<string>();
  for (const folder of FOLDERS) {
    for (const entry of readdirSync(join(root, folder), { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath ?? entry.path, entry.name);
      if (!entry.isFile() || !/\.(cpp|hpp|ts)$/.test(path) || NOT_SIMULATED.test(path)) continue;
      for (const match of readFileSync(path, 'utf8').matchAll(/(?:VITASTOR_PROBE\(|\bprobe\()\s*(["'])(.+?)\1/g)) {
        if (match[2] !== undefined && !ELSEWHERE.has(match[2])) names.add(match[2]);
      }
    }
  }
  return [...names].sort();
}
