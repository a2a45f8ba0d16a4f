// SPDX-License-Identifier: GPL-2.0-or-later
// Quick checks of the house rules that a pattern can hold. Each check is one function from the list of
// files to complaints; a line that must break a rule says why: `lint-allow: reason`.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildNative } from './native.mjs';
import { sources } from './sources.mjs';
import { Stop, root, run, say, since } from './ui.mjs';
import { workspaces } from './unit.mjs';

/**
 * @typedef {{ path: string, lines: readonly string[], code: readonly string[] }} Source code: comments and strings
 * blanked
 */
/** @typedef {(files: readonly Source[]) => string[] | Promise<string[]>} Check */

const NATIVE = /\.(cpp|hpp|c|h)$/;
const SCRIPT = /\.(ts|mjs|js)$/;
const isTest = (/** @type {string} */ path) =>
  /(^|\/)(test|tests|fuzz|bench)\//.test(path) || /_(test|fuzz|bench)\.cpp$|\.test\.ts$/.test(path);

/**
 * Blanks comments and the insides of strings, so that patterns see code only. Line count stays.
 * @param {string} text
 */
function codeOnly(text) {
  let out = '';
  let at = 0;
  /** Nesting of template literals: brace depth at each `${`. @type {number[]} */
  const templates = [];
  let depth = 0;
  const blank = (/** @type {string} */ piece) => piece.replace(/[^\n]/g, ' ');
  const template = () => {
    while (at < text.length) {
      const c = text[at];
      if (c === '\\') at += 2;
      else if (c === '`') {
        at++;
        out += '`';
        return;
      } else if (c === '$' && text[at + 1] === '{') {
        at += 2;
        out += '${';
        templates.push(depth++);
        return;
      } else {
        out += c === '\n' ? '\n' : ' ';
        at++;
      }
    }
  };
  while (at < text.length) {
    const rest = text.slice(at, at + 2);
    const c = text[at] ?? '';
    if (rest === '//' || rest === '/*') {
      const end = rest === '//' ? text.indexOf('\n', at) : text.indexOf('*/', at) + 2;
      const stop = end < at ? text.length : end;
      out += blank(text.slice(at, stop));
      at = stop;
    } else if (c === '"' || (c === "'" && !/[0-9a-fA-F]/.test(text[at - 1] ?? ''))) {
      let end = at + 1;
      while (end < text.length && text[end] !== c && text[end] !== '\n') end += text[end] === '\\' ? 2 : 1;
      out += c + blank(text.slice(at + 1, end)) + (text[end] ?? '');
      at = end + 1;
    } else if (c === '`') {
      out += c;
      at++;
      template();
    } else if (c === '{') {
      depth++;
      out += c;
      at++;
    } else if (c === '}') {
      depth--;
      out += c;
      at++;
      if (templates.length > 0 && templates[templates.length - 1] === depth) {
        templates.pop();
        template();
      }
    } else {
      out += c;
      at++;
    }
  }
  return out;
}

/** @param {string} path @returns {Source} */
const load = (path) => parseSource(path, readFileSync(join(root, path), 'utf8'));

/** @param {string} path @param {string} text @returns {Source} */
export function parseSource(path, text) {
  const script = NATIVE.test(path) || SCRIPT.test(path);
  return { path, lines: text.split('\n'), code: (script ? codeOnly(text) : text).split('\n') };
}

/**
 * Complaints for every line of code that matches, unless the line, or the one above, gives a reason.
 * @param {readonly Source[]} files
 * @param {RegExp} pattern
 * @param {string} message
 */
function grep(files, pattern, message) {
  return files.flatMap((file) =>
    file.code.flatMap((line, index) => {
      const match = pattern.exec(line);
      if (!match || /lint-allow: \S/.test(`${file.lines[index] ?? ''} ${file.lines[index - 1] ?? ''}`)) return [];
      return [`${file.path}:${index + 1}: ${match[0].trim()}: ${message}`];
    }),
  );
}

/** Layers of each side, in order; a layer includes itself and what stands before it. */
const CORE = ['base', 'runtime', 'wire', 'net', 'cluster', 'client'];
const OSD = ['store', 'offline', 'pg', 'serve', 'engine'];

/** What a layer may include. @param {string} layer @returns {string[]} */
function allowed(layer) {
  if (layer === 'erasure') return ['base', 'erasure'];
  const core = CORE.indexOf(layer);
  if (core >= 0) return core >= CORE.indexOf('client') ? [...CORE, 'erasure'] : CORE.slice(0, core + 1);
  return ['base', 'runtime', 'wire', 'net', 'erasure', ...OSD.slice(0, OSD.indexOf(layer) + 1)];
}

/** Packages and what they may import from ours. @type {Record<string, readonly string[]>} */
const PACKAGES = {
  core: [],
  osd: ['core'],
  mon: ['core'],
  cli: ['core'],
  sim: ['core', 'osd', 'mon', 'cli'],
  test: ['core', 'cli'],
  tools: ['core', 'e2e'],
};

/** @type {Record<string, Check>} */
export const CHECKS = {
  'every source file names its licence': (files) =>
    files
      .filter(
        ({ path, lines }) =>
          /\.(cpp|hpp|c|h|ts|mjs|js|py|pm|sh|cmake)$|CMakeLists\.txt$/.test(path) || lines[0]?.startsWith('#!'),
      )
      .filter(
        ({ lines }) => !lines.slice(0, 3).some((line) => line.includes('SPDX-License-Identifier: GPL-2.0-or-later')),
      )
      .map(({ path }) => `${path}: starts without the line "SPDX-License-Identifier: GPL-2.0-or-later"`),

  'native layers include only what stands below them': (files) =>
    files.flatMap((file) => {
      const layer = /^(?:core|osd)\/native\/(\w+)\//.exec(file.path)?.[1];
      if (!layer || !(CORE.includes(layer) || OSD.includes(layer) || layer === 'erasure') || isTest(file.path))
        return [];
      return file.lines.flatMap((line, index) => {
        const match = /^\s*#\s*include\s+"([^"]+)"/.exec(line);
        if (!match) return [];
        const path = match[1] ?? '';
        const where = `${file.path}:${index + 1}`;
        if (path.startsWith('.'))
          return [`${where}: "${path}": includes are written from the side's root, "layer/file.hpp"`];
        if (path === 'vitastor.h')
          return layer === 'client' ? [] : [`${where}: the C ABI stands above the layer ${layer}`];
        const target = path.split('/')[0] ?? '';
        if (!path.includes('/'))
          return [`${where}: "${path}": includes are written from the side's root, "${layer}/${path}"`];
        return [...CORE, ...OSD, 'erasure'].includes(target) && !allowed(layer).includes(target)
          ? [`${where}: the layer ${layer} may not use ${target}; it may use ${allowed(layer).join(', ')}`]
          : [];
      });
    }),

  'packages import each other by name, in one direction': (files) =>
    files.flatMap((file) => {
      const workspace = workspaces().find((name) => file.path.startsWith(`${name}/`));
      if (!workspace || !SCRIPT.test(file.path)) return [];
      return file.lines.flatMap((line, index) => {
        const target = /(?:\bfrom|^import|\bimport\() ?['"]([^'"]+)['"]/.exec(line)?.[1];
        if (!target) return [];
        const where = `${file.path}:${index + 1}`;
        if (target.startsWith('.')) {
          const depth = file.path.split('/').length - 2;
          const up = target.split('/').filter((part) => part === '..').length;
          return up > depth ? [`${where}: ${target} leaves the package; import it by name`] : [];
        }
        const own = /^@vitastor\/([^/]+)(\/.*)?$/.exec(target);
        if (own && !(PACKAGES[workspace] ?? []).includes(own[1] ?? '') && !isTest(file.path)) {
          return [`${where}: ${workspace} may not import ${target}`];
        }
        if (target === 'etcd3' && !file.path.startsWith('core/src/seams/'))
          return [`${where}: etcd3 stays behind core/src/seams`];
        return [];
      });
    }),

  'time and chance come through the seams (TypeScript)': (files) =>
    grep(
      // main builds the seams; the simulator's driver is the seam.
      files.filter(
        ({ path }) =>
          /^(core|osd|mon|cli|sim)\/src\/.*\.ts$/.test(path) &&
          !/^core\/src\/seams\/|\/src\/main\.ts$|^sim\/src\/driver\.ts$/.test(path),
      ),
      /\bDate\.now\b|\bnew Date\(\)|\bMath\.random\b|\bset(Timeout|Interval|Immediate)\b|\bperformance\.now\b|\bprocess\.hrtime\b|\brandom(Bytes|Int|UUID)\b/,
      'use the seams (core/src/seams)',
    ),

  'time, chance, threads and the system come through the runtime (C++)': (files) =>
    grep(
      files.filter(
        ({ path }) =>
          /^(core|osd)\/native\//.test(path) &&
          NATIVE.test(path) &&
          !path.startsWith('core/native/runtime/') &&
          !isTest(path) &&
          !/\/base\/(assert|log)\.cpp$/.test(path),
      ),
      /std::chrono::\w+_clock|std::j?thread\b|\bpthread_create\b|\bgetenv\b|(?<![\w:.>])s?rand\(|\brandom_device\b|\bmt19937|\bclock_gettime\b|\bgettimeofday\b|\btime\((NULL|nullptr|0)\)|\bf?open\((?=")|\bfopen\b|::socket\(|=\s*socket\(|\bstd::[io]?fstream\b|\bu?sleep\(|\bnanosleep\b|\bsleep_for\b/,
      'use core/native/runtime',
    ),

  'no leftovers': (files) => [
    ...files
      .filter(({ path }) => (NATIVE.test(path) || SCRIPT.test(path)) && path !== 'tools/dev/lint.mjs')
      .flatMap((file) =>
        file.lines.flatMap((line, index) =>
          /\b(FIXME|XXX|HACK)\b/.test(line) && !line.includes('lint-allow: ')
            ? [`${file.path}:${index + 1}: ${line.trim()}: does not land`]
            : [],
        ),
      ),
    ...grep(
      files.filter(({ path }) => /^(core|osd|mon)\/src\/.*\.ts$/.test(path)),
      /\bconsole\.\w+|\bdebugger\b/,
      'use the logger that main passes in',
    ),
    ...grep(
      files.filter(
        ({ path }) =>
          /^(core|osd)\/native\//.test(path) &&
          NATIVE.test(path) &&
          !isTest(path) &&
          !/\/base\/(assert|log)\.cpp$/.test(path),
      ),
      /\bstd::(cout|cerr)\b|(?<![\w.>])(f?printf|puts)\(/,
      'use base/log.hpp',
    ),
    ...grep(
      files.filter(({ path }) => path.endsWith('.test.ts')),
      /\b(describe|it|test)\.only\(|\bonly: true/,
      'would leave the other tests out',
    ),
  ],

  'TypeScript without any, ! and blind eyes': (files) => {
    const typescript = files.filter(({ path }) => path.endsWith('.ts'));
    return [
      ...grep(
        typescript,
        /(?:[:<|&,(=]\s*|\bas\s+|\bkeyof\s+)any\b(?!\s*[:(])/,
        'say what it is (unknown, and decode it)',
      ),
      ...grep(typescript, /[\w\])]!(?=[.)\];,[]|\s*$| [^=])/, 'handle undefined instead of asserting it away'),
      ...typescript.flatMap((file) =>
        file.lines.flatMap((line, index) =>
          /@ts-(ignore|expect-error|nocheck)/.test(line) ? [`${file.path}:${index + 1}: ${line.trim()}`] : [],
        ),
      ),
    ];
  },

  'nothing names this machine or a registry': (files) =>
    files
      .filter(({ path }) => path !== 'tools/dev/lint.mjs')
      .flatMap((file) =>
        file.lines.flatMap((line, index) => {
          const path = /(^|[^\w./-])\/(work|root|farm|home\/\w+)\//.exec(line);
          const resolved = file.path === 'package-lock.json' && /"resolved": "https?:/.test(line);
          return (path || resolved) && !line.includes('lint-allow: ')
            ? [`${file.path}:${index + 1}: ${line.trim().slice(0, 100)}`]
            : [];
        }),
      ),

  'source files stay readable in size': (files) =>
    files
      .filter(({ path, lines }) => (NATIVE.test(path) || SCRIPT.test(path)) && lines.length > 900)
      .map(({ path, lines }) => `${path}: ${lines.length} lines; split it by responsibility`),

  'every room has a README': (files) => {
    const paths = new Set(files.map(({ path }) => path));
    const rooms = new Set(
      files
        .filter(({ path }) => NATIVE.test(path) || SCRIPT.test(path))
        .map(
          ({ path }) =>
            /^((?:core|osd)\/native\/\w+|plugins\/\w+|core\/binding|osd\/binding|mon|cli|sim|test|tools|core|osd)\//.exec(
              path,
            )?.[1] ?? '',
        ),
    );
    return [...rooms]
      .filter((room) => room && !paths.has(`${room}/README.md`))
      .map((room) => `${room}: has no README.md`);
  },
};

/** Checks that compile something. @type {Record<string, Check>} */
const COMPILED = {
  'the C ABI compiles as C99 and as C++': async (files) => {
    const headers = files.map(({ path }) => path).filter((path) => /^core\/include\/.*\.h$/.test(path));
    /** @type {string[]} */
    const complaints = [];
    for (const header of headers) {
      for (const language of [['-x', 'c', '-std=c99', '-pedantic'], ['-x', 'c++', '-std=c++11', '-pedantic']]) {
        const result = await run(
          [
            'g++',
            ...language,
            '-Wall',
            '-Wextra',
            '-Werror',
            '-Wno-pragma-once-outside-header',
            '-fsyntax-only',
            header,
          ],
          { quiet: true },
        );
        if (result.code !== 0) complaints.push(`${header} as ${language[2]}:\n${result.output}`);
      }
    }
    return complaints;
  },

  'every native header compiles alone': async () => {
    try {
      await buildNative('dev', ['header_checks']);
      return [];
    } catch (error) {
      if (!(error instanceof Stop)) throw error;
      return [error.message];
    }
  },

  'TypeScript compiles': async () => {
    const result = await run([join(root, 'node_modules', '.bin', 'tsc'), '-b', '--pretty', 'false'], { quiet: true });
    return result.code === 0 ? [] : [result.output];
  },
};

/**
 * @param {{ compile: boolean }} options
 * @returns {Promise<import('./unit.mjs').Count>} one per check
 */
export async function lint(options) {
  const started = performance.now();
  const files = sources()
    .filter(
      (path) =>
        !/(^|\/)fixtures\/|\.(png|jpg|bin|gz)$|(^|\/)corpus\//.test(path) &&
        path !== 'LICENSE' &&
        path !== 'tools/dev/lint.test.mjs',
    )
    .map(load);
  const count = { passed: 0, failed: 0 };
  for (const [name, check] of Object.entries({ ...CHECKS, ...(options.compile ? COMPILED : {}) })) {
    const complaints = await check(files);
    if (complaints.length === 0) {
      count.passed++;
      continue;
    }
    count.failed++;
    say(`lint: ${name}: ${complaints.length} complaint${complaints.length > 1 ? 's' : ''}`);
    for (const complaint of complaints) say(`  ${complaint}`);
  }
  say(
    `lint: ${files.length} files, ${count.passed} of ${count.passed + count.failed} checks passed, ${since(started)}`,
  );
  return count;
}
