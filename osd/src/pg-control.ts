// SPDX-License-Identifier: GPL-2.0-or-later
// One PG that this OSD leads, wants to lead, or is giving up. Pure decisions: it is told what etcd, the transactions
// and the
// engine say, and answers with what to write and what to command. Source: semantics.md 7.2, 7.4; etcd schema 5.8, 7.
//
//   absent ──(wanted, key absent)──► locking ──(our key seen through the watch)──► running ──(changed)──► stopping ──►
//   unlocking ──► absent

import {
  encodePgHistory,
  encodePgState,
  EMPTY_PG_HISTORY,
  stringifyJson,
  type PgHistory,
  type PoolConfig,
} from '@vitastor/core';
import type { HistoryWanted, PgId, PgScrubbed, PgStateChanged } from './engine.js';
import { PG_BITS, wordsOf } from './pg-bits.js';

export type PgPhase = 'absent' | 'locking' | 'running' | 'stopping' | 'unlocking';

/** How the engine was last told to lead it, and what would make that wrong. */
export interface PgTarget {
  osdSet: number[];
  /** Parameters of the pool that a running PG cannot change. */
  poolSignature: string;
}

/** What etcd says about one PG right now. */
export interface PgFacts {
  /** null: not ours to lead (another primary, paused, pool unknown or of another layout). */
  target: PgTarget | null;
  /** Under our present lease, by somebody else (or by an old lease), or not there. */
  stateKey: 'absent' | 'ours' | 'foreign';
  /** Of the state key as it was last seen; 0n = absent. */
  stateRevision: bigint;
  /** null: what stands there cannot be read. */
  history: PgHistory | null;
  historyRevision: bigint;
}

/** The same, with a history that one can go by. */
type KnownFacts = PgFacts & { history: PgHistory };

/** One transaction part. Conditions and effects of etcd schema 5.8. */
export interface PgWrite {
  control: PgControl;
  state:
    | { kind: 'lock'; value: string }
    | { kind: 'update'; value: string }
    | { kind: 'unlock' }
    | null;
  history: { value: string; seenRevision: bigint } | null;
  /** Runs when it is in etcd, with the revision of the transaction. */
  done: (revision: bigint) => void;
}

/** When PGs are to be scrubbed. Times in seconds. */
export interface ScrubPlan {
  /** auto_scrub. */
  automatic: boolean;
  intervalS: number;
  /** no_scrub. */
  suspended: boolean;
}

export interface PgActions {
  /** Something to write: nextWrite() will give it. */
  dirty(control: PgControl): void;
  /** Call tellOpening() with this interval after a while. */
  later(control: PgControl, interval: bigint): void;
  startPg(control: PgControl, history: PgHistory, osdSet: number[], interval: bigint): void;
  stopPg(control: PgControl, interval: bigint): void;
  confirmHistory(control: PgControl, interval: bigint, epoch: bigint): void;
  scrubPg(control: PgControl, interval: bigint): void;
  nextInterval(): bigint;
  log(text: string): void;
}

export function poolSignature(pool: PoolConfig, pgCount: number): string {
  return [
    pool.scheme, pool.pgSize, pool.pgMinSize, pool.parityChunks, pool.pgStripeSizeBytes, pool.blockSizeBytes,
    pool.bitmapGranularityBytes, pool.immediateCommit, pool.localReads, pgCount,
  ].join(' ');
}

/** Sorted, without zeroes and doubles. */
export function osdSetOf(numbers: Iterable<number | bigint>): number[] {
  return [...new Set([...numbers].map(Number).filter((n) => n !== 0))].sort((a, b) => a - b);
}

const sameSet = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((n, i) => n === b[i]);

/** Equality of what matters to peering; the epoch and next_scrub do not. */
function sameMembers(a: PgHistory, b: PgHistory): boolean {
  if (a === b) return true;
  const sets = (h: PgHistory): string => h.osdSets.map((set) => osdSetOf(set).join()).sort().join(';');
  return sameSet(osdSetOf(a.allPeers), osdSetOf(b.allPeers)) && sets(a) === sets(b);
}

export class PgControl {
  readonly id: PgId;
  readonly #osd: number;
  readonly #actions: PgActions;
  #phase: PgPhase = 'absent';
  #facts: KnownFacts = {
    target: null,
    stateKey: 'absent',
    stateRevision: 0n,
    history: EMPTY_PG_HISTORY,
    historyRevision: 0n,
  };
  #target: PgTarget | null = null;
  #interval = 0n;
  /** The history that peering of this interval knows, with our own additions. */
  #history: PgHistory = EMPTY_PG_HISTORY;
  /** Somebody has put what cannot be read in the place of the history. */
  #isGarbled = false;
  #reported: PgStateChanged | null = null;
  #stateDirty = false;
  /**
   * Just started: etcd says "starting", and nobody can do anything with "peering", whose transaction would hold up the one that says
   * "active".
   */
  #opening = false;
  #wanted: HistoryWanted | null = null;
  /** Our history write that was made and is not yet seen through the watch: epoch, or null. */
  #unconfirmed: { epoch: bigint; revision: bigint; forEngine: boolean; nextScrub: number } | null = null;
  /** next_scrub as it should stand in the history, until the watch shows it there; null: as it is. */
  #nextScrub: number | null = null;
  /** The engine was told to scrub in this activity. */
  #scrubbing = false;
  /** Revision of the transaction that gave us the state key; null: not asked for, or no answer yet. */
  #lockedAt: bigint | null = null;
  #writing = false;

  constructor(id: PgId, osd: number, actions: PgActions) {
    this.id = id;
    this.#osd = osd;
    this.#actions = actions;
  }

  get phase(): PgPhase {
    return this.#phase;
  }

  /** One line for people who look for what it waits for. */
  describe(): string {
    const { target, stateKey, historyRevision } = this.#facts;
    return (
      `PG ${this.id.pool}/${this.id.pg}: ${this.#phase}, interval ${this.#interval}, state key ${stateKey}, ${target ? 'wanted' : 'not wanted'}, history at ${historyRevision}` +
      `${this.#phase === 'locking' && this.#lockedAt !== null ? ', lock not yet seen' : ''}${this.#writing ? ', writing' : ''}${this.#stateDirty ? ', state to report' : ''}${this.#wanted ? ', history wanted' : ''}${this.#unconfirmed ? ', history not yet seen' : ''}`
    );
  }

  /** Nothing to do and nothing of ours in etcd: the object may be forgotten. */
  get idle(): boolean {
    return this.#phase === 'absent' && this.#facts.target === null && !this.#writing && !this.#isGarbled;
  }

  /** Last state that the engine reported in this interval, for statistics. */
  get stateBits(): number {
    return this.#phase === 'running' ? (this.#reported?.state ?? PG_BITS.starting) : 0;
  }

  /** etcd has changed (or was reloaded). */
  update(found: PgFacts): void {
    const facts = this.#withHistory(found);
    this.#facts = facts;
    switch (this.#phase) {
      case 'absent':
        if (facts.target && facts.stateKey !== 'foreign') {
          this.#phase = 'locking';
          this.#lockedAt = null;
          this.#actions.dirty(this);
        } else if (!facts.target && facts.stateKey === 'ours') {
          // A lock that we no longer wanted when it was granted.
          this.#phase = 'unlocking';
          this.#actions.dirty(this);
        }
        break;
      case 'locking':
        this.#checkLock(facts);
        break;
      case 'running':
        this.#checkRunning(facts);
        break;
      case 'stopping':
        break;
      case 'unlocking':
        this.#actions.dirty(this);
        break;
    }
  }

  /** A PG that runs knows its history, and puts it back. Nobody can begin without one: it tells whom to wait for. */
  #withHistory(facts: PgFacts): KnownFacts {
    const wasGarbled = this.#isGarbled;
    this.#isGarbled = facts.history === null && (this.#phase === 'running' || facts.target !== null);
    if (facts.history !== null) return { ...facts, history: facts.history };
    if (this.#phase === 'running') {
      this.#actions.dirty(this);
      return { ...facts, history: this.#facts.history };
    }
    if (this.#isGarbled && !wasGarbled)
      this.#actions.log(
        `PG ${this.id.pool}/${this.id.pg} is not started: its history in etcd cannot be read; restore it (deleted, all that it says of OSDs with newer data is lost)`,
      );
    return { ...facts, target: null, history: EMPTY_PG_HISTORY };
  }

  /**
   * Only a transaction proves that the key is ours: what the watch shows may be older than our last unlocking. And only
   * the watch proves that we
   * know the history as of that moment.
   */
  #checkLock(facts: KnownFacts): void {
    if (this.#writing) return;
    if (this.#lockedAt === null) {
      if (facts.target && facts.stateKey !== 'foreign') this.#actions.dirty(this);
      else {
        this.#phase = 'absent';
        if (facts.stateKey === 'ours') this.update(facts);
      }
    } else if (facts.stateKey === 'ours' && facts.stateRevision >= this.#lockedAt) {
      this.#start();
    } else if (facts.stateKey === 'foreign' && facts.stateRevision > this.#lockedAt) {
      this.#phase = 'absent';
    }
  }

  /** The engine reports a state; events of an older interval are ignored. */
  onState(event: PgStateChanged): void {
    if (event.interval !== this.#interval) return;
    if (event.state & PG_BITS.offline) {
      if (this.#phase === 'stopping' || this.#phase === 'running') {
        this.#phase = 'unlocking';
        this.#wanted = null;
        this.#unconfirmed = null;
        this.#actions.dirty(this);
      }
      return;
    }
    if (this.#phase !== 'running') return;
    if (!(event.state & PG_BITS.active)) this.#scrubbing = false;
    this.#reported = event;
    if (this.#opening && (event.state === PG_BITS.starting || event.state === PG_BITS.peering)) return;
    this.#opening = false;
    this.#stateDirty = true;
    this.#actions.dirty(this);
  }

  /** A while after the start: still peering means that it takes long, and people want to know. */
  tellOpening(interval: bigint): void {
    if (!this.#opening || interval !== this.#interval || this.#phase !== 'running') return;
    this.#opening = false;
    if (this.#reported?.state !== PG_BITS.peering) return;
    this.#stateDirty = true;
    this.#actions.dirty(this);
  }

  onHistoryWanted(event: HistoryWanted): void {
    if (event.interval !== this.#interval || this.#phase !== 'running') return;
    this.#wanted = event;
    this.#actions.dirty(this);
  }

  /**
   * Plans the next scrub, or has it done when it is due. Returns when to ask again (unix seconds), null: after a change.
   * A next_scrub that somebody wrote into the history by hand counts also without auto_scrub.
   */
  checkScrub(nowS: number, plan: ScrubPlan): number | null {
    if (this.#phase !== 'running' || !((this.#reported?.state ?? 0) & PG_BITS.active) || this.#scrubbing) return null;
    if (this.#nextScrub !== null) return null;
    const next = this.#facts.history.nextScrub;
    if (plan.automatic && (next === 0 || next > nowS + plan.intervalS)) {
      this.#planScrub(nowS + plan.intervalS);
      return nowS + plan.intervalS;
    }
    if (next === 0 || plan.suspended) return null;
    if (next > nowS) return next;
    this.#scrubbing = true;
    this.#actions.scrubPg(this, this.#interval);
    return null;
  }

  onScrubbed(event: PgScrubbed, nowS: number, plan: ScrubPlan): void {
    if (event.interval !== this.#interval || this.#phase !== 'running') return;
    this.#scrubbing = false;
    this.#planScrub(plan.automatic ? nowS + plan.intervalS : 0);
  }

  #planScrub(nextS: number): void {
    this.#nextScrub = nextS;
    this.#forgetPlan();
    this.#actions.dirty(this);
  }

  /**
   * A plan that stands in etcd is none any more. One that was written but not yet shown by the watch still is: by the older history
   * the same scrub would be due again.
   */
  #forgetPlan(): void {
    if (!this.#unconfirmed && this.#nextScrub === this.#facts.history.nextScrub) this.#nextScrub = null;
  }

  /** The transaction with our write failed its conditions: look at etcd again (update() will come). */
  onConflict(): void {
    this.#writing = false;
    if (this.#phase === 'running' && this.#reported) this.#stateDirty = true;
  }

  /**
   * What to write now, or null. The caller runs it as (part of) one transaction and then calls done() or onConflict().
   */
  nextWrite(): PgWrite | null {
    if (this.#writing) return null;
    const write = this.#makeWrite();
    if (write) this.#writing = true;
    return write;
  }

  #makeWrite(): PgWrite | null {
    switch (this.#phase) {
      case 'locking': {
        const { target, stateKey } = this.#facts;
        if (this.#lockedAt !== null || !target || stateKey === 'foreign') return null;
        return {
          control: this,
          state: { kind: stateKey === 'ours' ? 'update' : 'lock', value: this.#stateText(['starting'], []) },
          history: null,
          done: (revision) => {
            this.#writing = false;
            if (this.#phase !== 'locking') return;
            this.#lockedAt = revision;
            this.#checkLock(this.#facts);
          },
        };
      }
      case 'running':
        return this.#runningWrite();
      case 'unlocking':
        if (this.#facts.stateKey !== 'ours') {
          this.#unlocked();
          return null;
        }
        return { control: this, state: { kind: 'unlock' }, history: null, done: () => this.#unlocked() };
      default:
        return null;
    }
  }

  #runningWrite(): PgWrite | null {
    const reported = this.#stateDirty ? this.#reported : null;
    const next = this.#unconfirmed ? null : this.#nextHistory();
    if (!reported && !next) return null;
    const interval = this.#interval;
    if (reported) this.#stateDirty = false;
    return {
      control: this,
      state: reported ? { kind: 'update', value: this.#stateText(wordsOf(reported.state), reported.peers) } : null,
      history: next
        ? { value: stringifyJson(encodePgHistory(next.history)), seenRevision: this.#facts.historyRevision }
        : null,
      done: (revision) => {
        this.#writing = false;
        if (this.#phase !== 'running' || this.#interval !== interval) return;
        if (next) {
          this.#history = next.history;
          this.#unconfirmed = { epoch: next.history.epoch, revision, forEngine: next.forEngine, nextScrub: next.history.nextScrub };
          // The watch may have been faster than the answer.
          this.#checkRunning(this.#facts);
        }
        if (this.#phase === 'running' && (this.#stateDirty || this.#wanted || this.#nextScrub !== null))
          this.#actions.dirty(this);
      },
    };
  }

  /** The history that should stand in etcd after the next write, or null if it stands there. */
  #nextHistory(): { history: PgHistory; forEngine: boolean } | null {
    const target = this.#target;
    if (!target) return null;
    const known = this.#isGarbled ? this.#history : this.#facts.history;
    const nextScrub = this.#nextScrub ?? known.nextScrub;
    const current = { ...known, nextScrub };
    const same = nextScrub !== known.nextScrub || this.#isGarbled ? { history: current, forEngine: false } : null;
    const wanted = this.#wanted;
    const state = this.#reported?.state ?? 0;
    const clean = state === PG_BITS.active;
    if (wanted) {
      // A clean PG that wants a higher epoch: state, epoch and cleared sets go together. Were the sets cleared later, an OSD that dies
      // between the two writes would leave a PG that waits for it although all others have everything.
      if (clean && !wanted.addCurrentSet && (wanted.moreSets ?? []).length === 0 && wanted.epoch >= current.epoch)
        return { history: { ...current, epoch: wanted.epoch, osdSets: [], allPeers: osdSetOf(target.osdSet) }, forEngine: true };
      let osdSets = wanted.addCurrentSet ? mergeSet(current.osdSets, osdSetOf(wanted.currentSet)) : current.osdSets;
      for (const set of wanted.moreSets ?? []) osdSets = mergeSet(osdSets, osdSetOf(set));
      const epoch = wanted.epoch > current.epoch ? wanted.epoch : current.epoch;
      return {
        history: { ...current, epoch, osdSets, allPeers: osdSetOf([...current.allPeers, ...target.osdSet]) },
        forEngine: true,
      };
    }
    if (!clean && state !== (PG_BITS.active | PG_BITS.left_on_dead)) return same;
    const allPeers = clean
      ? osdSetOf(target.osdSet)
      : osdSetOf([...target.osdSet, ...(this.#reported?.deadPeers ?? [])]);
    const minimal = current.osdSets.length === 0 && sameSet(osdSetOf(current.allPeers), allPeers);
    const untouched = current.osdSets.length === 0 && current.allPeers.length === 0 && clean;
    if (minimal || untouched) return same;
    return { history: { ...current, osdSets: [], allPeers }, forEngine: false };
  }

  #stateText(words: ReturnType<typeof wordsOf>, peers: readonly bigint[]): string {
    return stringifyJson(encodePgState({ primary: this.#osd, state: words, peers: osdSetOf(peers) }));
  }

  #start(): void {
    const target = this.#facts.target;
    if (!target) {
      this.#phase = 'unlocking';
      this.#actions.dirty(this);
      return;
    }
    this.#phase = 'running';
    this.#target = target;
    this.#interval = this.#actions.nextInterval();
    this.#history = this.#facts.history;
    this.#reported = null;
    this.#stateDirty = false;
    this.#wanted = null;
    this.#unconfirmed = null;
    this.#nextScrub = null;
    this.#scrubbing = false;
    this.#opening = true;
    this.#actions.later(this, this.#interval);
    this.#actions.startPg(this, this.#history, target.osdSet, this.#interval);
  }

  #checkRunning(facts: KnownFacts): void {
    const pending = this.#unconfirmed;
    // A newer revision comes from somebody else, over ours: the watch may show several at once, and a load shows the last one only.
    if (pending && facts.historyRevision >= pending.revision) {
      this.#unconfirmed = null;
      if (this.#nextScrub === pending.nextScrub) this.#nextScrub = null;
      const wanted = this.#wanted;
      if (pending.forEngine && wanted && wanted.epoch <= pending.epoch && !this.#isGarbled && this.#isOwn(facts.history)) {
        this.#wanted = null;
        this.#actions.confirmHistory(this, this.#interval, pending.epoch);
      }
      this.#actions.dirty(this);
    }
    this.#forgetPlan();
    const why = this.#mustStop(facts);
    if (!why) {
      if (this.#stateDirty || this.#wanted || this.#nextScrub !== null) this.#actions.dirty(this);
      return;
    }
    this.#actions.log(`PG ${this.id.pool}/${this.id.pg} stops: ${why}`);
    this.#phase = 'stopping';
    this.#actions.stopPg(this, this.#interval);
  }

  /** What peering of this interval knows, and its epoch is not taken back. */
  #isOwn(history: PgHistory): boolean {
    return sameMembers(history, this.#history) && history.epoch >= this.#history.epoch;
  }

  #mustStop(facts: KnownFacts): string | null {
    const target = this.#target;
    if (!facts.target || !target) return 'another OSD shall lead it';
    if (!sameSet(facts.target.osdSet, target.osdSet)) return 'its set of OSDs has changed';
    if (facts.target.poolSignature !== target.poolSignature) return 'its pool has changed';
    if (facts.stateKey !== 'ours') return 'its state key was taken away';
    // Until our own write shows up the watch may still give the former history.
    if (!this.#unconfirmed && !this.#writing && !this.#isGarbled && !this.#isOwn(facts.history))
      return 'its history was changed by somebody else';
    return null;
  }

  #unlocked(): void {
    this.#writing = false;
    if (this.#phase !== 'unlocking') return;
    this.#phase = 'absent';
    this.#target = null;
    this.#reported = null;
    // The view may still show the key that we have just deleted.
    this.update({ ...this.#facts, stateKey: 'absent', stateRevision: 0n, history: this.#isGarbled ? null : this.#facts.history });
  }
}

function mergeSet(sets: readonly number[][], added: number[]): number[][] {
  const known = sets.some((set) => sameSet(osdSetOf(set), added));
  return known || added.length === 0 ? [...sets] : [...sets, added];
}
