// SPDX-License-Identifier: GPL-2.0-or-later

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ioUringRefusal } from '../src/start/machine.js';

describe('what npm start says of a machine without io_uring', () => {
  it('is the reason that the OSD gave', () => {
    const warning = 'io_uring is refused on this machine: Operation not permitted. Continuing with epoll and threads, which is slower. To get io_uring: …';
    assert.equal(ioUringRefusal(['info config_path = x', warning, 'info store of OSD 1 is open']), 'Operation not permitted');
    const locked = 'io_uring is refused on this machine: too little lockable memory (RLIMIT_MEMLOCK). Continuing with epoll and threads';
    assert.equal(ioUringRefusal([locked]), 'too little lockable memory (RLIMIT_MEMLOCK)');
  });

  it('is nothing where it has it', () => {
    assert.equal(ioUringRefusal(['info store of OSD 1 is open: 0 objects; runtime io_uring']), undefined);
  });
});
