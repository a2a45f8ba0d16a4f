// SPDX-License-Identifier: GPL-2.0-or-later
// Revokes a lease through etcd's JSON gateway, with nothing but Node's own HTTP: a supervisor lives beside every OSD, and
// the gRPC library alone would take 27 MiB in each.

import { parseEtcdAddress, VitastorError } from '@vitastor/core/light';
import { readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { EtcdAccess, LeaseRecord } from './supervisor.js';

/** etcd's code for a lease that it does not know. */
const NOT_FOUND = 5;

/** Asks all members at once: revoking twice harms nobody, and the first that confirms is enough. */
export async function revokeLease(record: LeaseRecord, timeoutMs: number): Promise<void> {
  const { addresses } = record.etcd;
  try {
    await Promise.any(addresses.map((address) => revokeAt(address, record, timeoutMs)));
  } catch (error) {
    const reasons = error instanceof AggregateError ? error.errors : [error];
    throw new VitastorError('ERR_ETCD_UNAVAILABLE', reasons.map((reason) => String(reason)).join('; '), {
      retryable: true, cause: error,
    });
  }
}

/** Read anew each time: certificates are renewed. */
function credentials({ tls }: EtcdAccess): { ca?: Buffer; cert?: Buffer; key?: Buffer } {
  return {
    ...(tls.ca === '' ? {} : { ca: readFileSync(tls.ca) }),
    ...(tls.cert === '' ? {} : { cert: readFileSync(tls.cert) }),
    ...(tls.key === '' ? {} : { key: readFileSync(tls.key) }),
  };
}

/** The path of the gateway in an address such as `host:2379/v3`. */
function gatewayPath(text: string): string {
  const path = text.trim().replace(/^https?:\/\//, '').replace(/^[^/]+/, '').replace(/\/+$/, '');
  return path === '' ? '/v3' : path;
}

function revokeAt(text: string, record: LeaseRecord, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const address = parseEtcdAddress(text);
    const body = JSON.stringify({ ID: record.lease });
    const options = {
      host: address.host, port: address.port, path: `${gatewayPath(text)}/lease/revoke`, method: 'POST', agent: false,
      headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
      signal: AbortSignal.timeout(timeoutMs),
    };
    const call = address.https ? httpsRequest({ ...options, ...credentials(record.etcd) }) : httpRequest(options);
    call.on('error', (error) => reject(new Error(`etcd at ${text}: ${error.message}`)));
    call.on('response', (response) => {
      let reply = '';
      response.setEncoding('utf8');
      response.on('data', (piece: string) => (reply = (reply + piece).slice(0, 4096)));
      response.on('error', (error) => reject(new Error(`etcd at ${text}: ${error.message}`)));
      response.on('end', () => {
        if (response.statusCode === 200 || codeOf(reply) === NOT_FOUND) resolve();
        else reject(new Error(`etcd at ${text}: HTTP ${response.statusCode ?? 0}: ${reply.trim()}`));
      });
    });
    call.end(body);
  });
}

function codeOf(reply: string): unknown {
  try {
    const parsed: unknown = JSON.parse(reply);
    return typeof parsed === 'object' && parsed !== null && 'code' in parsed ? parsed.code : undefined;
  } catch {
    return undefined;
  }
}
