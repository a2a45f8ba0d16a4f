// SPDX-License-Identifier: GPL-2.0-or-later
// node register-main.js CONFIG BUILD_DIR IMAGE OFFSET write|read: one block of an image as a register. The writer writes 1, 2, 3, …, the
// reader reads. Each operation is told with the time of the machine's monotonic clock, which all processes share, when it begins and when
// it ends: `begin N NS`, `end N NS`, and what was read `read VALUE BEGIN_NS END_NS`. SIGTERM ends it after the operation under way.

import { Client } from '@vitastor/core';

const BLOCK = 4096;
const PAUSE_MS = 5;

const [configPath = '', buildDir = '', name = '', offsetText = '0', role = 'read'] = process.argv.slice(2);
const offset = BigInt(offsetText);
let ended = false;
process.on('SIGTERM', () => {
  if (ended) process.exit(0); // it waits for a cluster that does not answer
  ended = true;
});

const say = (...words: (string | bigint)[]): void => void process.stdout.write(`${words.join(' ')}\n`);
const client = new Client({ configPath, buildDir, config: {}, failFast: false, log: (level, text) => level <= 1 && process.stderr.write(`${text}\n`) });
const image = await client.open({ image: name, readOnly: role !== 'write' });
const block = Buffer.alloc(BLOCK);
say('open');
for (let value = 1n; !ended; value++) {
  const beginNs = process.hrtime.bigint();
  if (role === 'write') {
    for (let at = 0; at < BLOCK; at += 8) block.writeBigUInt64LE(value, at);
    say('begin', value, beginNs);
    await image.write(offset, block);
    if (!image.immediateCommit) await image.flush();
    say('end', value, process.hrtime.bigint());
  } else {
    await image.read(offset, block);
    const seen = block.readBigUInt64LE(0);
    for (let at = 8; at < BLOCK; at += 8) {
      if (block.readBigUInt64LE(at) !== seen) say('torn', seen, block.readBigUInt64LE(at));
    }
    say('read', seen, beginNs, process.hrtime.bigint());
  }
  await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
}
await image.close();
await client.close();
process.exit(0);
