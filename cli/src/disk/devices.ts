// SPDX-License-Identifier: GPL-2.0-or-later
// Names of devices on the command line and in superblocks.

import { VitastorError, type JsonObject } from '@vitastor/core';
import { realpath } from 'node:fs/promises';

export function oneDevice(argv: readonly unknown[]): string {
  const [device, ...more] = argv.map(String);
  if (device === undefined || more.length > 0)
    throw new VitastorError('ERR_INVALID_ARGUMENT', 'name exactly one device');
  return device;
}

export function atMostOneDevice(argv: readonly unknown[]): string | undefined {
  return argv.length === 0 ? undefined : oneDevice(argv);
}

async function same(a: string, b: string): Promise<boolean> {
  const real = async (path: string): Promise<string> => realpath(path).catch(() => path);
  return (await real(a)) === (await real(b));
}

const ROLES = ['data', 'meta', 'journal'] as const;
export type Role = (typeof ROLES)[number];

/** What the record says that the device is for; null if it names other devices only. */
export async function roleOf(device: string, parameters: JsonObject): Promise<Role | null> {
  for (const role of ROLES) {
    const named = parameters[`${role}_device`];
    if (typeof named === 'string' && named !== '' && (await same(device, named))) return role;
  }
  return null;
}

/** The record is complete and refers to the device that it is on. */
export async function requireOwnDevice(device: string, parameters: JsonObject): Promise<Role> {
  for (const name of ['osd_num', 'data_device']) {
    const value = parameters[name];
    if (value === undefined || value === null || value === '' || Number(value) === 0) {
      throw new VitastorError('ERR_INVALID_ARGUMENT', `${device}: the superblock says nothing of ${name}`);
    }
  }
  const role = await roleOf(device, parameters);
  if (role) return role;
  throw new VitastorError(
    'ERR_INVALID_ARGUMENT',
    `${device}: the superblock is of OSD ${String(parameters['osd_num'])} on ${String(parameters['data_device'])}, not of this device; --force goes on`,
  );
}

/** Bytes from the start of the device to its first area: what a superblock may take. */
export function roomBefore(role: Role, parameters: JsonObject): bigint {
  const offsets = (['data', 'meta', 'journal'] as const)
    .filter((other) => other === role || (parameters[`${other}_device`] ?? '') === parameters[`${role}_device`])
    .map((other) => BigInt(Math.trunc(Number(parameters[`${other}_offset`] ?? 0))))
    .filter((offset) => offset > 0n);
  return offsets.reduce((least, offset) => (offset < least ? offset : least), offsets[0] ?? 4096n);
}
