// SPDX-License-Identifier: GPL-2.0-or-later
// What all commands share: oclif parses and documents their options; the outcome is printed in one place (run.ts).

import { Command } from '@oclif/core/command';
import type { FlagInput } from '@oclif/core/interfaces';
import type { JsonValue, VitastorError } from '@vitastor/core';
import type { Session } from './session.js';

export interface Outcome {
  /** Printed with --json. Also printed when `error` is set. */
  json?: JsonValue;
  /** Printed otherwise, '' = nothing. */
  text: string;
  /** Where the command produced data and failed nevertheless. */
  error?: VitastorError;
  /** A success that has no data: with --json {"error_code": 0, "error_text": text}. */
  plain?: boolean;
  /** All that belongs on stdout is there already; with --json, an `error` too. */
  printed?: boolean;
}

export abstract class VitastorCommand extends Command {
  static override flags: FlagInput = {};
  #session: Session | null = null;

  attach(session: Session): this {
    this.#session = session;
    return this;
  }

  get session(): Session {
    if (!this.#session) throw new Error('a command runs only through run.ts');
    return this.#session;
  }

  abstract override run(): Promise<Outcome>;
}
