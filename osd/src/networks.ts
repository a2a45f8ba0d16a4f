// SPDX-License-Identifier: GPL-2.0-or-later
// Which addresses an OSD listens on, and which it tells others. Source: configuration.md 3, bind_address and
// osd_network.

import { VitastorError } from '@vitastor/core';
import { BlockList, isIP } from 'node:net';

export interface LocalAddress {
  address: string;
  loopback: boolean;
}

export interface ListenChoice {
  /** bind_address: wins over everything. */
  bind: readonly string[];
  /** CIDRs of osd_network and osd_cluster_network. */
  networks: readonly string[];
  local: readonly LocalAddress[];
}

function addTo(list: BlockList, cidr: string): void {
  const [address = '', prefix] = cidr.split('/');
  const family = isIP(address);
  const bits = prefix === undefined ? (family === 6 ? 128 : 32) : Number(prefix);
  if (family === 0 || !Number.isInteger(bits) || bits < 0 || bits > (family === 6 ? 128 : 32)) {
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      `"${cidr}" in osd_network is not a network: write it like 192.0.2.0/24 or 2001:db8::/32`,
    );
  }
  list.addSubnet(address, bits, family === 6 ? 'ipv6' : 'ipv4');
}

/** At least one address; 0.0.0.0 without configuration. Throws ERR_INVALID_ARGUMENT. */
export function chooseListen(choice: ListenChoice): string[] {
  if (choice.bind.length > 0) {
    const wrong = choice.bind.find((address) => isIP(address) === 0);
    if (wrong !== undefined)
      throw new VitastorError('ERR_INVALID_ARGUMENT', `bind_address "${wrong}" is not an IPv4 or IPv6 address`);
    return [...new Set(choice.bind)];
  }
  if (choice.networks.length === 0) return ['0.0.0.0'];
  const list = new BlockList();
  for (const cidr of choice.networks) addTo(list, cidr);
  const found = choice.local
    .map(({ address }) => address)
    .filter((address) => list.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4'));
  if (found.length > 0) return [...new Set(found)];
  throw new VitastorError(
    'ERR_INVALID_ARGUMENT',
    `no address of this machine (${choice.local.map(({ address }) => address).join(', ') || 'none is up'}) lies in osd_network ${choice.networks.join(', ')}: correct osd_network, or set bind_address`,
  );
}

/**
 * What osd/state publishes for the addresses that were bound: a wildcard stands for all addresses of its family but
 * loopback, if there are any.
 */
export function publishedAddresses(bound: readonly string[], local: readonly LocalAddress[]): string[] {
  const result = new Set<string>();
  for (const host of bound) {
    const family = host === '0.0.0.0' ? 4 : host === '::' ? 6 : 0;
    if (family === 0) {
      result.add(host);
      continue;
    }
    const own = local.filter(({ address }) => isIP(address) === family);
    const outside = own.filter(({ loopback }) => !loopback);
    for (const { address } of outside.length > 0 ? outside : own) result.add(address);
  }
  return [...result];
}
