// SPDX-License-Identifier: GPL-2.0-or-later
// What the scripted peer holds against the other side. A test ends with journal.expectClean(), or names what it provoked.

import { strict as assert } from 'node:assert';

export interface Violation {
  /** Who complains: "osd 2", "client". */
  readonly by: string;
  readonly what: string;
  /** Number in wire-protocol 14, if it is one of those. */
  readonly hazard?: number;
}

export class Journal {
  readonly violations: Violation[] = [];
  /** Connections that a peer closed or lost, and other turns of events, in order. For messages of failing tests. */
  readonly events: string[] = [];

  violation(by: string, what: string, hazard?: number): void {
    this.violations.push(hazard === undefined ? { by, what } : { by, what, hazard });
    this.event(by, `VIOLATION ${what}`);
  }

  event(by: string, what: string): void {
    this.events.push(`${by}: ${what}`);
  }

  /** Fails the test, naming every violation. */
  expectClean(): void {
    assert.deepEqual(
      this.violations.map((v) => `${v.by}: ${v.what}`),
      [],
    );
  }

  /** Takes the violations out; for tests that provoke them. */
  take(): Violation[] {
    return this.violations.splice(0);
  }
}
