// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { findPool, formatFraction, formatSize, loadNativeClient, parentChain, VitastorError, type ClusterView } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { Copier, type Copied } from '../copy/copier.js';
import { ddOptions, type DdOptions } from '../copy/dd-options.js';
import type { BlockSink, BlockSource } from '../copy/endpoints.js';
import { DIRECT_ALIGNMENT, openFileSink, openFileSource, StreamSink, StreamSource } from '../copy/files.js';
import { CommandImages, findImage, IMAGE_PATHS, requirePlaced, seemsEmpty } from '../copy/images.js';
import { createCommand, SECTOR_BYTES } from '../image-create.js';
import { words } from '../list-flags.js';
import { Pace, ProgressLine } from '../progress.js';

const key = (summary: string, helpValue: string) => string({ summary, helpValue });
const invalid = (text: string): VitastorError => new VitastorError('ERR_INVALID_ARGUMENT', text);

export default class Dd extends VitastorCommand {
  static override strict = false;
  static override summary = 'Copy between images, files and pipes';
  static override description =
    'Options are key=value or --key value. Without input or output it is standard input, standard output. An output that is missing is made; an image gets\n' +
    'the size of what is copied. Blocks of zeroes take no space in it; over an output that exists they are written only where something else is.\n' +
    'What is copied is durable at the end.';
  static override flags = {
    if: key('input file, device or pipe', 'FILE'),
    iimg: key('input image or snapshot', 'IMAGE'),
    of: key('output file, device or pipe', 'FILE'),
    oimg: key('output image', 'IMAGE'),
    bs: key('size of a block (default 1M)', 'SIZE'),
    count: string({ char: 'n', summary: 'so many blocks at most; bytes with the suffix B, such as 512kB', helpValue: 'N[B]' }),
    skip: key('blocks (bytes) of the input to leave out; also iseek', 'N[B]'),
    iseek: string({ hidden: true }),
    seek: key('blocks (bytes) of the output to leave as they are; also oseek', 'N[B]'),
    oseek: string({ hidden: true }),
    iodepth: key('blocks under way at once (default 4)', 'N'),
    status: key('none: no word; noxfer: no figures at the end; progress: figures meanwhile', 'WORD'),
    size: string({ char: 's', summary: 'size of an output that is made', helpValue: 'SIZE' }),
    conv: key('nocreat: the output must exist; trunc: cut an output file where writing begins; noerror: take what cannot be read for zeroes; nofsync; nosparse: write zeroes, too', 'LIST'),
    iflag: key('direct: around the page cache', 'direct'),
    oflag: key('direct; append: behind the end of a file', 'LIST'),
    pool: string({ char: 'p', summary: 'pool (ID or name) of an image that is made', helpValue: 'POOL' }),
  };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(Dd);
    const options = ddOptions(flags, words(argv));
    const { input, output } = options;
    if (output.kind === 'stream' && this.session.options.json)
      throw invalid('--json and the copy would both go to standard output: give of=FILE or oimg=IMAGE');
    checkSame(options);
    const clients: CommandImages[] = [];
    let [source, sink]: [BlockSource | null, BlockSink | null] = [null, null];
    try {
      if (input.kind === 'image' || output.kind === 'image') {
        const view = await this.session.load(IMAGE_PATHS);
        this.#checkImages(view, options);
      }
      source = await this.#openSource(options, clients);
      checkRange(source, options);
      sink = await this.#openSink(options, source, clients);
      return await this.#copy(options, source, sink);
    } finally {
      for (const client of clients) await client.close();
      await source?.close();
      await sink?.close();
    }
  }

  #checkImages(view: ClusterView, { input, output, pool, conv }: DdOptions): void {
    if (input.kind === 'image') requirePlaced(view, findImage(view, input.name));
    if (output.kind !== 'image') return;
    const image = view.imageByName(output.name);
    if (!image) {
      if (conv.has('nocreat')) throw new VitastorError('ERR_NOT_FOUND', `Image ${output.name} does not exist, and conv=nocreat does not let it be made`);
      return;
    }
    if (image.readonly) throw invalid(`Image ${image.name} is read-only${image.name.includes('@') ? ': a snapshot cannot be written to' : '; vitastor-cli modify --readwrite changes that'}`);
    if (image.deleted) throw invalid(`Image ${image.name} is being removed`);
    if (pool !== undefined && findPool(view, pool).id !== image.pool) throw invalid(`Image ${image.name} exists, and not in pool ${pool}`);
    requirePlaced(view, image);
  }

  async #openSource({ input, inputDirect, conv }: DdOptions, clients: CommandImages[]): Promise<BlockSource> {
    if (input.kind === 'file') return openFileSource(input.path, inputDirect);
    if (input.kind === 'image') {
      const client = await CommandImages.start(this.session, conv.has('noerror') ? { client_eio_retry_interval: '0' } : {});
      clients.push(client);
      return (await client.open(input.name, true)).source();
    }
    const stdin = this.session.environment.stdin();
    return new StreamSource('standard input', stdin, () => stdin.destroy());
  }

  async #openSink(options: DdOptions, source: BlockSource, clients: CommandImages[]): Promise<BlockSink> {
    const { output, conv, to, sizeBytes } = options;
    const length = copyLength(source, options);
    if (output.kind === 'stream') return new StreamSink('standard output', (data) => this.session.environment.writeStdout(data));
    if (sizeBytes !== null && length !== null && to + length > sizeBytes)
      throw invalid(`size: ${sizeBytes} bytes do not hold what is copied, which ends at ${to + length}`);
    if (output.kind === 'file') {
      if (options.outputDirect && (options.blockBytes % DIRECT_ALIGNMENT !== 0 || to % BigInt(DIRECT_ALIGNMENT) !== 0n))
        throw invalid(`oflag=direct needs bs and seek to be multiples of ${DIRECT_ALIGNMENT} bytes`);
      return openFileSink(output.path, {
        create: !conv.has('nocreat'), truncateAt: conv.has('trunc') ? to : null, append: options.append, direct: options.outputDirect, sizeBytes,
      });
    }
    const created = await this.#createImage(options, output.name, source, length);
    // Of its own: one that was there before may not have heard of the image yet.
    const client = await CommandImages.start(this.session);
    clients.push(client);
    const sink = (await client.open(output.name, false)).sink(created || await this.#isEmpty(client, output.name));
    const problem = unfit(sink, options, length);
    if (problem === '') return sink;
    await sink.close();
    throw invalid(problem);
  }

  /** Zeroes need not be compared with what is there: nothing is. Only asked for where little is listed by it. */
  async #isEmpty(client: CommandImages, name: string): Promise<boolean> {
    const view = await this.session.load([...IMAGE_PATHS, 'inode/stats/']);
    const image = findImage(view, name);
    const layers = [image, ...parentChain(view, image)];
    return seemsEmpty(view, layers) && !(await client.isWritten(layers));
  }

  /** False: it exists. */
  async #createImage({ to, limit, sizeBytes, pool }: DdOptions, name: string, source: BlockSource, length: bigint | null): Promise<boolean> {
    const context = await this.session.admin(IMAGE_PATHS);
    if (context.view.imageByName(name)) return false;
    const wanted = length ?? limit;
    if (sizeBytes === null && wanted === null) throw invalid(`the size of ${source.name} is not known before its end: give size=SIZE or count=N to make image ${name}`);
    const size = sizeBytes ?? to + (wanted ?? 0n);
    if (size % SECTOR_BYTES !== 0n) throw invalid(`an image has a multiple of ${SECTOR_BYTES} bytes, and ${source.name} gives ${size}: give size=SIZE, and pad the input`);
    await createCommand(context, { name, size: String(size), pool, force: false, forceSize: false });
    const view = await this.session.load(IMAGE_PATHS);
    requirePlaced(view, findImage(view, name));
    return true;
  }

  async #copy(options: DdOptions, source: BlockSource, sink: BlockSink): Promise<Outcome> {
    const { environment } = this.session;
    const pace = new Pace(environment.clock);
    const total = copyLength(source, options);
    const line = new ProgressLine(this.session, pace);
    const shown = options.status === 'progress';
    const direct = options.inputDirect || options.outputDirect;
    const copier = new Copier(source, sink, {
      blockBytes: options.blockBytes, depth: options.depth, from: options.from, to: options.to, limit: options.limit,
      sparse: !options.conv.has('nosparse'), skipErrors: options.conv.has('noerror'), sync: !options.conv.has('nofsync'),
      allocate: direct ? (bytes) => loadNativeClient().alignedBuffer(bytes) : (bytes) => Buffer.allocUnsafeSlow(bytes),
      onProgress: (bytes) => {
        if (shown) line.show(() => `${formatSize(bytes)}${total === null ? '' : ` of ${formatSize(total)}`} copied${pace.text(bytes, formatSize, bytes, total)}`);
      },
      signal: environment.signal,
    });
    let error: unknown = null;
    await copier.run().catch((problem: unknown) => { error = problem; });
    const seconds = pace.elapsedMs / 1000;
    if (options.status === '' || shown) {
      this.session.endProgress();
      environment.stderr(`${figures(copier.copied, seconds)}\n`);
    }
    if (error) throw error;
    const { bytes, unreadable } = copier.copied;
    const json = { copied: bytes, seconds: Math.round(seconds * 1000) / 1000 };
    if (unreadable === 0n) return { json, text: '' };
    return { json, text: '', error: new VitastorError('ERR_IO', `${unreadable} bytes of ${source.name} could not be read, and are zeroes in ${sink.name}`) };
  }
}

function figures({ bytes }: Copied, seconds: number): string {
  const rate = seconds > 0 ? `, ${formatSize(Number(bytes) / seconds)}/s` : '';
  return `${bytes} bytes (${formatSize(bytes)}) copied, ${formatFraction(seconds)} s${rate}`;
}

/** null: nobody knows yet. */
function copyLength(source: BlockSource, { from, limit }: DdOptions): bigint | null {
  if (source.sizeBytes === null) return null;
  const rest = source.sizeBytes > from ? source.sizeBytes - from : 0n;
  return limit !== null && limit < rest ? limit : rest;
}

function checkRange(source: BlockSource, { from, limit, blockBytes, input }: DdOptions): void {
  if (source.sizeBytes !== null && from > source.sizeBytes) throw invalid(`skip: ${source.name} has ${source.sizeBytes} bytes, and ${from} are to be left out`);
  const align = BigInt(source.alignment);
  const wrong = ([['bs', BigInt(blockBytes)], ['skip', from], ['count', input.kind === 'image' ? limit ?? 0n : 0n]] as const).find(([, bytes]) => bytes % align !== 0n);
  if (wrong) throw invalid(`${wrong[0]}: ${source.name} is read in multiples of ${align} bytes, and ${wrong[1]} is none`);
}

/** Why an image cannot take it, or ''. */
function unfit(sink: BlockSink, { to, blockBytes }: DdOptions, length: bigint | null): string {
  const align = BigInt(sink.alignment);
  const wrong = ([['bs', BigInt(blockBytes)], ['seek', to], ['the length of the input', length ?? 0n]] as const).find(([, bytes]) => bytes % align !== 0n);
  if (wrong) return `${wrong[0]}: ${sink.name} is written to in multiples of ${align} bytes, and ${wrong[1]} is none`;
  const end = to + (length ?? 0n);
  if (sink.sizeBytes === null || end <= sink.sizeBytes) return '';
  return `${sink.name} has ${sink.sizeBytes} bytes, and what is copied ends at ${end}: vitastor-cli modify --resize makes it larger`;
}

/** One image onto itself, where blocks would be read after they have been written over. */
function checkSame({ input, output, from, to, limit }: DdOptions): void {
  if (input.kind !== 'image' || output.kind !== 'image' || input.name !== output.name) return;
  const apart = limit !== null && (from + limit <= to || to + limit <= from);
  if (!apart) throw invalid(`iimg and oimg are the same image, and the ranges may overlap: give count, skip and seek so that they do not`);
}
