// SPDX-License-Identifier: GPL-2.0-or-later
// TLS to etcd: which files an https address stands on, and whether they can do what they are for. Settings etcd_ca,
// etcd_cert, etcd_key.

import { createPrivateKey, X509Certificate } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { errorText, VitastorError } from '../errors.js';

/**
 * Paths of PEM files; '' = not given. They are read anew for each connection, so that renewed certificates need no
 * restart.
 */
export interface EtcdTlsFiles {
  /** The authority that etcd's certificate must come from; '': those that the system trusts. */
  ca: string;
  /** Our own certificate and its key: both or none. */
  cert: string;
  key: string;
}

export interface EtcdCredentials {
  rootCertificate: Buffer;
  certChain?: Buffer;
  privateKey?: Buffer;
}

/** Where systems keep the authorities they trust: Debian, then Red Hat. What curl uses there, too. */
const SYSTEM_CA = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt'];

async function read(setting: string, path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      `${setting}: ${path} cannot be read (${errorText(error)}): correct the path or its permissions`,
      { cause: error },
    );
  }
}

function check(setting: string, path: string, what: string, test: () => unknown): void {
  try {
    test();
  } catch (error) {
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      `${setting}: ${path} holds no ${what} in PEM form (${errorText(error)})`,
      { cause: error },
    );
  }
}

/** Reads and checks the files. Throws ERR_INVALID_ARGUMENT that names the setting and the file. */
export async function readEtcdCredentials(files: EtcdTlsFiles): Promise<EtcdCredentials> {
  if ((files.cert === '') !== (files.key === '')) {
    const [given, missing] = files.cert === '' ? ['etcd_key', 'etcd_cert'] : ['etcd_cert', 'etcd_key'];
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      `${given} is set, but ${missing} is not: a client certificate needs both`,
    );
  }
  const ca = files.ca || SYSTEM_CA.find((path) => existsSync(path));
  if (ca === undefined)
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      'an etcd address is https, and this system has no list of trusted authorities: set etcd_ca',
    );
  const rootCertificate = await read('etcd_ca', ca);
  check('etcd_ca', ca, 'certificate', () => new X509Certificate(rootCertificate));
  if (files.cert === '') return { rootCertificate };
  const certChain = await read('etcd_cert', files.cert);
  const privateKey = await read('etcd_key', files.key);
  check('etcd_cert', files.cert, 'certificate', () => new X509Certificate(certChain));
  check('etcd_key', files.key, 'private key', () => createPrivateKey(privateKey));
  if (!new X509Certificate(certChain).checkPrivateKey(createPrivateKey(privateKey))) {
    throw new VitastorError(
      'ERR_INVALID_ARGUMENT',
      `etcd_key: ${files.key} is not the key of the certificate in ${files.cert} (etcd_cert)`,
    );
  }
  return { rootCertificate, certChain, privateKey };
}

/** The setting to look at when a connection has failed with this text; '' where it is none of them. */
export function tlsHint(text: string): string {
  if (/alert|bad certificate|certificate required/.test(text)) {
    return '; etcd refuses our certificate: etcd_cert and etcd_key must be given and be of an authority that etcd trusts';
  }
  if (/self[- ]signed|unable to (verify|get)|SELF_SIGNED|UNABLE_TO|altnames|certificate has expired/.test(text))
    return '; check etcd_ca, and the names in etcd’s certificate';
  if (/wrong version number|packet length too long/.test(text)) return '; is this address http, not https?';
  return '';
}
