// SPDX-License-Identifier: GPL-2.0-or-later
// Free TCP ports on loopback, below the range from which the kernel takes ports for outgoing connections.

import { createServer } from 'node:net';

const FIRST = 20_000;
const COUNT = 12_000;

const given = new Set<number>();
let next = FIRST + ((process.pid * 37) % COUNT);

function isFree(port: number, host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** A port that nobody listens on; `preferred` if that one is free. This process never gets the same one twice. */
export async function freePort(host = '127.0.0.1', preferred?: number): Promise<number> {
  if (preferred !== undefined && !given.has(preferred) && (await isFree(preferred, host))) {
    given.add(preferred);
    return preferred;
  }
  for (let tries = 0; tries < COUNT; tries++) {
    const port = next;
    next = next + 1 >= FIRST + COUNT ? FIRST : next + 1;
    if (!given.has(port) && (await isFree(port, host))) {
      given.add(port);
      return port;
    }
  }
  throw new Error(`no free TCP port between ${FIRST} and ${FIRST + COUNT} on ${host}`);
}
