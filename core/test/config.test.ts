// SPDX-License-Identifier: GPL-2.0-or-later

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parseCommandLine } from '../src/config/command-line.js';
import { Config, loadLocalConfig, parseConfigFile, readConfigFile, requireEtcdAddresses } from '../src/config/config.js';
import { isParameter, parameter, parameterNames } from '../src/config/parameters.js';
import { parseInteger, parseList, parseNumber, parseParameter } from '../src/config/values.js';
import { VitastorError } from '../src/errors.js';
import { isJsonObject, parseJson, type JsonObject, type JsonValue } from '../src/json.js';
import { orderAddresses, parseEtcdAddress } from '../src/seams/etcd-address.js';
import { parseBoolean, parseDuration, parseSize } from '../src/units.js';
import { fixture } from './paths.js';

function rows(section: string): JsonObject[] {
  const all = parseJson(readFileSync(fixture('config-values.json'), 'utf8'));
  assert.ok(isJsonObject(all));
  const list = all[section];
  assert.ok(Array.isArray(list) && list.length > 0, `section ${section}`);
  return list.filter(isJsonObject);
}

describe('value forms (test/fixtures/config-values.json)', () => {
  const forms: [string, (value: JsonValue) => JsonValue][] = [
    ['boolean', parseBoolean],
    ['size_bytes', (value) => parseSize(value)?.toString() ?? null],
    ['duration_seconds', parseDuration],
    ['integer', parseInteger],
    ['number', parseNumber],
    ['list', parseList],
  ];
  for (const [section, parse] of forms) {
    test(section, () => {
      for (const row of rows(section)) assert.deepEqual(parse(row['value'] ?? null), row['is'], JSON.stringify(row));
    });
  }

  test('etcd_address', () => {
    for (const row of rows('etcd_address')) {
      const text = String(row['value']);
      if (row['is'] === null) {
        assert.throws(() => parseEtcdAddress(text), (error) => error instanceof VitastorError && error.code === 'ERR_INVALID_ARGUMENT', text);
      } else {
        const { host, port } = parseEtcdAddress(text);
        assert.deepEqual([host, port], [row['host'], row['port']], text);
      }
    }
  });

  test('limits and defaults of parameters', () => {
    for (const row of rows('limits')) {
      const name = String(row['parameter']);
      assert.ok(isParameter(name), name);
      const config = new Config({ file: { [name]: row['value'] ?? null } });
      assert.equal(config.value(name), row['is'], JSON.stringify(row));
    }
  });

  test('every default is a legal value of its own parameter', () => {
    for (const name of parameterNames()) {
      const spec = parameter(name);
      if (spec.default !== null) assert.notEqual(parseParameter(spec, spec.default), null, name);
    }
  });
});

describe('sources', () => {
  test('command line over etcd over file over default', () => {
    const file = { etcd_quick_timeout: 1, etcd_slow_timeout: 1, max_etcd_attempts: 7 };
    const config = new Config({ commandLine: { etcd_quick_timeout: '3' }, etcd: { etcd_quick_timeout: 2, etcd_slow_timeout: 2 }, file, filePath: '/x.conf' });
    assert.deepEqual(
      (['etcd_quick_timeout', 'etcd_slow_timeout', 'max_etcd_attempts', 'client_retry_interval'] as const).map((name) => [config.number(name), config.source(name)]),
      [[3, 'command line'], [2, 'etcd'], [7, 'file'], [50, 'default']],
    );
  });

  test('local parameters are never taken from etcd', () => {
    for (const name of ['config_path', 'use_rdma', 'rdma_max_sge', 'min_zerocopy_send_size', 'use_sync_send_recv', 'tcp_header_buffer_size'] as const) {
      assert.equal(parameter(name).notFromEtcd, true, name);
    }
    const config = new Config({ etcd: { use_rdma: false, rdma_max_sge: 4, min_zerocopy_send_size: -1 }, file: { rdma_max_sge: 9 } });
    assert.deepEqual([config.boolean('use_rdma'), config.number('rdma_max_sge'), config.number('min_zerocopy_send_size')], [true, 9, 32768]);
  });

  test('an empty value is no value; garbage gives way to the next source and is reported', () => {
    const config = new Config({ commandLine: { etcd_prefix: '' }, etcd: { etcd_slow_timeout: 'soon' }, file: { etcd_prefix: '/b', etcd_slow_timeout: 77 }, filePath: '/x.conf' });
    assert.equal(config.string('etcd_prefix'), '/b');
    assert.equal(config.number('etcd_slow_timeout'), 77);
    assert.deepEqual(config.problems(), ['etcd_slow_timeout = "soon" (etcd) is not a whole number: using 77']);
  });

  test('old names are accepted', () => {
    assert.equal(new Config({ file: { up_wait_retry_interval: 500 } }).number('client_retry_interval'), 500);
    assert.equal(new Config({ file: { flusher_count: 8 } }).number('max_flusher_count'), 8);
    assert.equal(new Config({ file: { flusher_count: 8, max_flusher_count: 9 } }).number('max_flusher_count'), 9);
    assert.deepEqual(new Config({ commandLine: { etcd_url: 'a:1' } }).list('etcd_address'), ['a:1']);
  });

  test('withEtcd makes the next configuration and leaves the old one', () => {
    const one = new Config({ file: { recovery_queue_depth: 2 } });
    const two = one.withEtcd({ recovery_queue_depth: 4 });
    assert.deepEqual([one.number('recovery_queue_depth'), two.number('recovery_queue_depth')], [2, 4]);
  });

  test('describeSources names every etcd address and the source of every setting', () => {
    const config = new Config({
      commandLine: { osd_num: '1' }, etcd: { etcd_stats_interval: 10 }, file: { etcd_address: ['10.0.0.1:2379', '10.0.0.2:2379'], osd_network: '10.0.0.0/24' }, filePath: '/etc/v.conf',
    });
    const lines = config.describeSources('O');
    assert.deepEqual(lines.slice(0, 5), [
      'etcd address 10.0.0.1:2379 (file /etc/v.conf)', 'etcd address 10.0.0.2:2379 (file /etc/v.conf)',
      'osd_network = 10.0.0.0/24 (file /etc/v.conf)', 'osd_num = 1 (command line)', 'etcd_stats_interval = 10 (etcd)',
    ]);
    assert.match(lines[5] ?? '', /^defaults: config_path=.* etcd_report_interval=5 /);
    assert.doesNotMatch(lines[5] ?? '', /nbd_timeout|mon_http_port/);
  });

  test('asText merges what is set', () => {
    const config = new Config({ commandLine: { etcd_address: 'a:1' }, file: { etcd_address: ['b:1', 'b:2'], osd_network: ['10.0.0.0/8', 'fd00::/8'], custom: { x: 1 } } });
    assert.deepEqual(config.asText(), { etcd_address: 'a:1', osd_network: '10.0.0.0/8,fd00::/8', custom: '{"x":1}' });
  });
});

describe('configuration file', () => {
  test('bad JSON: file, line, column and the next step', () => {
    assert.throws(() => parseConfigFile('/etc/v.conf', '{\n  "etcd_address": "a:1",\n  "x": }'), (error) => {
      assert.ok(error instanceof VitastorError && error.code === 'ERR_CONFIG_FILE');
      assert.match(error.message, /\/etc\/v\.conf .*line 3, column 8.*Correct it there/);
      return true;
    });
    assert.throws(() => parseConfigFile('/etc/v.conf', '[]'), /must be one JSON object/);
    assert.throws(() => parseConfigFile('/etc/v.conf', ''), /line 1, column 1: the text ends too early/);
  });

  test('a named file must exist; its directory is no file', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'vitastor-conf-'));
    try {
      await assert.rejects(readConfigFile(join(dir, 'none.conf')), /none\.conf does not exist: correct config_path/);
      await assert.rejects(readConfigFile(dir), /cannot be read/);
      await writeFile(join(dir, 'v.conf'), '{"etcd_address":"10.0.0.1:2379"}');
      const config = await loadLocalConfig({ config_path: join(dir, 'v.conf'), etcd_prefix: '/two' });
      assert.deepEqual(requireEtcdAddresses(config), ['10.0.0.1:2379']);
      assert.equal(config.string('etcd_prefix'), '/two');
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  test('no etcd address: says where to put it', () => {
    assert.throws(() => requireEtcdAddresses(new Config({})), /--etcd_address HOST:PORT.*\/etc\/vitastor\/vitastor\.conf/);
  });
});

describe('command line', () => {
  const rules = { flags: new Set(['json', 'wait_list', 'long']), short: { l: 'long', p: 'pool' } };

  test('values, flags, dashes and underscores, short forms, arguments', () => {
    assert.deepEqual(parseCommandLine(['ls', '--etcd-address', 'a:1', '--json', '--etcd_prefix=/x=y', '-l', '-p', '2', 'img', '--wait-list', '--', '--odd', '-z'], rules), {
      options: { etcd_address: 'a:1', json: '1', etcd_prefix: '/x=y', long: '1', pool: '2', wait_list: '1' }, args: ['ls', 'img', '--odd', '-z'],
    });
  });

  test('a negative number is a value and an argument', () => {
    assert.deepEqual(parseCommandLine(['--min', '-1', '-1', '-'], rules), { options: { min: '-1' }, args: ['-1', '-'] });
  });

  test('a missing value and an unknown letter', () => {
    assert.throws(() => parseCommandLine(['--pool'], rules), /option --pool needs a value/);
    assert.throws(() => parseCommandLine(['-z'], rules), /unknown option -z/);
  });
});

test('etcd addresses: local ones first, the others shuffled', () => {
  const addresses = ['10.9.9.1:1', '127.0.0.1:2', '10.9.9.2:3', '[::1]:4'].map(parseEtcdAddress);
  const local = new Set(['127.0.0.1', '::1']);
  const order = orderAddresses(addresses, { below: (n) => n - 1 }, local).map((a) => a.port);
  assert.deepEqual(order, [2, 4, 3, 1]);
});
