// SPDX-License-Identifier: GPL-2.0-or-later
// The completion scripts, run by the shells themselves.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { CATALOG } from '../src/catalog.js';
import { CliRig } from './harness.js';

const missing = (shell: string): string | false => (spawnSync(shell, ['-c', 'true']).status === 0 ? false : `left out: there is no ${shell} here`);

/** What stands for vitastor-cli: says what it was asked, then names. */
const STUB = `vitastor-cli() { echo "asked: $*" >&2; [[ $2 == images ]] && printf '%s\\n' img img@s other 'with blank'; [[ $2 == pools ]] && echo fast; [[ $2 == osds ]] && printf '%s\\n' 1 2 10; return 0; }`;

interface Completed {
  words: string[];
  asked: string[];
}

function run(shell: string, script: string): Completed {
  const { stdout, stderr, status } = spawnSync(shell, ['-c', script], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  const asked = stderr.split('\n').filter((line) => line.startsWith('asked: ')).map((line) => line.slice('asked: '.length));
  return { words: stdout.split('\n').filter((word) => word !== ''), asked };
}

let rig: CliRig;
const scripts: Record<string, string> = {};
before(async () => {
  rig = new CliRig();
  for (const shell of ['bash', 'zsh']) scripts[shell] = (await rig.run(['completion', shell])).stdout;
});
after(() => rig?.stop());

/** The names of images go to stderr unseen: the script is quiet about it. */
const loud = (script: string): string => script.replaceAll(' 2>/dev/null', '');

const QUIET = '--etcd_slow_timeout 1000 --max_etcd_attempts 1';
const ALL_COMMANDS = CATALOG.flatMap((entry) => [entry.name, ...entry.aliases]).sort();

describe('bash', { skip: missing('bash') }, () => {
  const complete = (line: string): Completed => {
    const typed = line.split(/[ @:=]/).at(-1) ?? '';
    return run('bash', `${loud(scripts['bash'] ?? '')}\n${STUB}\nCOMP_LINE='${line}'; COMP_POINT=${line.length}; COMP_WORDS=(vitastor-cli '${typed}'); COMP_CWORD=1\n_vitastor_cli; printf '%s\\n' "\${COMPREPLY[@]}"`);
  };

  test('commands and their other names', () => {
    assert.deepEqual(complete('vitastor-cli ').words.sort(), ALL_COMMANDS);
    assert.deepEqual(complete('vitastor-cli --etcd_address 127.0.0.1:2379 --json rm-').words, ['rm-data', 'rm-osd', 'rm-pool']);
    assert.deepEqual(complete('vitastor-cli osd').words, ['osd-tree', 'osds', 'osd-ls']);
  });

  test('options of the command, with dashes or underscores', () => {
    assert.deepEqual(complete('vitastor-cli rm-osd --').words.slice(0, 6), ['--force', '--allow_data_loss', '--allow_up', '--dry_run', '--json', '--help']);
    assert.deepEqual(complete('vitastor-cli rm-osd --allow-d').words, ['--allow_data_loss']);
    assert.deepEqual(complete('vitastor-cli osds --lo').words, ['--long']);
    assert.deepEqual(complete('vitastor-cli --conf').words, ['--config_path']);
  });

  test('names are asked for, of the cluster that the line names', () => {
    assert.deepEqual(complete('vitastor-cli rm o'), { words: ['other'], asked: [`completion images ${QUIET}`] });
    assert.deepEqual(complete('vitastor-cli --config_path /c --etcd-prefix=/p rm-osd 1'), { words: ['1', '10'], asked: [`completion osds --config_path /c --etcd-prefix=/p ${QUIET}`] });
    assert.deepEqual(complete('vitastor-cli create -s 1M -p '), { words: ['fast'], asked: [`completion pools ${QUIET}`] });
    assert.deepEqual(complete('vitastor-cli create --parent im').words, ['img', 'img@s']);
    assert.deepEqual(complete('vitastor-cli rm img@').words, ['s'], 'bash takes @ for the end of a word');
    assert.deepEqual(complete('vitastor-cli rm w').words, ['with\\ blank']);
    assert.deepEqual(complete('vitastor-cli flags set no_re').words, ['no_recovery', 'no_rebalance']);
    assert.deepEqual(complete('vitastor-cli create -s ').asked, [], 'a size is nobody\'s name');
    assert.deepEqual(complete('vitastor-cli dd iimg=im').words, ['img', 'img@s']);
    assert.deepEqual(complete('vitastor-cli dd bs=1M iimg=img@').words, ['s']);
    assert.deepEqual(complete('vitastor-cli dd if=/etc/host').words.includes('/etc/hosts'), true);
    assert.deepEqual(complete('vitastor-cli dd o').words, ['of=', 'oimg=', 'oflag=']);
    assert.deepEqual(complete('vitastor-cli dd count=').words, []);
    assert.deepEqual(complete('vitastor-cli export im').words, ['img', 'img@s']);
    assert.deepEqual(complete('vitastor-cli import /etc/host').words.includes('/etc/hosts'), true);
    assert.deepEqual(complete('vitastor-cli import -p ').words, ['fast']);
    assert.deepEqual(complete('vitastor-cli diff img --from im').words, ['img', 'img@s']);
  });
});

describe('zsh', { skip: missing('zsh') }, () => {
  const complete = (line: string): Completed => {
    const words = line.split(' ');
    const stubs = `compdef() { : }; compadd() { [[ $1 == -a ]] && print -l -- \${(P)2} || { [[ $1 == -- ]] && shift; print -l -- "$@" } }; _describe() { print -l -- \${(P)4%%:*} }; _files() { print files }`;
    return run('zsh', `${stubs}\n${loud(scripts['zsh'] ?? '')}\n${STUB}\nwords=(${words.map((word) => `'${word}'`).join(' ')}); CURRENT=${words.length}\n_vitastor_cli`);
  };

  test('commands, options, names', () => {
    assert.deepEqual(complete('vitastor-cli ').words.sort(), ALL_COMMANDS);
    assert.deepEqual(complete('vitastor-cli rm-osd --').words.slice(0, 2), ['--force', '--allow_data_loss']);
    assert.deepEqual(complete('vitastor-cli --config_path /c rm --exact '), { words: ['img', 'img@s', 'other', 'with blank'], asked: [`completion images --config_path /c ${QUIET}`] });
    assert.deepEqual(complete('vitastor-cli create --pool ').words, ['fast']);
    assert.deepEqual(complete('vitastor-cli flags ').words.slice(0, 2), ['set', 'unset']);
    assert.deepEqual(complete('vitastor-cli --config_path ').words, ['files']);
  });
});

test('names, one a line; another word', async () => {
  rig.put('config/inode/1/2', { name: 'b', size: 4096 });
  rig.put('config/inode/1/1', { name: 'a b', size: 4096 });
  rig.put('osd/stats/10', {});
  rig.put('osd/state/9', { state: 'up' });
  assert.deepEqual([(await rig.run(['completion', 'images'])).stdout, (await rig.run(['completion', 'osds'])).stdout], ['a b\nb\n', '9\n10\n']);
  const wrong = await rig.run(['completion', 'zhs']);
  assert.deepEqual(wrong, { exit: 22, stdout: '', stderr: 'Which shell? bash or zsh, did you mean zsh?\n' });
  assert.equal((await rig.run(['completion'])).exit, 22);
});
