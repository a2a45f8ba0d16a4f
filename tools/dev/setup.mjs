// SPDX-License-Identifier: GPL-2.0-or-later
// The set-up that every verb starts with: idempotent, and quick when there is nothing to do.

import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { etcdPath, installPackages } from './debian.mjs';
import { builtFio } from './fio-source.mjs';
import { buildNative } from './native.mjs';
import { buildTypeScript, installNpmPackages } from './npm.mjs';
import { Stop, root, since, say } from './ui.mjs';

/** Debian and npm packages. */
export async function setup() {
  const major = Number(process.versions.node.split('.')[0]);
  if (!(major >= 18))
    throw new Stop(`Node.js ${process.versions.node} is too old: 20 is needed to build, 18.20 to run.`);
  mkdirSync(join(root, 'build'), { recursive: true });
  await installPackages();
  const etcd = etcdPath();
  if (etcd.startsWith(root)) process.env['PATH'] = `${dirname(etcd)}:${process.env['PATH'] ?? ''}`; // tests ask for it by name
  await installNpmPackages();
}

/**
 * Set-up, native build and TypeScript.
 * @param {import('./native.mjs').Preset} [preset]
 * @param {readonly string[]} [targets] native targets
 */
export async function setupAndBuild(preset = 'dev', targets = []) {
  const started = performance.now();
  await setup();
  await buildNative(preset, targets);
  const fio = builtFio();
  if (fio) process.env['PATH'] = `${dirname(fio)}:${process.env['PATH'] ?? ''}`; // the one that fits the engine
  await buildTypeScript();
  if (performance.now() - started > 3000) say(`Built in ${since(started)}.`);
}
