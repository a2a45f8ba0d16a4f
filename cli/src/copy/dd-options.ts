// SPDX-License-Identifier: GPL-2.0-or-later
// The words of dd: key=value, or --key value. Source: tools 2.11.

import { requireSize, VitastorError } from '@vitastor/core';
import { wholeNumber } from '../list-flags.js';
import { didYouMean } from '../suggest.js';

export const DD_KEYS = [
  'if', 'iimg', 'of', 'oimg', 'bs', 'count', 'skip', 'iseek', 'seek', 'oseek', 'iodepth', 'status', 'size', 'conv', 'iflag', 'oflag', 'pool',
] as const;
export type DdKey = (typeof DD_KEYS)[number];

const STATUSES = ['none', 'noxfer', 'progress'] as const;
const CONVERSIONS = ['nocreat', 'trunc', 'noerror', 'nofsync', 'nosparse'] as const;
/** Blocks under way are held in memory. */
const MAX_MEMORY_BYTES = 1n << 30n;

export type Place = { kind: 'file'; path: string } | { kind: 'image'; name: string } | { kind: 'stream' };

export interface DdOptions {
  input: Place;
  output: Place;
  blockBytes: number;
  depth: number;
  /** null: to the end of the input. */
  limit: bigint | null;
  from: bigint;
  to: bigint;
  status: '' | (typeof STATUSES)[number];
  /** Of an output that is made. */
  sizeBytes: bigint | null;
  pool: string | undefined;
  conv: ReadonlySet<(typeof CONVERSIONS)[number]>;
  inputDirect: boolean;
  outputDirect: boolean;
  append: boolean;
}

const invalid = (text: string): VitastorError => new VitastorError('ERR_INVALID_ARGUMENT', text);

/** args: the words that are no options. Throws ERR_INVALID_ARGUMENT that names the word. */
export function ddOptions(flags: Readonly<Partial<Record<DdKey, string | undefined>>>, args: readonly string[]): DdOptions {
  const given = new Map<DdKey, string>();
  for (const key of DD_KEYS) if (flags[key] !== undefined) given.set(key, flags[key]);
  for (const word of args) {
    const [, key = '', value = ''] = /^([a-z]+)=([\s\S]*)$/.exec(word) ?? [];
    const known = DD_KEYS.find((name) => name === key);
    if (known === undefined) throw invalid(`dd: "${word}" means nothing here${didYouMean(key || word, DD_KEYS)}: use key=value, such as if=FILE oimg=IMAGE`);
    given.set(known, value);
  }
  const blockBytes = requireSize('bs', given.get('bs') ?? '1M');
  const depth = wholeNumber('iodepth', given.get('iodepth') ?? '4', 1);
  if (blockBytes === 0n) throw invalid('bs: blocks have at least one byte');
  if (blockBytes * BigInt(depth) > MAX_MEMORY_BYTES) throw invalid('bs × iodepth is held in memory, and more than 1G');
  const size = given.get('size');
  const count = given.get('count');
  const conv = list('conv', given.get('conv'), CONVERSIONS);
  const outputFlags = list('oflag', given.get('oflag'), ['direct', 'append'] as const);
  const status = given.get('status') ?? '';
  const options: DdOptions = {
    input: place('input', 'if', given.get('if'), 'iimg', given.get('iimg')),
    output: place('output', 'of', given.get('of'), 'oimg', given.get('oimg')),
    blockBytes: Number(blockBytes),
    depth,
    limit: count === undefined ? null : blocks('count', count, blockBytes),
    from: blocks('skip', either(given, 'skip', 'iseek') ?? '0', blockBytes),
    to: blocks('seek', either(given, 'seek', 'oseek') ?? '0', blockBytes),
    status: status === '' ? '' : one('status', status, STATUSES),
    sizeBytes: size === undefined ? null : requireSize('size', size),
    pool: given.get('pool'),
    conv,
    inputDirect: list('iflag', given.get('iflag'), ['direct'] as const).has('direct'),
    outputDirect: outputFlags.has('direct'),
    append: outputFlags.has('append'),
  };
  refuseNonsense(options, given);
  return options;
}

function refuseNonsense({ input, output, append, conv, to, inputDirect, outputDirect }: DdOptions, given: ReadonlyMap<DdKey, string>): void {
  const creates = !conv.has('nocreat');
  if (output.kind !== 'file' && append) throw invalid('oflag=append is for files (of=FILE)');
  if (output.kind !== 'file' && conv.has('trunc')) throw invalid('conv=trunc is for files (of=FILE); an image is resized by vitastor-cli modify --resize');
  if (append && to > 0n) throw invalid('oflag=append writes at the end: seek makes no sense with it');
  if (append && conv.has('trunc')) throw invalid('oflag=append writes at the end, conv=trunc cuts it off');
  if (append && outputDirect) throw invalid('oflag=append and oflag=direct exclude each other: the end of a file need not be aligned');
  if (output.kind === 'stream' && to > 0n) throw invalid('seek makes no sense on standard output: give of=FILE or oimg=IMAGE');
  if (output.kind !== 'image' && given.has('pool')) throw invalid('--pool is for images that are made (oimg=IMAGE)');
  if (given.has('size') && (output.kind === 'stream' || !creates)) throw invalid('size is for an output that is made: it needs of=FILE or oimg=IMAGE, without conv=nocreat');
  if (input.kind === 'stream' && inputDirect) throw invalid('iflag=direct is for files (if=FILE)');
  if (output.kind === 'stream' && outputDirect) throw invalid('oflag=direct is for files (of=FILE)');
}

function place(what: string, fileKey: string, path: string | undefined, imageKey: string, image: string | undefined): Place {
  if (path !== undefined && image !== undefined) throw invalid(`${fileKey} and ${imageKey} exclude each other: there is one ${what}`);
  if (path === '') throw invalid(`${fileKey}: the name of the file is missing`);
  if (image === '') throw invalid(`${imageKey}: the name of the image is missing`);
  if (path !== undefined) return { kind: 'file', path };
  return image === undefined ? { kind: 'stream' } : { kind: 'image', name: image };
}

function either(given: ReadonlyMap<DdKey, string>, key: DdKey, other: DdKey): string | undefined {
  if (given.has(key) && given.has(other)) throw invalid(`${key} and ${other} are the same: give one of them`);
  return given.get(key) ?? given.get(other);
}

/** Blocks, or bytes with the suffix B. */
function blocks(key: string, text: string, blockBytes: bigint): bigint {
  const bytes = /^(\d+[kmgt]?)B$/i.exec(text);
  const number = requireSize(key, bytes?.[1] ?? text) * (bytes ? 1n : blockBytes);
  if (number >= 1n << 63n) throw invalid(`${key}: "${text}" is beyond every disk`);
  return number;
}

function one<T extends string>(key: string, word: string, known: readonly T[]): T {
  const found = known.find((name) => name === word);
  if (found === undefined) throw invalid(`${key}: "${word}" is none of ${known.join(', ')}${didYouMean(word, known)}`);
  return found;
}

function list<T extends string>(key: string, text: string | undefined, known: readonly T[]): Set<T> {
  return new Set((text ?? '').split(',').filter((word) => word !== '').map((word) => one(key, word, known)));
}
