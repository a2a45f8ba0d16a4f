// SPDX-License-Identifier: GPL-2.0-or-later
// The one error class of the TypeScript side, all its codes, and what each means to a shell.

import { getSystemErrorMap } from 'node:util';

/** Every code that some caller acts on. Numbers are the positive errno that the command-line tools exit with. */
export const EXIT_CODES = {
  /** Bad or missing argument, unknown command. */
  ERR_INVALID_ARGUMENT: 22,
  /** A value in etcd or in a file that does not decode; `data.key` and `data.path` name it. */
  ERR_BAD_VALUE: 22,
  /** The configuration file cannot be used. */
  ERR_CONFIG_FILE: 22,
  /** Image, pool, layer or OSD does not exist. */
  ERR_NOT_FOUND: 2,
  /** The name is taken. */
  ERR_EXISTS: 17,
  /** Data could not be (fully) read, written or removed. */
  ERR_IO: 5,
  /** etcd gave no answer in time: the outcome of a transaction is unknown. */
  ERR_ETCD_UNAVAILABLE: 5,
  /** etcd refused a request: our bug, or a limit of the server. */
  ERR_ETCD_REQUEST: 5,
  /** Changed concurrently: repeat. */
  ERR_CONFLICT: 11,
  /** Refused because it is in use. */
  ERR_BUSY: 16,
  /** The pool has images. */
  ERR_NOT_EMPTY: 39,
  /** The parents of an image form a loop. */
  ERR_PARENT_LOOP: 9,
  /** This build or this cluster cannot do it. */
  ERR_UNSUPPORTED: 95,
  /** Our lease is gone: stop acting. */
  ERR_LEASE_LOST: 1,
  /** The caller closed or aborted it. */
  ERR_ABORTED: 125,
} as const;

export type ErrorCode = keyof typeof EXIT_CODES;

export interface VitastorErrorOptions {
  /** True: the same call may succeed later. */
  retryable?: boolean;
  cause?: unknown;
  /** Whatever helps a program: key, path, address, name. */
  data?: Readonly<Record<string, unknown>>;
}

/** What every function of ours rejects with when the world (not our code) is at fault. */
export class VitastorError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly data: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: VitastorErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'VitastorError';
    this.code = code;
    this.retryable = options.retryable ?? false;
    this.data = options.data ?? {};
  }

  /** Positive errno for the exit code of a tool. */
  get exitCode(): number {
    return EXIT_CODES[this.code];
  }
}

export function isVitastorError(error: unknown, code?: ErrorCode): error is VitastorError {
  return error instanceof VitastorError && (code === undefined || error.code === code);
}

/** A positive errno as people know it: "ENOENT (no such file or directory)". */
export function errnoText(errno: number): string {
  const [name, text] = getSystemErrorMap().get(-errno) ?? [`error ${String(errno)}`, 'unknown'];
  return `${name} (${text})`;
}

/** The text of whatever was thrown. */
export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
