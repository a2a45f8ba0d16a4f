// SPDX-License-Identifier: GPL-2.0-or-later
// node --test tools/dev: what the set-up makes of apt's words.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { unknownPackages } from './debian.mjs';

/** @param {string} name @param {string} candidate */
const block = (name, candidate) =>
  `${name}:\n  Installed: (none)\n  Candidate: ${candidate}\n  Version table:\n     1.0 500\n`;

describe('packages that apt does not know', () => {
  it('none, when each has a candidate', () => {
    assert.deepEqual(unknownPackages(block('g++', '4:12.2.0-3') + block('fio', '3.33-3'), ['g++', 'fio']), []);
  });

  it('all, when apt took g++ for a pattern because its lists are empty', () => {
    const matches = ['dpkg', 'git', 'libgcc-s1', 'zlib1g'].map((name) => block(name, '1.0')).join('');
    assert.deepEqual(unknownPackages(matches, ['g++', 'fio']), ['g++', 'fio']);
  });

  it('one that is only named by others', () => {
    assert.deepEqual(unknownPackages(block('g++', '4:14.2.0-1') + block('fio', '(none)'), ['g++', 'fio']), ['fio']);
  });

  it('all, when apt said nothing', () => {
    assert.deepEqual(unknownPackages('', ['cmake']), ['cmake']);
  });
});
