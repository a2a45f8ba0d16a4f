// SPDX-License-Identifier: GPL-2.0-or-later
// Addresses of etcd: parsed from what people write, and put in the order in which they are tried.

import { networkInterfaces } from 'node:os';
import { VitastorError } from '../errors.js';
import type { Random } from './random.js';

export interface EtcdAddress {
  /** As configured. */
  text: string;
  /** Without brackets. */
  host: string;
  port: number;
  https: boolean;
}

const FORM = /^(?:(https?):\/\/)?(?:\[([0-9a-fA-F:.]+)\]|([^:/[\]\s]+))(?::(\d{1,5}))?(\/\S*)?$/;
const DEFAULT_PORT = 2379;

/**
 * `[http://]host[:port][/path]`, IPv6 in brackets. The path belongs to the JSON gateway and is not used here. Throws
 * ERR_INVALID_ARGUMENT.
 */
export function parseEtcdAddress(text: string): EtcdAddress {
  const found = FORM.exec(text.trim());
  const port = found?.[4] === undefined ? DEFAULT_PORT : Number(found[4]);
  if (!found || port < 1 || port > 65535) {
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      `etcd_address "${text}" is not [http://]host:port[/path]; use for example 192.0.2.1:2379 or [2001:db8::1]:2379`,
    );
  }
  return { text: text.trim(), host: found[2] ?? found[3] ?? '', port, https: found[1] === 'https' };
}

/** What gRPC dials. */
export function dialTarget(address: EtcdAddress): string {
  return `${address.https ? 'https' : 'http'}://${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}

/** A comma-separated string or an array → addresses; empty parts are left out. */
export function splitAddresses(value: string | readonly string[]): string[] {
  const parts = typeof value === 'string' ? value.split(',') : value.flatMap((part) => part.split(','));
  return parts.map((part) => part.trim()).filter((part) => part !== '');
}

export function localHosts(): ReadonlySet<string> {
  const hosts = new Set(['localhost', '127.0.0.1', '::1']);
  for (const list of Object.values(networkInterfaces())) for (const { address } of list ?? []) hosts.add(address);
  return hosts;
}

/** Addresses of this machine first, the others in random order behind them. */
export function orderAddresses(
  addresses: readonly EtcdAddress[],
  random: Random,
  local: ReadonlySet<string> = localHosts(),
): EtcdAddress[] {
  const isLocal = (a: EtcdAddress): boolean => local.has(a.host) || a.host.startsWith('127.');
  return [
    ...addresses.filter(isLocal),
    ...shuffled(
      addresses.filter((a) => !isLocal(a)),
      random,
    ),
  ];
}

function shuffled<T>(items: readonly T[], random: Random): T[] {
  const rest = [...items];
  const result: T[] = [];
  while (rest.length) result.push(...rest.splice(random.below(rest.length), 1));
  return result;
}
