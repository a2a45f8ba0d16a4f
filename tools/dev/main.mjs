// SPDX-License-Identifier: GPL-2.0-or-later
// The one entry behind every npm command: node tools/dev/main.mjs VERB [OPTIONS]

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { format } from './format.mjs';
import { fuzz } from './fuzz.mjs';
import { fetchGuestKernel } from './guest-kernel.mjs';
import { lint } from './lint.mjs';
import { buildDir } from './native.mjs';
import { setup, setupAndBuild } from './setup.mjs';
import { test } from './test.mjs';
import { Stop, red, root, say, which } from './ui.mjs';
import { unit } from './unit.mjs';

const HELP = `npm run VERB [-- OPTIONS]; start and test also as \`npm start\` and \`npm test\`.

  start     a cluster on this machine, real data written and verified (-- --help for options)
  test      everything that guards a change [-- PART...: lint unit sim planted start e2e fuzz asan; tsan only by name]
  setup     Debian and npm packages only
  build     set-up, native code, TypeScript [-- PRESET: dev, asan, tsan, release, fuzz]
  unit      native and TypeScript unit tests [-- FILTER]
  lint      quick checks of the house rules [-- --quick: without compiling]
  format    clang-format over C++ and C
  bench     figures beside raw figures of the same run [-- NAME --quick --json --check]
  sim       simulated clusters [-- --seed N, --seeds N, --minutes M]
  e2e       end-to-end tests on real processes [-- NAME]
  fuzz      fuzz targets under sanitizers [-- NAME --seconds N]
  soak      OSDs killed in a loop under fio with verification [-- --minutes M]; every end-to-end story in its long form [-- --hours N]
  package   Debian and RPM packages
`;

/**
 * Hands over to a compiled program of a package.
 * @param {string} path inside the repository
 * @param {readonly string[]} args
 */
async function handOver(path, args) {
  const file = join(root, path);
  if (!existsSync(file)) throw new Stop(`${path} is not there: this part is not written yet, or was not built.`);
  const setpriv = which('setpriv'); // ends the program when this process is killed hard
  const argv = [...(setpriv ? [setpriv, '--pdeathsig', 'TERM', '--'] : []), process.execPath, file, ...args];
  const child = spawn(argv[0] ?? '', argv.slice(1), { stdio: 'inherit' });
  // The program decides when to end. Ctrl-C reaches it through the terminal as well; it takes the two as one.
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) process.on(signal, () => child.kill(signal));
  const parent = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid !== parent) child.kill('SIGTERM'); // npm was killed hard
  }, 1000);
  return await new Promise((resolve) => {
    child.on('error', (error) => {
      clearInterval(watch);
      process.stderr.write(`${error.message}\n`);
      resolve(127);
    });
    child.on('close', (code) => {
      clearInterval(watch);
      resolve(code ?? 1);
    });
  });
}

/** @param {string} verb @param {string[]} args @returns {Promise<number>} exit code */
async function dispatch(verb, args) {
  switch (verb) {
    case 'setup':
      await setup();
      say('All packages are there.');
      return 0;
    case 'build':
      await setupAndBuild(/** @type {import('./native.mjs').Preset} */ (args[0] ?? 'dev'));
      return 0;
    case 'start':
      if (!args.includes('--help') && !args.includes('-h')) await setupAndBuild('dev', ['product']);
      else await setupForHelp();
      return await handOver('tools/dist/src/start/main.js', args);
    case 'unit': {
      await setupAndBuild();
      return report(await unit(args[0]));
    }
    case 'lint':
      await setup();
      return report(await lint({ compile: !args.includes('--quick') }));
    case 'format':
      return await format(args);
    case 'test':
      return await test(args);
    case 'fuzz':
      return report(await fuzz(args));
    case 'sim':
      await setupAndBuild();
      return await handOver('sim/dist/src/main.js', args);
    case 'e2e':
      await setupAndBuild();
      await fetchGuestKernel();
      return await handOver('test/dist/src/e2e.js', args);
    case 'soak':
      await setupAndBuild();
      return await handOver('test/dist/src/e2e.js', args.includes('--hours') ? ['--soak', ...args] : ['kill-osd-loop', ...args]);
    case 'bench':
      await setupAndBuild('dev', ['product', 'store_bench', 'store_load_bench', 'ec_bench']);
      return await handOver('test/dist/src/bench.js', args);
    case 'package':
      throw new Stop('Packages are not written yet: packaging/ comes with a later issue.');
    default:
      say(HELP);
      return verb === '' || verb === 'help' || verb === '--help' ? 0 : 1;
  }
}

/** Help must not install or build more than it has to: it is printed from the compiled program. */
async function setupForHelp() {
  if (!existsSync(join(root, 'tools', 'dist', 'src', 'start', 'main.js'))) await setupAndBuild('dev', ['product']);
}

/** @param {import('./unit.mjs').Count} count */
function report(count) {
  say(`${count.passed} passed, ${count.failed} failed`);
  return count.failed > 0 ? 1 : 0;
}

process.env['VITASTOR_BUILD_DIR'] ??= buildDir('dev');
const [verb = '', ...args] = process.argv.slice(2);
try {
  process.exitCode = await dispatch(verb, args);
} catch (error) {
  if (!(error instanceof Stop)) throw error;
  process.stderr.write(`${red('Stopped:')} ${error.message}\n`);
  process.exitCode = 1;
}
