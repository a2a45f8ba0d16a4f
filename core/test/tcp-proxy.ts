// SPDX-License-Identifier: GPL-2.0-or-later
// A TCP server between a client and etcd that can go silent, be slow, or talk garbage: tests of address lists.

import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

export type ProxyMode = 'pass' | 'silent' | 'garbage';

export class TcpProxy {
  mode: ProxyMode = 'pass';
  /** Each way. */
  delayMs = 0;
  connections = 0;
  readonly #target: number;
  readonly #sockets = new Set<Socket>();
  #server: Server | null = null;
  #port = 0;

  constructor(targetPort: number) {
    this.#target = targetPort;
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  async start(): Promise<this> {
    const server = createServer((socket) => this.#accept(socket)).listen(0, '127.0.0.1');
    this.#server = server;
    await once(server, 'listening');
    const address = server.address();
    if (address !== null && typeof address !== 'string') this.#port = address.port;
    return this;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server?.close();
    if (this.#server?.listening) await once(this.#server, 'close');
  }

  #accept(client: Socket): void {
    this.connections++;
    this.#keep(client);
    if (this.mode === 'garbage') {
      client.end('HTTP/1.0 418 go away\r\n\r\nthis is no etcd');
      return;
    }
    const server = connect(this.#target, '127.0.0.1');
    this.#keep(server);
    this.#pipe(client, server);
    this.#pipe(server, client);
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => this.#sockets.delete(socket));
  }

  #pipe(from: Socket, to: Socket): void {
    from.on('data', (chunk: Buffer) => {
      if (this.mode !== 'pass') return;
      if (this.delayMs) setTimeout(() => to.write(chunk), this.delayMs);
      else to.write(chunk);
    });
    from.on('close', () => to.destroy());
  }
}
