// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { changedExtents, checkUnchanged, formatCount, formatSize, layersBetween, stringifyJson, VitastorError, type ChangedExtent, type LayerDiff } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { CommandImages, IMAGE_PATHS, requireLayerPlaced } from '../copy/images.js';
import { words } from '../list-flags.js';
import { Pace, ProgressLine } from '../progress.js';
import { dataOption } from '../removal.js';

/** Lines that are put together before they are written. */
const LINES = 16_384;

export default class Diff extends VitastorCommand {
  static override strict = false;
  static override summary = 'List what has changed since a snapshot';
  static override description =
    'From the bitmaps of the layers above the snapshot, without reading data: parts of the image that were written to since. zero: the image has grown by it, and\n' +
    'nobody has written there. Without --from: all that the image holds.';
  static override flags = {
    from: string({ summary: 'the older snapshot: SNAP, or IMAGE@SNAP of what the image was cloned from', helpValue: 'SNAP' }),
    to: string({ summary: 'the newer snapshot (default: the image as it is now)', helpValue: 'SNAP' }),
  };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(Diff);
    const [name = '', ...rest] = words(argv);
    if (name === '') throw new VitastorError('ERR_INVALID_ARGUMENT', 'Image name is missing: diff IMAGE --from SNAP');
    if (rest.length) throw new VitastorError('ERR_INVALID_ARGUMENT', `diff takes one image; "${rest[0]}" is one more word`);
    const { session } = this;
    const view = await session.load(IMAGE_PATHS);
    const diff = layersBetween(view, name, flags.from ?? null, flags.to ?? null);
    for (const layer of diff.layers) requireLayerPlaced(view, layer);
    const images = await CommandImages.start(session);
    try {
      return await this.#list(images, diff);
    } finally {
      await images.close();
    }
  }

  async #list(images: CommandImages, diff: LayerDiff): Promise<Outcome> {
    const { session } = this;
    const { environment, options: { json } } = session;
    const pace = new Pace(environment.clock);
    const line = new ProgressLine(session, pace);
    const print = json ? new JsonList(diff) : new TextList(diff);
    const options = {
      iodepth: dataOption(session, 'iodepth', 32), parallelOsds: dataOption(session, 'parallel_osds', 4),
      onProgress: (done: bigint, total: bigint) => line.show(() => `Looking at ${done}/${total} objects${pace.text(done, formatCount, done, total)}`),
    };
    let begun = false;
    try {
      for await (const part of changedExtents(images.client, diff, options)) {
        session.endProgress();
        for (let at = 0; at < part.length; at += LINES) {
          await environment.writeStdout(print.extents(part.slice(at, at + LINES)));
          begun = true;
        }
      }
      checkUnchanged(await session.load(IMAGE_PATHS), diff);
    } catch (error) {
      if (!begun || !(error instanceof VitastorError)) throw error;
      await environment.writeStdout(print.end(error));
      return { text: '', error, printed: true };
    }
    session.endProgress();
    await environment.writeStdout(print.end(null));
    return { text: '', printed: true };
  }
}

/** Bytes and extents so far. */
class Totals {
  count = 0;
  data = 0n;
  zero = 0n;
  add(extent: ChangedExtent): void {
    this.count++;
    this[extent.type] += extent.length;
  }
}

class TextList {
  readonly #totals = new Totals();
  readonly #width: number;
  #titled = false;

  constructor(diff: LayerDiff) {
    this.#width = Math.max('OFFSET'.length, String(diff.to.sizeBytes).length);
  }
  #titles(): string {
    if (this.#titled) return '';
    this.#titled = true;
    return `${'OFFSET'.padEnd(this.#width)}  ${'LENGTH'.padEnd(this.#width)}  TYPE\n`;
  }
  extents(extents: readonly ChangedExtent[]): string {
    let text = this.#titles();
    for (const extent of extents) {
      this.#totals.add(extent);
      text += `${String(extent.offset).padEnd(this.#width)}  ${String(extent.length).padEnd(this.#width)}  ${extent.type}\n`;
    }
    return text;
  }
  end(error: VitastorError | null): string {
    if (error) return '';
    const { count, data, zero } = this.#totals;
    if (count === 0) return 'Nothing has changed\n';
    return `Total: ${formatSize(data)} of data${zero ? `, ${formatSize(zero)} of zeroes` : ''} in ${count} extent${count === 1 ? '' : 's'}\n`;
  }
}

class JsonList {
  readonly #totals = new Totals();
  readonly #head: string;
  #begun = false;

  constructor({ to, from }: LayerDiff) {
    const head = stringifyJson({ image: to.name, from: from?.name ?? '', size: to.sizeBytes, from_size: from?.sizeBytes ?? 0n });
    this.#head = `${head.slice(0, -1)},"extents":[`;
  }
  extents(extents: readonly ChangedExtent[]): string {
    let text = '';
    for (const extent of extents) {
      this.#totals.add(extent);
      text += `${this.#begun ? ',' : this.#head}{"offset":${extent.offset},"length":${extent.length},"type":"${extent.type}"}`;
      this.#begun = true;
    }
    return text;
  }
  end(error: VitastorError | null): string {
    const { count, data, zero } = this.#totals;
    const tail = stringifyJson({
      count, data_bytes: data, zero_bytes: zero, ...(error ? { error_code: error.exitCode, error_text: error.message } : {}),
    });
    return `${this.#begun ? '' : this.#head}],${tail.slice(1)}\n`;
  }
}
