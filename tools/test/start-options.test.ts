// SPDX-License-Identifier: GPL-2.0-or-later

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { UsageError, parseOptions } from '../src/start/options.js';

const parse = (...args: string[]): ReturnType<typeof parseOptions> => parseOptions(args, '/repository');

describe('options of npm start', () => {
  it('have defaults', () => {
    assert.deepEqual(parse(), {
      osds: 3,
      copies: 2,
      pgs: 32,
      size: '1G',
      diskBytes: 4 * 2 ** 30,
      dir: '/repository/data',
      immediateCommit: 'none',
      once: false,
      fresh: false,
      figures: true,
    });
  });

  it('are read', () => {
    const options = parse('--osds', '5', '--copies=3', '--data', '/tmp/x', '--disk-size', '10g', '--immediate-commit', 'all', '--once', '--no-figures');
    assert.equal(options?.osds, 5);
    assert.equal(options?.copies, 3);
    assert.equal(options?.dir, '/tmp/x');
    assert.equal(options?.diskBytes, 10 * 2 ** 30);
    assert.equal(options?.immediateCommit, 'all');
    assert.equal(options?.once, true);
    assert.equal(options?.figures, false);
    assert.equal(parse('--help', '--once'), null);
  });

  it('are refused with the name of the option', () => {
    const wrong: [string[], RegExp][] = [
      [['--osds', 'x'], /--osds x/],
      [['--osds', '0'], /--osds 0/],
      [['--osds', '2', '--copies', '3'], /--osds 3 or more/],
      [['--size', '1'], /--size 1/],
      [['--size', '1.5G'], /--size 1\.5G/],
      [['--disk-size', '100M'], /--disk-size/],
      [['--immediate-commit', 'some'], /--immediate-commit some/],
      [['--nonsense'], /--nonsense/],
      [['word'], /word/],
    ];
    for (const [args, message] of wrong) assert.throws(() => parse(...args), (error) => error instanceof UsageError && message.test(error.message), args.join(' '));
  });
});
