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

/** Names of all probes in simulated code, in order. */
export function registeredProbes(): string[] {
  const root = fileURLToPath(new URL('../../..', import.meta.url));
  const names = new Set<string>();
  for (const folder of FOLDERS) {
    for (const entry of readdirSync(join(root, folder), { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath ?? entry.path, entry.name);
      if (!entry.isFile() || !/\.(cpp|hpp|ts)$/.test(path) || NOT_SIMULATED.test(path)) continue;
      for (const match of readFileSync(path, 'utf8').matchAll(/(?:VITASTOR_PROBE\(|\bprobe\()\s*["']([^"']+)["']/g)) {
        if (match[1] !== undefined) names.add(match[1]);
      }
    }
  }
  return [...names].sort();
}
