// SPDX-License-Identifier: GPL-2.0-or-later
// Where tests find data: the repository's own fixtures, and the recordings of Vitastor 3.0.8 beside it.

import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** From core/dist/test to the root of the repository. */
const root = new URL('../../../', import.meta.url);

export const fixture = (name: string): string => fileURLToPath(new URL(`test/fixtures/${name}`, root));

const recordings = fileURLToPath(new URL('../shared/fixtures/vitastor-3.0.8/', root));

export const recording = (name: string): string => `${recordings}${name}`;

/** For `skip`: says what is missing. */
export const RECORDINGS_MISSING: string | false = existsSync(recordings) ? false : `left out: the recordings ../shared/fixtures/vitastor-3.0.8 are not here`;
