// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { open } from 'node:fs/promises';
import { formatFraction, formatSize, requireSize, StreamDecoder, VitastorError, type JsonObject, type StreamHeader } from '@vitastor/core';
import { importRaw, importStream, type ImportOptions } from '../backup/import.js';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { chunksOf, openFileSource, StreamSource, tried } from '../copy/files.js';
import { flag, wholeNumber, words } from '../list-flags.js';
import { Pace, ProgressLine } from '../progress.js';

const DEPTH = 32;
const MAX_DEPTH = 1024;
const FILE_CHUNK = 1 << 20;
const RAW_BLOCK = 1 << 20;
const invalid = (text: string): VitastorError => new VitastorError('ERR_INVALID_ARGUMENT', text);

interface Input {
  name: string;
  chunks: AsyncIterable<Buffer>;
  /** null: nobody knows. */
  bytes: bigint | null;
  close(): Promise<void>;
}

export default class Import extends VitastorCommand {
  static override strict = false;
  static override summary = 'Make an image of what export wrote, or bring one forward';
  static override description =
    'Without FILE, or with -, from standard input. A full stream makes IMAGE, and its snapshot; an increment is put onto the snapshot that it goes on from, and makes the\n' +
    'next one. A damaged or cut off stream is an error; the image is marked until the import is repeated. --format raw takes the bytes of a disk.';
  static override flags = {
    pool: string({ char: 'p', summary: 'pool (ID or name) of an image that is made', helpValue: 'POOL' }),
    format: string({ summary: 'stream (default) or raw', helpValue: 'FORMAT' }),
    size: string({ char: 's', summary: 'raw: size of an image that is made (default: that of the file)', helpValue: 'SIZE' }),
    iodepth: string({ summary: `writes under way at once (default ${DEPTH})`, helpValue: 'N' }),
    force: flag({ char: 'f', summary: 'write over an image that exists; put an increment onto something else than it was made for' }),
    'dry-run': flag({ summary: 'read and check the stream, change nothing' }),
  };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(Import);
    const given = words(argv);
    const dryRun = flags['dry-run'];
    const [image = '', path = '-', ...rest] = dryRun ? ['', ...given.slice(0, 1), ...given.slice(2)] : given.length > 1 ? [given[1], given[0], ...given.slice(2)] : given;
    const format = flags.format ?? 'stream';
    if (image === '' && !dryRun) throw invalid('Image name is missing: import [FILE|-] IMAGE');
    if (rest.length) throw invalid(`import takes a file and an image; "${rest[0]}" is one more word`);
    if (format !== 'stream' && format !== 'raw') throw invalid(`--format: "${format}" is neither stream nor raw`);
    if (format === 'raw' && dryRun) throw invalid('--dry-run checks streams: raw bytes have no checksums');
    if (format === 'stream' && flags.size !== undefined) throw invalid('--size is for --format raw: a stream knows its size');
    const depth = wholeNumber('--iodepth', flags.iodepth ?? String(DEPTH), 1);
    if (depth > MAX_DEPTH) throw invalid(`--iodepth: at most ${MAX_DEPTH}`);
    const options = { image, pool: flags.pool, force: flags.force, depth };
    return format === 'raw' ? this.#raw(path, options, flags.size === undefined ? null : requireSize('--size', flags.size)) : this.#stream(path, options, dryRun);
  }

  async #stream(path: string, options: Omit<ImportOptions, 'onProgress'>, dryRun: boolean): Promise<Outcome> {
    const { session } = this;
    const { environment } = session;
    const input = await this.#open(path);
    const abort = (): void => void input.close();
    environment.signal.addEventListener('abort', abort, { once: true });
    const pace = new Pace(environment.clock);
    const line = new ProgressLine(session, pace);
    const decoder = new StreamDecoder(input.chunks);
    let flow: Pace | null = null; // From the first bytes on: what is made ready before says nothing of the rate.
    const show = (written: bigint): void => {
      const since = flow ??= new Pace(environment.clock);
      line.show(() => `${dryRun ? 'Checked' : 'Imported'} ${formatSize(written)}${since.text(written, formatSize, BigInt(decoder.position), input.bytes)}`);
    };
    try {
      const header = await decoder.header();
      if (dryRun) return await this.#check(decoder, header, input.name, show);
      const { totals, snapshot, wasThere } = await importStream(session, decoder, header, { ...options, onProgress: show });
      const seconds = pace.elapsedMs / 1000;
      const json: JsonObject = {
        image: options.image, snapshot: snapshot ?? '', from: header.from?.name ?? '', size: header.sizeBytes, data_bytes: totals.dataBytes, zero_bytes: totals.zeroBytes,
        was_there: wasThere, seconds,
      };
      if (wasThere) return { json, text: `${snapshot} is there already` };
      return { json, text: `${snapshot ?? options.image} imported: ${formatSize(totals.dataBytes)} of data in ${formatFraction(seconds)} s` };
    } catch (error) {
      if (environment.signal.aborted && !(error instanceof VitastorError && error.code === 'ERR_ABORTED')) throw new VitastorError('ERR_ABORTED', 'interrupted');
      throw error;
    } finally {
      session.endProgress();
      environment.signal.removeEventListener('abort', abort);
      await input.close();
    }
  }

  async #check(decoder: StreamDecoder, header: StreamHeader, name: string, show: (bytes: bigint) => void): Promise<Outcome> {
    const records = decoder.records();
    let bytes = 0n;
    for (;;) {
      const next = await records.next();
      if (next.done === true) {
        const { dataBytes, zeroBytes } = next.value;
        const what = `${header.to?.name ?? header.image}${header.from ? ` since ${header.from.name}` : ''}`;
        return {
          json: { image: header.image, snapshot: header.to?.name ?? '', from: header.from?.name ?? '', size: header.sizeBytes, data_bytes: dataBytes, zero_bytes: zeroBytes },
          text: `${name} is whole: ${what}, ${formatSize(header.sizeBytes)}, ${formatSize(dataBytes)} of data`,
        };
      }
      bytes += next.value.type === 'data' ? BigInt(next.value.data.length) : next.value.length;
      show(bytes);
    }
  }

  async #open(path: string): Promise<Input> {
    const { environment } = this.session;
    if (path === '-') {
      const stdin = environment.stdin();
      return { name: 'standard input', chunks: stdin, bytes: null, close: async () => stdin.destroy() };
    }
    return tried(`cannot open ${path}`, async () => {
      const file = await open(path, 'r');
      const stats = await file.stat();
      let closed: Promise<void> | null = null;
      const close = (): Promise<void> => { closed ??= file.close(); return closed; };
      return { name: path, chunks: chunksOf(file, FILE_CHUNK), bytes: stats.isFile() ? BigInt(stats.size) : null, close };
    });
  }

  async #raw(path: string, options: Omit<ImportOptions, 'onProgress'>, size: bigint | null): Promise<Outcome> {
    const { session } = this;
    const { environment } = session;
    const stdin = path === '-' ? environment.stdin() : null;
    const source = stdin ? new StreamSource('standard input', stdin, () => stdin.destroy()) : await openFileSource(path, false);
    const pace = new Pace(environment.clock);
    const line = new ProgressLine(session, pace);
    try {
      const bytes = size ?? source.sizeBytes;
      if (bytes === null) throw invalid('the size of what comes through a pipe is not known before its end: give --size SIZE');
      if (source.sizeBytes !== null && source.sizeBytes > bytes) throw invalid(`--size: ${path} has ${source.sizeBytes} bytes`);
      if (bytes % 4096n !== 0n) throw invalid(`an image has a multiple of 4096 bytes, and ${source.name} has ${bytes}: give --size SIZE, and pad the input`);
      let flow: Pace | null = null;
      const { bytes: copied } = await importRaw(session, source, bytes, {
        ...options, blockBytes: RAW_BLOCK,
        onProgress: (done) => {
          const since = flow ??= new Pace(environment.clock);
          line.show(() => `Imported ${formatSize(done)}${since.text(done, formatSize, done, source.sizeBytes)}`);
        },
      });
      const seconds = pace.elapsedMs / 1000;
      return {
        json: { image: options.image, snapshot: '', from: '', size: bytes, data_bytes: copied, zero_bytes: 0n, was_there: false, seconds },
        text: `${options.image} imported: ${formatSize(copied)} in ${formatFraction(seconds)} s`,
      };
    } finally {
      session.endProgress();
      await source.close();
    }
  }
}
