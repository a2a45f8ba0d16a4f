// SPDX-License-Identifier: GPL-2.0-or-later
// Debian packages: finds out which are missing, says what they are for, installs them through apt-get.
// The names hold on Debian 12 and 13.

import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Stop, ask, mustRun, quote, root, run, say, which } from './ui.mjs';

/** Package → what it is needed for. */
const BUILD = {
  'g++': 'C++ compiler',
  cmake: 'native build',
  'ninja-build': 'native build',
  pkgconf: 'finding libraries',
  'liburing-dev': 'io_uring',
  'libisal-dev': 'checksums and erasure codes',
  'libcurl4-openssl-dev': 'etcd from C++',
  'libsimdjson-dev': 'JSON in C++',
  'doctest-dev': 'native tests',
  'libglib2.0-dev': 'QEMU driver',
  meson: 'making QEMU’s headers',
  'python3-venv': 'making QEMU’s headers',
};
const RUN = {
  fio: 'load generator of npm start, tests and benchmarks',
  'dpkg-dev': 'unpacking fio’s and QEMU’s source for their headers',
  'qemu-utils': 'qemu-img and qemu-io: tests and manual of the QEMU driver',
  'qemu-system-x86': 'tests of the QEMU driver with a guest',
  'busybox-static': 'the guest’s programs',
  e2fsprogs: 'the guest’s file system',
  'etcd-client': 'etcdctl: the manual’s commands as people type them, run by npm test',
  'ca-certificates': 'downloads over https',
  openssl: 'certificates for the tests of TLS to etcd',
};

/** @returns {Record<string, string>} */
const wanted = () => ({ ...BUILD, ...RUN });

/** The wanted packages that are not installed. */
export function missingPackages() {
  const names = Object.keys(wanted());
  const out = ask([
    'sh',
    '-c',
    `dpkg-query -W -f '\${Package} \${db:Status-Status}\\n' ${quote(names)} 2>/dev/null; true`,
  ]);
  const installed = new Set(
    out.split('\n').filter((line) => line.endsWith(' installed')).map((line) => line.split(' ')[0]),
  );
  return names.filter((name) => !installed.has(name));
}

/** Where etcd is: the system's, or the copy under build/deps/etcd. '' when there is none. */
export function etcdPath() {
  const local = join(root, 'build', 'deps', 'etcd', 'usr', 'bin', 'etcd');
  return existsSync(local) ? local : which('etcd');
}

/** How to become root, as leading words of a command; null when there is no way. */
function asRoot() {
  if (process.getuid?.() === 0) return [];
  if (!which('sudo')) return null;
  if (process.stdin.isTTY) return ['sudo'];
  return ask(['sh', '-c', 'sudo -n true && echo yes']) ? ['sudo', '-n'] : null;
}

/**
 * The names that `apt-cache policy` shows no version of. Names are compared, lines not counted: where apt knows no
 * package
 * `g++` (its lists are empty, as in every container image) it takes the name for a pattern, and answers for all that
 * match.
 * @param {string} policy what `apt-cache policy NAMES` printed (LC_ALL=C)
 * @param {readonly string[]} names
 */
export function unknownPackages(policy, names) {
  const known = new Set(
    [...policy.matchAll(/^(\S+):\n {2}Installed: .*\n {2}Candidate: (?!\(none\))/gm)].map((match) => match[1]),
  );
  return names.filter((name) => !known.has(name));
}

/** Installs what is missing. Throws Stop with the exact command where it may not. */
export async function installPackages() {
  const missing = missingPackages();
  const needEtcd = etcdPath() === '';
  if (missing.length === 0 && !needEtcd) return;
  if (!which('apt-get')) {
    throw new Stop(
      'This is not Debian (there is no apt-get). Please install what these packages hold, then start again:\n  ' +
        missing.map((name) => `${name} (${wanted()[name]})`).concat(needEtcd ? ['etcd'] : []).join(', '),
    );
  }
  const prefix = asRoot();
  const names = needEtcd && prefix === null ? [...missing, 'etcd-server'] : missing;
  const install = ['apt-get', 'install', '-y', '--no-install-recommends', ...names];
  if (missing.length > 0) {
    say(`${missing.length} Debian package${missing.length > 1 ? 's are' : ' is'} missing:`);
    for (const name of missing) say(`  ${name.padEnd(22)} ${wanted()[name]}`);
  }
  if (missing.length > 0 && prefix === null) {
    const who = which('sudo')
      ? 'sudo asks for a password and there is no terminal'
      : 'this is not root and there is no sudo';
    throw new Stop(
      `They cannot be installed from here (${who}). Please run as root, then start again:\n  apt-get update && ${quote(install)}`,
    );
  }
  /** @param {string[]} argv */
  const privileged = (argv) => {
    const command = [...(prefix ?? []), 'env', 'DEBIAN_FRONTEND=noninteractive', 'LC_ALL=C', ...argv];
    say(`Running: ${quote(command)}${prefix?.[0] === 'sudo' ? '   (installing needs root)' : ''}`);
    return run(command, { quiet: !process.stdout.isTTY });
  };
  /** @type {string | null} */
  let updated = null; // what apt-get update said, where it was not shown
  const update = async () => {
    updated = (await privileged(['apt-get', 'update', '-q'])).output;
  };
  const toFetch = [...missing, ...(needEtcd ? ['etcd-server'] : [])];
  const unknown = () => unknownPackages(ask(['apt-cache', 'policy', ...toFetch]), toFetch);
  if (prefix !== null && unknown().length > 0) {
    await update();
    const left = unknown(); // never handed to apt-get install: it would take some of them for patterns
    if (left.length > 0) {
      process.stderr.write(updated ?? '');
      throw new Stop(
        `apt knows no package ${left.join(', ')} even after apt-get update; its words are above.\n` +
          'Please see that /etc/apt names a mirror of Debian 12 or 13 (main) and that it can be reached, then start again.',
      );
    }
  }
  if (missing.length > 0) {
    let result = await privileged([...install, '-q']);
    if (result.code !== 0 && updated === null) {
      await update(); // stale lists name packages that are gone
      result = await privileged([...install, '-q']);
    }
    const left = missingPackages();
    if (left.length > 0) {
      process.stderr.write(result.output);
      throw new Stop(`apt-get could not install: ${left.join(', ')}. Its words are above.`);
    }
  }
  if (needEtcd) await fetchEtcd();
}

/**
 * etcd is unpacked under build/deps/etcd, not installed: Debian's package would start a service on
 * this machine, and the clusters of npm start and of the tests run their own.
 */
async function fetchEtcd() {
  const dir = join(root, 'build', 'deps');
  const temporary = join(dir, `etcd.${process.pid}`);
  mkdirSync(temporary, { recursive: true });
  try {
    say('Fetching the package etcd-server (unpacked under build/deps, not installed).');
    const got = await run(['apt-get', 'download', '-q', '-o', 'APT::Sandbox::User=root', 'etcd-server'], {
      cwd: temporary,
      quiet: true,
    });
    const deb = readdirSync(temporary).find((name) => name.endsWith('.deb'));
    if (got.code !== 0 || !deb) {
      throw new Stop(
        `etcd-server could not be fetched:\n${got.output}Please run as root, then start again:\n  apt-get update && apt-get install etcd-server`,
      );
    }
    await mustRun(['dpkg-deb', '-x', deb, 'out'], { cwd: temporary, quiet: true });
    rmSync(join(dir, 'etcd'), { recursive: true, force: true });
    renameSync(join(temporary, 'out'), join(dir, 'etcd'));
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}
