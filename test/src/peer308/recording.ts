// SPDX-License-Identifier: GPL-2.0-or-later
// Recorded sessions of Vitastor 3.0.8. They are not part of the repository: VITASTOR_FIXTURES names their folder, by default
// ../shared/fixtures/vitastor-3.0.8 beside it. Format: the README.md there.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Kind, Message } from './wire.js';

export interface RecordedMessage {
  readonly timeMs: number;
  readonly connection: number;
  readonly kind: Kind;
  readonly from: string;
  readonly to: string;
  readonly op: string;
  readonly message: Message;
  /** Bytes after the header. */
  readonly payloadLength: number;
  /** The first 64 bytes at least; the whole if it is at most 512 bytes long. */
  readonly payloadStart: Buffer;
}

/** The repository's root, from the compiled place of this file. */
function repository(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package-lock.json')) && folder !== dirname(folder)) folder = dirname(folder);
  return folder;
}

export function goldenPath(): string {
  return join(repository(), 'test/fixtures/wire/golden.json');
}

/** Undefined where the recordings are missing. */
export function recordingsFolder(): string | undefined {
  const folder = process.env['VITASTOR_FIXTURES'] ?? join(repository(), '../shared/fixtures/vitastor-3.0.8');
  return existsSync(join(folder, 'wire-connections.jsonl')) ? folder : undefined;
}

export function sessionNames(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => /^wire-.*\.jsonl$/.test(name) && name !== 'wire-connections.jsonl')
    .map((name) => name.slice('wire-'.length, -'.jsonl'.length))
    .sort();
}

export function readSession(folder: string, name: string): RecordedMessage[] {
  return readFileSync(join(folder, `wire-${name}.jsonl`), 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const raw = JSON.parse(line) as Record<string, unknown>;
      const kind: Kind = raw['dir'] === 'reply' ? 'reply' : 'request';
      const payloadStart = Buffer.from(String(raw['payload_hex'] ?? ''), 'hex');
      return {
        timeMs: Number(raw['t_ms']),
        connection: Number(raw['conn']),
        kind,
        from: String(raw['from']),
        to: String(raw['to']),
        op: String(raw['op']),
        message: new Message(kind, Buffer.from(String(raw['header_hex']), 'hex'), payloadStart),
        payloadLength: Number(raw['payload_len']),
        payloadStart,
      };
    });
}
