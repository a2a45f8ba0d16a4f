// SPDX-License-Identifier: GPL-2.0-or-later
// Finds and loads the native engine.

import { VitastorError, errorText } from '@vitastor/core';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CreateEngine } from './engine.js';

const NAME = 'vitastor_osd.node';

/** Installed beside the package, in the build directory that the environment names, or in the repository's. */
function candidates(buildDir: string | undefined): string[] {
  const root = fileURLToPath(new URL('../../..', import.meta.url));
  return [
    ...(buildDir === undefined ? [] : [join(buildDir, NAME)]),
    fileURLToPath(new URL(`../../${NAME}`, import.meta.url)),
    join(root, 'build', 'release', NAME),
    join(root, 'build', 'dev', NAME),
  ];
}

/** Throws ERR_INVALID_ARGUMENT that says where it was looked for. */
export function loadEngine(buildDir: string | undefined): CreateEngine {
  const places = candidates(buildDir);
  const path = places.find((place) => existsSync(place));
  if (path === undefined) {
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      `the engine ${NAME} was not found (looked at ${places.join(', ')}): run \`npm run build\``,
    );
  }
  try {
    const addon = createRequire(import.meta.url)(path) as { createEngine: CreateEngine };
    return addon.createEngine;
  } catch (error) {
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      `the engine ${path} could not be loaded (${errorText(error)}): run \`npm run build\``,
      { cause: error },
    );
  }
}
