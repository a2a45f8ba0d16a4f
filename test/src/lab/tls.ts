// SPDX-License-Identifier: GPL-2.0-or-later
// An authority of a lab's own and what it signs, made by the openssl command: for etcd that speaks TLS and wants client certificates.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const DAYS = '30';

function openssl(dir: string, args: readonly string[]): void {
  const result = spawnSync('openssl', args, { cwd: dir, encoding: 'utf8' });
  if (result.error) throw new Error('openssl is not installed: apt-get install openssl, or `npm run setup`');
  if (result.status !== 0) throw new Error(`openssl ${args.join(' ')}: ${result.stderr}`);
}

/** `name`.key and `name`.crt in `dir`; signed by `authority` there, or by itself. */
function certificate(dir: string, name: string, extensions: string, authority?: string): void {
  openssl(dir, ['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=lab ${name}`]);
  writeFileSync(join(dir, `${name}.ext`), extensions);
  openssl(dir, ['x509', '-req', '-in', `${name}.csr`, '-out', `${name}.crt`, '-days', DAYS, '-extfile', `${name}.ext`,
    ...(authority === undefined ? ['-signkey', `${name}.key`] : ['-CA', `${authority}.crt`, '-CAkey', `${authority}.key`, '-CAcreateserial'])]);
}

/** Makes `dir`/tls: ca, etcd (for `host`) and client, and `other`, an authority that signs nothing here. Once a directory. */
export function makeCertificates(dir: string, host: string): void {
  const tls = join(dir, 'tls');
  if (existsSync(tls)) return;
  mkdirSync(tls, { mode: 0o700 });
  for (const name of ['ca', 'other']) certificate(tls, name, 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n');
  // etcd's own gateway is a client of etcd, with the server's certificate.
  certificate(tls, 'etcd', `subjectAltName=IP:${host}\nextendedKeyUsage=serverAuth,clientAuth\n`, 'ca');
  certificate(tls, 'client', 'extendedKeyUsage=clientAuth\n', 'ca');
}

export function tlsConfig(dir: string): Record<string, string> {
  const tls = join(dir, 'tls');
  return { etcd_ca: join(tls, 'ca.crt'), etcd_cert: join(tls, 'client.crt'), etcd_key: join(tls, 'client.key') };
}

export function etcdTlsFlags(dir: string): string[] {
  const tls = join(dir, 'tls');
  return ['--cert-file', join(tls, 'etcd.crt'), '--key-file', join(tls, 'etcd.key'), '--trusted-ca-file', join(tls, 'ca.crt'), '--client-cert-auth'];
}
