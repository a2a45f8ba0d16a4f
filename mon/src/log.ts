// SPDX-License-Identifier: GPL-2.0-or-later
// What the monitor logs through; life: pino, tests: a list.

export interface Log {
  info(text: string): void;
  warn(text: string): void;
  error(text: string): void;
}

export const SILENT_LOG: Log = {
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};
