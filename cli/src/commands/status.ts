// SPDX-License-Identifier: GPL-2.0-or-later

import { VitastorCommand, type Outcome } from '../base-command.js';
import { statusReport } from '../reports/status-report.js';

const MEMBER_TIMEOUT_MS = 1000;

export default class Status extends VitastorCommand {
  static override summary = 'Show the state of the cluster';

  async run(): Promise<Outcome> {
    await this.parse(Status);
    const view = await this.session.load(['pg/', 'osd/state/', 'osd/stats/', 'mon/', 'stats']);
    const members = await (await this.session.etcd()).status(MEMBER_TIMEOUT_MS);
    return statusReport(view, members);
  }
}
