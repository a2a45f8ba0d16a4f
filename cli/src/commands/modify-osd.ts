// SPDX-License-Identifier: GPL-2.0-or-later

import { string } from '@oclif/core/flags';
import { isKnownOsd, modifyOsd, parseBoolean, parseNumber, VitastorError, type OsdConfig } from '@vitastor/core';
import { VitastorCommand, type Outcome } from '../base-command.js';
import { flag, words } from '../list-flags.js';
import { osdNumbers } from '../osd-args.js';

export default class ModifyOsd extends VitastorCommand {
  static override strict = false;
  static override summary = 'Set weight, tags and noout of an OSD';
  static override description = 'The monitor moves data accordingly. With --json, prints all that is set for the OSD then.';
  static override flags = {
    tags: string({ summary: 'device classes; empty removes them', helpValue: 'A,B' }),
    reweight: string({ summary: 'share of its size that is used, 0 to 1; 0 takes all data away', helpValue: 'W' }),
    noout: string({ summary: 'keep its data placed on it however long it is down', helpValue: 'true|false' }),
    force: flag({ char: 'f', summary: 'also for a number that no OSD has yet' }),
  };

  async run(): Promise<Outcome> {
    const { flags, argv } = await this.parse(ModifyOsd);
    const [osd = 0, ...others] = osdNumbers(words(argv));
    if (others.length) throw invalid('modify-osd changes one OSD at a time');
    const change: Partial<OsdConfig> = {
      ...(flags.tags === undefined ? {} : { tags: tagList(flags.tags) }),
      ...(flags.reweight === undefined ? {} : { reweight: weight(flags.reweight) }),
      ...(flags.noout === undefined ? {} : { noout: yesNo('--noout', flags.noout) }),
    };
    if (Object.keys(change).length === 0) throw invalid('Nothing to update');
    const context = await this.session.admin(['osd/state/', 'osd/stats/']);
    if (!flags.force && !isKnownOsd(context.view, osd))
      throw new VitastorError('ERR_NOT_FOUND', `OSD ${osd} does not exist. Use --force to set configuration anyway`);
    return { text: `OSD ${osd} configuration modified`, json: await modifyOsd(context, osd, change) };
  }
}

function tagList(text: string): string[] {
  return [...new Set(text.split(',').map((tag) => tag.trim()).filter((tag) => tag !== ''))];
}

function weight(text: string): number {
  const value = parseNumber(text);
  if (value !== null && value > 1) throw invalid(`Reweight can't be larger than 1`);
  if (value === null || value < 0) throw invalid(`--reweight: "${text}" is not a number from 0 to 1`);
  return value;
}

function yesNo(option: string, text: string): boolean {
  const value = parseBoolean(text);
  if (value === null) throw invalid(`${option}: "${text}" is neither true nor false`);
  return value;
}

function invalid(text: string): VitastorError {
  return new VitastorError('ERR_INVALID_ARGUMENT', text);
}
