// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { checkUnchanged, formatFraction, formatSize, layersBetween, VitastorError, type JsonObject } from '@vitastor/core';
import { exportRaw, exportStream, isSnapshot, updateRaw, type ExportOptions } from '../backup/export.js';
import { openOutput, PipeOutput, RawUpdate, type Output } from '../backup/outputs.js';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { CommandImages, IMAGE_PATHS, requirePlaced } from '../copy/images.js';
import { flag, wholeNumber, words } from '../list-flags.js';
import { Pace, ProgressLine } from '../progress.js';
import { dataOption } from '../removal.js';

const DEPTH = 16;
const MAX_DEPTH = 1024;
const invalid = (text: string): VitastorError => new VitastorError('ERR_INVALID_ARGUMENT', text);

export default class Export extends VitastorCommand {
  static override strict = false;
  static override summary = 'Write an image, or what has changed since a snapshot, to a file or pipe';
  static override description =
    'Without FILE, or with -, to standard output. A stream (the default) has checksums, an end, and what import needs to know; raw is the bytes of the disk, sparse\n' +
    'in a file. With --from, a stream holds what has changed since that snapshot, and --format raw brings a raw copy of it in FILE forward. A file has its name\n' +
    'only when it is complete. Export snapshots: an image that is written to meanwhile gives no state that there was.';
  static override flags = {
    from: string({ summary: 'only what has changed since this snapshot', helpValue: 'SNAP' }),
    format: string({ summary: 'stream (default) or raw', helpValue: 'FORMAT' }),
    iodepth: string({ summary: `reads of 1M under way at once (default ${DEPTH})`, helpValue: 'N' }),
    force: flag({ char: 'f', summary: 'write over a file that exists' }),
  };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(Export);
    const [name = '', path = '-', ...rest] = words(argv);
    const { session } = this;
    const format = flags.format ?? 'stream';
    if (name === '') throw invalid('Image name is missing: export IMAGE[@SNAP] [--from SNAP] [FILE]');
    if (rest.length) throw invalid(`export takes an image and a file; "${rest[0]}" is one more word`);
    if (format !== 'stream' && format !== 'raw') throw invalid(`--format: "${format}" is neither stream nor raw`);
    if (path === '-' && session.options.json) throw invalid('--json and the export would both go to standard output: give FILE');
    if (path === '-' && session.environment.stdoutIsTerminal) throw invalid('standard output is a terminal: give FILE, or use a pipe');
    const from = flags.from ?? null;
    if (format === 'raw' && from !== null && path === '-')
      throw invalid('--format raw --from writes into a copy of the older snapshot: give FILE, or use a stream');
    const depth = wholeNumber('--iodepth', flags.iodepth ?? String(DEPTH), 1);
    if (depth > MAX_DEPTH) throw invalid(`--iodepth: at most ${MAX_DEPTH}, which takes 1G of memory`);

    const view = await session.load(IMAGE_PATHS);
    const diff = layersBetween(view, name, from, null);
    requirePlaced(view, diff.to);
    if (!isSnapshot(diff.to) && !diff.to.readonly)
      session.environment.stderr(`warning: ${diff.to.name} may be written to while it is exported; a snapshot (snap-create) stays as it is\n`);
    const images = await CommandImages.start(session);
    const pace = new Pace(session.environment.clock);
    const line = new ProgressLine(session, pace);
    const options: ExportOptions = {
      depth, iodepth: dataOption(session, 'iodepth', 32), parallelOsds: dataOption(session, 'parallel_osds', 4),
      onProgress: (done, total) => line.show(() => `Exported ${formatSize(done)}${total === null ? '' : ` of ${formatSize(total)}`}${pace.text(done, formatSize, done, total)}`),
      confirm: async () => checkUnchanged(await session.load(IMAGE_PATHS), diff),
      signal: session.environment.signal,
    };
    let output: Output | RawUpdate | null = null;
    let inPlace = false;
    try {
      const image = await images.open(name, true);
      let totals;
      if (format === 'raw' && diff.from) {
        const file = await RawUpdate.open(path, diff.from.sizeBytes, diff.from.name);
        [output, inPlace] = [file, true];
        totals = await updateRaw(images, image, diff, file, options);
      } else {
        const whole = path === '-' ? new PipeOutput('standard output', (data) => session.environment.writeStdout(data)) : await openOutput(path, flags.force);
        output = whole;
        totals = await (format === 'raw' ? exportRaw : exportStream)(images, image, diff, whole, options);
      }
      const seconds = pace.elapsedMs / 1000;
      session.endProgress();
      const json: JsonObject = {
        image: diff.to.name, from: diff.from?.name ?? '', format, size: diff.to.sizeBytes, data_bytes: totals.dataBytes, zero_bytes: totals.zeroBytes, seconds,
      };
      const text = `${diff.to.name}${diff.from ? ` since ${diff.from.name}` : ''} exported: ${formatSize(totals.dataBytes)} of data in ${formatFraction(seconds)} s`;
      if (path !== '-') return { json, text };
      if (session.options.progress) session.environment.stderr(`${text}\n`);
      return { json, text: '', printed: true };
    } catch (error) {
      session.endProgress();
      const aborted = session.environment.signal.aborted ? new VitastorError('ERR_ABORTED', 'interrupted') : error;
      throw inPlace && aborted instanceof VitastorError ? incomplete(aborted, path, diff.from?.name ?? '') : aborted;
    } finally {
      await images.close();
      await output?.close();
    }
  }
}

function incomplete(error: VitastorError, path: string, older: string): VitastorError {
  return new VitastorError(error.code, `${error.message}; ${path} is neither ${older} nor complete now: repeat the command before it is used`, { retryable: error.retryable, cause: error });
}
