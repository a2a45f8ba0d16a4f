// SPDX-License-Identifier: GPL-2.0-or-later
// One command's access to the cluster: configuration, etcd, a loaded view; progress for people.

import {
  ClusterState,
  etcdTarget,
  KeySpace,
  loadLocalConfig,
  problemText,
  type AdminContext,
  type ClusterView,
  type Config,
  type DataOps,
  type Etcd,
  type OsdAdmin,
} from '@vitastor/core';
import type { Environment } from './environment.js';
import type { TableOptions } from './table.js';

/** Lines of progress are this far apart where they cannot overwrite each other. */
const PROGRESS_LINE_MS = 1000;

export interface SessionOptions {
  json: boolean;
  color: boolean;
  progress: boolean;
  /** Everything on the command line that is not the command's own option: configuration parameters. */
  parameters: Readonly<Record<string, string>>;
}

export class Session {
  readonly environment: Environment;
  readonly options: SessionOptions;
  #config: Config | null = null;
  #etcd: Etcd | null = null;
  #dataOps: DataOps | null = null;
  #osdAdmin: OsdAdmin | null = null;
  #lastProgressMs = Number.NEGATIVE_INFINITY;
  #progressOpen = false;

  constructor(environment: Environment, options: SessionOptions) {
    this.environment = environment;
    this.options = options;
  }

  /** The configuration as known so far: with etcd's part after load(). */
  async config(): Promise<Config> {
    this.#config ??= await loadLocalConfig(this.options.parameters);
    return this.#config;
  }

  async etcd(): Promise<Etcd> {
    if (this.#etcd) return this.#etcd;
    const config = await this.config();
    this.#etcd = this.environment.openEtcd(await etcdTarget(config), config);
    return this.#etcd;
  }

  /**
   * Reads these paths (relative to the prefix; 'config/' is always among them). Values that do not decode are named on
   * stderr.
   */
  async load(paths: readonly string[]): Promise<ClusterView> {
    const config = await this.config();
    const state = new ClusterState({
      etcd: await this.etcd(),
      clock: this.environment.clock,
      keys: new KeySpace(config.string('etcd_prefix')),
      paths: ['config/', ...paths],
      onProblem: (problem) => this.environment.stderr(`warning: ${problemText(problem)}\n`),
      // Who waits for minutes shall know for what.
      onTrouble: (text) => this.progress(text, false),
    });
    await state.load({ attempts: config.number('max_etcd_attempts'), timeoutMs: config.number('etcd_slow_timeout') });
    this.#config = config.withEtcd(state.view.global);
    return state.view;
  }

  /** For image and pool changes, with a view loaded just now. */
  async admin(paths: readonly string[]): Promise<AdminContext> {
    const view = await this.load(paths);
    const config = await this.config();
    return {
      etcd: await this.etcd(),
      view,
      limits: { timeoutMs: config.number('etcd_slow_timeout'), attempts: config.number('max_etcd_attempts') },
    };
  }

  async dataOps(): Promise<DataOps> {
    this.#dataOps ??= await this.environment.openDataOps((await this.config()).asText());
    return this.#dataOps;
  }

  /** Connections to OSDs as this view knows them ('osd/state/' must be loaded). */
  osdAdmin(view: ClusterView): OsdAdmin {
    this.#osdAdmin ??= this.environment.openOsdAdmin((osd) => view.osdStates.get(osd));
    return this.#osdAdmin;
  }

  /** How tables are written here. */
  get table(): TableOptions {
    return { color: this.options.color, columns: this.environment.stdoutColumns?.() ?? 0 };
  }

  /** A finished step, on stdout; left out with --json, so that stdout is one JSON document, and with --progress 0. */
  step(text: string): void {
    if (this.options.progress && !this.options.json) this.environment.stdout(`${text}\n`);
  }

  /** Something that moves, on stderr: overwritten on a terminal, else a line a second. `last`: always shown. */
  progress(text: string, last: boolean): void {
    if (!this.options.progress) return;
    if (this.environment.stderrIsTerminal) {
      this.environment.stderr(`\r\u001b[K${text}${last ? '\n' : ''}`);
      this.#progressOpen = !last;
      return;
    }
    const now = this.environment.clock.nowMs();
    if (!last && now - this.#lastProgressMs < PROGRESS_LINE_MS) return;
    this.#lastProgressMs = now;
    this.environment.stderr(`${text}\n`);
  }

  /** What comes next on stderr begins a line. */
  endProgress(): void {
    if (this.#progressOpen) this.environment.stderr('\r\u001b[K');
    this.#progressOpen = false;
  }

  async close(): Promise<void> {
    if (this.#progressOpen) this.environment.stderr('\n');
    this.#osdAdmin?.close();
    this.#etcd?.close();
    await this.#dataOps?.close();
  }
}
