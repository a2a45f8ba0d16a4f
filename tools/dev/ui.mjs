// SPDX-License-Identifier: GPL-2.0-or-later
// What the dev tool says and runs: lines for people, child processes, one progress line, temp files.
// Plain JavaScript: this must run before anything is installed or built.

import { spawn, spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root directory. */
export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

const colour = process.stdout.isTTY === true && !process.env['NO_COLOR'];
/** @param {string} text */
export const bold = (text) => (colour ? `\x1b[1m${text}\x1b[0m` : text);
/** @param {string} text */
export const red = (text) => (colour ? `\x1b[31m${text}\x1b[0m` : text);

/** A failure that is explained already: printed without a stack, exit code 1. */
export class Stop extends Error {}

/** @param {string} text */
export function say(text) {
  process.stdout.write(`${text}\n`);
}

/** Seconds since `startMs` with one decimal, such as `12.3 s`. @param {number} startMs */
export function since(startMs) {
  return `${((performance.now() - startMs) / 1000).toFixed(1)} s`;
}

/** A shell-quoted command line for people to copy. @param {readonly string[]} argv */
export function quote(argv) {
  return argv.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(' ');
}

/** One line that is rewritten on a terminal, and printed now and then where there is none. */
export class Progress {
  #label;
  #lastMs = 0;
  #open = false;

  /** @param {string} label */
  constructor(label) {
    this.#label = label;
  }

  /** @param {string} text */
  update(text) {
    if (process.stdout.isTTY) {
      const width = (process.stdout.columns ?? 80) - 1;
      process.stdout.write(`\r\x1b[K${`${this.#label} ${text}`.slice(0, width)}`);
      this.#open = true;
    } else if (performance.now() - this.#lastMs > 10_000) {
      this.#lastMs = performance.now();
      say(`${this.#label} ${text}`);
    }
  }

  /** @param {string} [text] the line that stays */
  end(text) {
    if (this.#open) process.stdout.write('\r\x1b[K');
    this.#open = false;
    if (text) say(`${this.#label} ${text}`);
  }
}

/**
 * @typedef {object} RunOptions
 * @property {string} [cwd]
 * @property {NodeJS.ProcessEnv} [env] replaces the environment
 * @property {boolean} [quiet] output is collected only, not shown
 * @property {number} [timeoutMs]
 * @property {(line: string) => void} [onLine] each line of stdout and stderr
 */

/**
 * Runs a command to its end. Never throws for a failing command.
 * @param {readonly string[]} argv
 * @param {RunOptions} [options]
 * @returns {Promise<{ code: number, output: string }>} code 127: could not be started; output: stdout and stderr
 */
export function run(argv, options = {}) {
  return new Promise((resolve) => {
    const [command = '', ...args] = argv;
    const collect = options.quiet === true || options.onLine !== undefined;
    const child = spawn(command, args, {
      cwd: options.cwd ?? root,
      env: options.env ?? process.env,
      stdio: collect ? ['ignore', 'pipe', 'pipe'] : 'inherit',
      ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs, killSignal: 'SIGKILL' }),
    });
    let output = '';
    let rest = '';
    /** @param {Buffer} chunk */
    const take = (chunk) => {
      const text = chunk.toString();
      output += text;
      if (!options.onLine) return;
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) options.onLine(line);
    };
    child.stdout?.on('data', take);
    child.stderr?.on('data', take);
    child.on('error', (error) => resolve({ code: 127, output: `${output}${error.message}\n` }));
    child.on('close', (code, signal) => {
      if (rest && options.onLine) options.onLine(rest);
      if (signal) output += `ended by ${signal}\n`;
      resolve({ code: code ?? 1, output });
    });
  });
}

/** stdout of a short command, or '' when it fails. @param {readonly string[]} argv */
export function ask(argv) {
  const [command = '', ...args] = argv;
  const result = spawnSync(command, args, { cwd: root, encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } });
  return result.status === 0 ? result.stdout : '';
}

/** The path of a program, or ''. @param {string} name */
export function which(name) {
  return ask(['sh', '-c', `command -v ${name}`]).trim();
}

/** @param {readonly string[]} argv @param {RunOptions} [options] */
export async function mustRun(argv, options = {}) {
  const result = await run(argv, options);
  if (result.code !== 0) {
    if (options.quiet || options.onLine) process.stderr.write(result.output);
    throw new Stop(`This command failed with exit code ${result.code}:\n  ${quote(argv)}`);
  }
  return result.output;
}
