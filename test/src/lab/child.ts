// SPDX-License-Identifier: GPL-2.0-or-later
// One process under test. Promises: its output is kept (a log file and the last lines in memory), an
// unexpected end is noticed, and it never outlives this process, however that ends: it has its own
// process group, which is killed when Node exits, and the kernel kills it when Node itself is killed.

import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, closeSync, constants, openSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';

const LAST_LINES = 400;
const CAPTURE_CHARS = 64 << 20;

/** Process groups that are alive, for the last moment of this process. */
const groups = new Set<number>();
process.on('exit', () => {
  for (const group of groups) {
    try {
      process.kill(-group, 'SIGKILL');
    } catch {
      // It has just ended.
    }
  }
});

const SETPRIV = ['/usr/bin/setpriv', '/bin/setpriv'].find((path) => {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
});

export interface ChildOptions {
  /** For messages and the log file, such as `osd.1`. */
  name: string;
  argv: readonly string[];
  logFile: string;
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** Called for every line of its output. */
  onLine?: (line: string) => void;
  /** Keep the whole of stdout and stderr (up to 64 MiB each) for stdout() and stderr(). */
  capture?: boolean;
  /** Its standard input is a pipe: `write()`. Default: nothing to read. */
  stdin?: boolean;
  /** Called when it ends without stop(), kill9() or expectExit(). */
  onDeath?: (child: Child) => void;
}

/** How a process ended. */
export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export class Child {
  readonly name: string;
  readonly argv: readonly string[];
  readonly logFile: string;
  /** Resolves when the process has ended and all of its output was read. */
  readonly exited: Promise<Exit>;
  #process: ChildProcess;
  #exit: Exit | null = null;
  #expected = false;
  #lines: string[] = [];
  #listeners = new Set<(line: string) => void>();
  #captured = { stdout: '', stderr: '' };

  constructor(options: ChildOptions) {
    this.name = options.name;
    this.argv = options.argv;
    this.logFile = options.logFile;
    const argv = SETPRIV ? [SETPRIV, '--pdeathsig', 'KILL', '--', ...options.argv] : options.argv;
    const [command = '', ...args] = argv;
    const log = openSync(options.logFile, 'a');
    this.#process = spawn(command, args, {
      stdio: [options.stdin === true ? 'pipe' : 'ignore', 'pipe', 'pipe'],
      detached: true,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.env === undefined ? {} : { env: options.env }),
    });
    this.#process.stdin?.on('error', () => undefined); // it has ended
    const group = this.#process.pid;
    if (group !== undefined) groups.add(group);
    if (options.onLine) this.#listeners.add(options.onLine);
    const take = (line: string): void => {
      writeSync(log, `${line}\n`);
      this.#lines.push(line);
      if (this.#lines.length > LAST_LINES) this.#lines.shift();
      for (const listener of this.#listeners) listener(line);
    };
    for (const name of ['stdout', 'stderr'] as const) {
      const stream = this.#process[name];
      if (!stream) continue;
      createInterface({ input: stream }).on('line', take);
      if (options.capture === true) {
        stream.on('data', (chunk: Buffer | string) => {
          if (this.#captured[name].length < CAPTURE_CHARS) this.#captured[name] += chunk.toString();
        });
      }
    }
    this.exited = new Promise((resolve) => {
      const end = (exit: Exit): void => {
        if (this.#exit) return;
        this.#exit = exit;
        if (group !== undefined) groups.delete(group);
        closeSync(log);
        resolve(exit);
        if (!this.#expected) options.onDeath?.(this);
      };
      this.#process.on('error', (error) => {
        take(`could not be started: ${error.message}`);
        end({ code: 127, signal: null });
      });
      // 'close' comes after the streams have ended; readline delivers its last line a moment later.
      this.#process.on('close', (code, signal) => setImmediate(() => end({ code, signal })));
    });
  }

  /** Into its standard input; what it does not take any more is lost. */
  write(text: string): void {
    this.#process.stdin?.write(text, () => undefined);
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** null while it runs. */
  get exit(): Exit | null {
    return this.#exit;
  }

  /** The last lines of its output, oldest first. */
  lastLines(count = 15): string[] {
    return this.#lines.slice(-count);
  }

  /** All of it; empty without `capture`. */
  get stdout(): string {
    return this.#captured.stdout;
  }

  get stderr(): string {
    return this.#captured.stderr;
  }

  /** Somebody called stop(), kill9() or expectExit(). */
  get unwanted(): boolean {
    return this.#expected;
  }

  /** From now on its end is no surprise. */
  expectExit(): void {
    this.#expected = true;
  }

  /** Resolves with the first line, past or future, that matches. Rejects when the process ends or the time is up. */
  async waitForLine(pattern: RegExp, timeoutMs: number): Promise<string> {
    const seen = this.#lines.find((line) => pattern.test(line));
    if (seen !== undefined) return seen;
    return await new Promise<string>((resolve, reject) => {
      const finish = (work: () => void): void => {
        clearTimeout(timer);
        this.#listeners.delete(listener);
        work();
      };
      const listener = (line: string): void => {
        if (pattern.test(line)) finish(() => resolve(line));
      };
      const timer = setTimeout(
        () => finish(() => reject(new Error(`${this.name} did not print ${String(pattern)} within ${timeoutMs} ms; ${this.story()}`))),
        timeoutMs,
      );
      this.#listeners.add(listener);
      void this.exited.then(() =>
        finish(() => reject(new Error(`${this.name} ended before it printed ${String(pattern)}; ${this.story()}`))),
      );
    });
  }

  /** To the process alone. A process that has ended is left alone. */
  signal(signal: NodeJS.Signals): void {
    if (!this.#exit) this.#process.kill(signal);
  }

  /** To the process and everything that it has started. */
  signalGroup(signal: NodeJS.Signals): void {
    if (this.#exit || this.pid === 0) return;
    try {
      process.kill(-this.pid, signal);
    } catch {
      this.signal(signal);
    }
  }

  /** SIGTERM, and SIGKILL after the time given. Resolves when it has ended. */
  async stop(timeoutMs = 10_000): Promise<Exit> {
    this.#expected = true;
    if (this.#exit) return this.#exit;
    this.signalGroup('SIGCONT');
    this.signal('SIGTERM');
    const timer = setTimeout(() => this.#killGroup(), timeoutMs);
    const exit = await this.exited;
    clearTimeout(timer);
    return exit;
  }

  /** kill -9 on the process and all of its group. */
  async kill9(): Promise<Exit> {
    this.#expected = true;
    this.#killGroup();
    return await this.exited;
  }

  #killGroup(): void {
    this.signalGroup('SIGKILL');
  }

  /** SIGSTOP to all of it: alive for the kernel, silent for everybody else. */
  pause(): void {
    this.signalGroup('SIGSTOP');
  }

  resume(): void {
    this.signalGroup('SIGCONT');
  }

  /** What happened to it, and its last words, for error messages. */
  story(lastLines = 15): string {
    const state = this.#exit
      ? `${this.name} ended with ${this.#exit.signal ?? `exit code ${String(this.#exit.code)}`}`
      : `${this.name} runs as process ${this.pid}`;
    const last = this.lastLines(lastLines).map((line) => `    ${line.length > 300 ? `${line.slice(0, 300)}…` : line}`);
    return `${state}; log ${this.logFile}${last.length > 0 ? `\n${last.join('\n')}` : ' (nothing printed)'}`;
  }
}
