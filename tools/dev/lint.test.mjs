// SPDX-License-Identifier: GPL-2.0-or-later
// node --test tools/dev: each check of lint is shown a file that breaks it.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CHECKS, parseSource } from './lint.mjs';

/** @param {string} check part of its name @param {string} path @param {string} text */
async function complaints(check, path, text) {
  const found = Object.entries(CHECKS).find(([name]) => name.includes(check));
  assert.ok(found, check);
  return (await found[1]([parseSource(path, text)])).length;
}

/** @type {readonly [check: string, path: string, text: string, count: number][]} */
const CASES = [
  ['licence', 'core/src/a.ts', 'export {};\n', 1],
  ['licence', 'core/src/a.ts', '// SPDX-License-Identifier: GPL-2.0-or-later\n', 0],
  ['native layers', 'core/native/base/a.hpp', '#include "wire/x.hpp"\n', 1],
  ['native layers', 'core/native/net/a.hpp', '#include "wire/x.hpp"\n#include "base/y.hpp"\n#include <vector>\n', 0],
  ['native layers', 'core/native/net/a.hpp', '#include "y.hpp"\n#include "../wire/x.hpp"\n', 2],
  ['native layers', 'osd/native/pg/a.hpp', '#include "store/x.hpp"\n#include "net/y.hpp"\n', 0],
  ['native layers', 'osd/native/pg/a.hpp', '#include "serve/x.hpp"\n#include "client/y.hpp"\n', 2],
  ['packages import', 'osd/src/a.ts', "import { x } from '../../core/src/x.js';\n", 1],
  ['packages import', 'osd/src/a.ts', "import { x } from '@vitastor/core';\nimport { y } from './y.js';\n", 0],
  ['packages import', 'core/src/a.ts', "import { x } from '@vitastor/osd';\nimport { Etcd3 } from 'etcd3';\n", 2],
  ['seams (TypeScript)', 'mon/src/a.ts', 'const t = Date.now();\n', 1],
  ['seams (TypeScript)', 'mon/src/a.ts', 'const t = "Date.now()"; // Math.random()\n', 0],
  ['seams (TypeScript)', 'mon/src/a.ts', 'const t = `${Date.now()} Math.random()`;\n', 1],
  ['seams (TypeScript)', 'core/src/seams/a.ts', 'const t = Date.now();\n', 0],
  ['runtime (C++)', 'core/native/net/a.cpp', 'auto x = std::chrono::steady_clock::now();\nstd::thread t;\n', 2],
  ['runtime (C++)', 'core/native/net/a.cpp', "int x = 1'000; /* getenv() */ loop.socket(x); socket(s);\n", 0],
  ['leftovers', 'core/src/a.ts', '// FIXME\n', 1],
  ['leftovers', 'core/src/a.ts', 'console.log(1);\n', 1],
  ['leftovers', 'core/native/net/a.cpp', 'printf("x");\nsnprintf(b, n, "x");\n', 1],
  [
    'without any',
    'core/src/a.ts',
    'const a: any = 1;\nfunction f(p: Map<string, any>): any[] {}\nconst c = a as any;\n',
    3,
  ],
  ['without any', 'core/src/a.ts', '// any x!.y\nconst s = "any"; if (a !== b && !c) many(anything);\n', 0],
  ['without any', 'core/src/a.ts', 'x!.y;\nf(a!, b);\ny[0]!;\n', 3],
  ['this machine', 'core/src/a.ts', "const p = '/" + "work/main';\n", 1],
];

describe('lint', () => {
  for (const [check, path, text, count] of CASES) {
    it(`${check}: ${JSON.stringify(text)} in ${path}: ${count}`, async () => {
      assert.equal(await complaints(check, path, text), count);
    });
  }
});
