// SPDX-License-Identifier: GPL-2.0-or-later
// The monitor's HTTP door: metrics while master, 503 while standby. Without it the monitor works
// just as well.

import { readFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { errorText, type Config } from '@vitastor/core';
import type { Log } from '../log.js';
import type { Monitor } from '../monitor.js';
import { METRICS_CONTENT_TYPE, metricsText } from './metrics.js';

/** Longest wait for a request to arrive whole. */
const REQUEST_TIMEOUT_MS = 10_000;

export class MonitorHttp {
  readonly #server: Server;
  readonly #log: Log;

  /** Throws if TLS is configured and its files cannot be read. */
  constructor(monitor: Monitor, config: Config, log: Log) {
    this.#log = log;
    const handler = listener(monitor, config.string('prometheus_path'), log);
    const cert = config.string('mon_https_cert');
    const ca = config.string('mon_https_ca');
    this.#server =
      cert === ''
        ? createServer(handler)
        : createTlsServer(
            {
              cert: readFileSync(cert),
              key: readFileSync(config.string('mon_https_key')),
              ...(ca === '' ? {} : { ca: readFileSync(ca) }),
              requestCert: config.boolean('mon_https_client_auth'),
              rejectUnauthorized: config.boolean('mon_https_client_auth'),
            },
            handler,
          );
    this.#server.requestTimeout = REQUEST_TIMEOUT_MS;
  }

  /**
   * Resolves with the port when it listens, or with null when it cannot: that is logged and no
   * reason to stop.
   */
  listen(host: string, port: number): Promise<number | null> {
    return new Promise((resolve) => {
      this.#server.on('error', (error) => {
        this.#log.error(
          `HTTP on port ${port}: ${errorText(error)}; going on without metrics. Choose another mon_http_port, or enable_prometheus false`,
        );
        resolve(null);
      });
      this.#server.listen({ port, ...(host === '' ? {} : { host }) }, () => {
        const address = this.#server.address();
        resolve(typeof address === 'object' && address !== null ? address.port : port);
      });
    });
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }
}

function listener(monitor: Monitor, path: string, log: Log): RequestListener {
  return (request, response) => {
    const reply = (status: number, text: string, type = 'text/plain; charset=utf-8'): void => {
      response.writeHead(status, { 'content-type': type });
      response.end(text);
    };
    const view = monitor.view;
    const target = (request.url ?? '').split('?')[0];
    if (request.method !== 'GET' && request.method !== 'HEAD') reply(405, 'only GET\n');
    else if (view === null) reply(503, 'this monitor is standing by\n');
    else if (target !== path) reply(404, `nothing here; metrics are at ${path}\n`);
    else {
      metricsText(view).then(
        (text) => reply(200, text, METRICS_CONTENT_TYPE),
        (error: unknown) => {
          log.error(`metrics: ${errorText(error)}`);
          reply(500, 'metrics failed; the log says why\n');
        },
      );
    }
  };
}
