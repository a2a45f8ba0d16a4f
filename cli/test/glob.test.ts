// SPDX-License-Identifier: GPL-2.0-or-later

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { matchesAny, matchesGlob } from '../src/glob.js';

test('every character but * ? and backslash stands for itself', () => {
  for (let code = 1; code < 0x300; code++) {
    const c = String.fromCodePoint(code);
    if (c === '\\') continue;
    assert.ok(matchesGlob(`a${c}b`, `a${c}b`) && matchesGlob(`\\${c}`, c), `character ${code}`);
    if (c !== '*' && c !== '?') assert.ok(!matchesGlob(`a${c}b`, 'a_b') || c === '_', `character ${code}`);
  }
});

test('stars, question marks, escapes, other planes', () => {
  for (const [pattern, name] of [['vm-*', 'vm-1'], ['*', ''], ['a?c', 'a\u{1f600}c'], ['\\*', '*'], ['\u{1f600}*', '\u{1f600}x'], ['\\\\', '\\'], ['web/*', 'web/a/b']])
    assert.ok(matchesGlob(pattern ?? '', name ?? ''), `${pattern} ${name}`);
  for (const [pattern, name] of [['\\*', 'x'], ['a?c', 'ac'], ['vm', 'vm-1'], ['[a]', 'a'], ['a.c', 'abc']]) assert.ok(!matchesGlob(pattern ?? '', name ?? ''), `${pattern} ${name}`);
  assert.ok(matchesAny([], 'x', true) && matchesAny(['a-b'], 'a-b', false) && !matchesAny(['a*'], 'ab', true));
});
