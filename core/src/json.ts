// SPDX-License-Identifier: GPL-2.0-or-later
// JSON with exact integers: those beyond 2^53 become bigint, and bigint is written as a bare number.

import { VitastorError } from './errors.js';

export type JsonValue = null | boolean | number | bigint | string | JsonValue[] | JsonObject;
export interface JsonObject {
  [name: string]: JsonValue;
}

/** Nesting beyond this is refused: no document of ours comes near it, and recursion stays bounded. */
const DEPTH_MAX = 64;

export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Parses `text`. Throws VitastorError ERR_BAD_VALUE whose message and data (line, column) say where it broke. */
export function parseJson(text: string): JsonValue {
  // 2^53 has 16 digits: without such a run before a point (and without an exponent that leaves the range of numbers) the
  // engine's own parser is exact, and ten times as quick.
  if (!/(?:^|[^.\d])\d{16}|[eE]\+?\d{3}/.test(text)) {
    try {
      return JSON.parse(text) as JsonValue;
    } catch {
      // Ours says line and column, in the same words on every Node.js.
    }
  }
  return new Parser(text).document();
}

/** Like JSON.stringify without spaces (or with `indent`), and bigint as a bare integer. Keys keep their order. */
export function stringifyJson(value: JsonValue, indent = 0): string {
  return write(value, indent, '');
}

function write(value: JsonValue, indent: number, margin: string): string {
  if (typeof value === 'bigint') return value.toString();
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  if (!indent) return dense(value);
  const inner = `${margin}${' '.repeat(indent)}`;
  const parts = Array.isArray(value)
    ? value.map((item) => write(item, indent, inner))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${write(item, indent, inner)}`);
  const [open, close] = Array.isArray(value) ? ['[', ']'] : ['{', '}'];
  if (parts.length === 0) return `${open}${close}`;
  return `${open}\n${inner}${parts.join(`,\n${inner}`)}\n${margin}${close}`;
}

/** Without spaces: most of what goes to etcd. */
function dense(value: JsonValue[] | JsonObject): string {
  let text = '';
  if (Array.isArray(value)) {
    for (const item of value) text += text === '' ? write(item, 0, '') : `,${write(item, 0, '')}`;
    return `[${text}]`;
  }
  for (const name of Object.keys(value)) {
    const item = value[name];
    if (item !== undefined) text += `${text === '' ? '' : ','}${JSON.stringify(name)}:${write(item, 0, '')}`;
  }
  return `{${text}}`;
}

const NUMBER = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const PLAIN_STRING = /"[^"\\\u0000-\u001f]*"/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const WORDS = [['true', true], ['false', false], ['null', null]] as const;
const SPACE = /[ \t\r\n]*/y;

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(): JsonValue {
    const value = this.#value(0);
    this.#space();
    if (this.#at < this.#text.length) throw this.#error('unexpected text after the end of the value');
    return value;
  }

  #value(depth: number): JsonValue {
    if (depth > DEPTH_MAX) throw this.#error(`nested deeper than ${DEPTH_MAX} levels`);
    this.#space();
    const c = this.#text[this.#at];
    if (c === '{') return this.#object(depth);
    if (c === '[') return this.#array(depth);
    if (c === '"') return this.#string();
    for (const [word, value] of WORDS) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    }
    return this.#number();
  }

  #object(depth: number): JsonObject {
    const result: JsonObject = {};
    this.#at++;
    this.#space();
    if (this.#take('}')) return result;
    for (;;) {
      this.#space();
      if (this.#text[this.#at] !== '"') throw this.#error('expected a name in double quotes');
      const name = this.#string();
      this.#space();
      if (!this.#take(':')) throw this.#error('expected ":" after a name');
      const value = this.#value(depth + 1);
      if (name !== '__proto__') result[name] = value;
      else Object.defineProperty(result, name, { value, enumerable: true, writable: true, configurable: true });
      this.#space();
      if (this.#take('}')) return result;
      if (!this.#take(',')) throw this.#error('expected "," or "}"');
    }
  }

  #array(depth: number): JsonValue[] {
    const result: JsonValue[] = [];
    this.#at++;
    this.#space();
    if (this.#take(']')) return result;
    for (;;) {
      result.push(this.#value(depth + 1));
      this.#space();
      if (this.#take(']')) return result;
      if (!this.#take(',')) throw this.#error('expected "," or "]"');
    }
  }

  #string(): string {
    PLAIN_STRING.lastIndex = this.#at;
    if (PLAIN_STRING.test(this.#text)) {
      const from = this.#at + 1;
      this.#at = PLAIN_STRING.lastIndex;
      return this.#text.slice(from, this.#at - 1);
    }
    STRING.lastIndex = this.#at;
    const found = STRING.exec(this.#text);
    if (!found) throw this.#error('broken string');
    this.#at = STRING.lastIndex;
    return JSON.parse(found[0]) as string;
  }

  #number(): number | bigint {
    NUMBER.lastIndex = this.#at;
    const found = NUMBER.exec(this.#text);
    if (!found) throw this.#error(this.#at >= this.#text.length ? 'the text ends too early' : 'expected a value');
    this.#at = NUMBER.lastIndex;
    const value = Number(found[0]);
    if (!Number.isFinite(value)) throw this.#error('the number is too large');
    const whole = found[1] === undefined && found[2] === undefined;
    return whole && !Number.isSafeInteger(value) ? BigInt(found[0]) : value;
  }

  #take(c: string): boolean {
    if (this.#text[this.#at] !== c) return false;
    this.#at++;
    return true;
  }

  #space(): void {
    if (this.#text.charCodeAt(this.#at) > 0x20) return;
    SPACE.lastIndex = this.#at;
    SPACE.exec(this.#text);
    this.#at = SPACE.lastIndex;
  }

  #error(reason: string): VitastorError {
    const before = this.#text.slice(0, this.#at).split('\n');
    const line = before.length;
    const column = (before[before.length - 1] ?? '').length + 1;
    return new VitastorError('ERR_BAD_VALUE', `not valid JSON at line ${line}, column ${column}: ${reason}`, {
      data: { line, column, reason },
    });
  }
}
