// SPDX-License-Identifier: GPL-2.0-or-later
// Candidate sets of leaves that obey the rules. Small trees are enumerated; large ones are sampled
// by weighted highest-random-weight hashing, so equal inputs give equal candidates. Source: etcd
// schema 9.4.
//
// A set is a sorted list of distinct leaf indices: which slot a leaf takes is decided later, by
// alignment.

import type { Leaf } from './fold.js';
import { hash32, hashText, hrwScore } from './hash.js';
import type { PlacementRules, Rule } from './rules.js';

export type LeafSet = readonly number[];

export const setKey = (set: LeafSet): string => set.join(',');
export const sortedSet = (set: LeafSet): number[] => [...set].sort((a, b) => a - b);

/** Steps that the search for an order of one set may take; sets of symmetric rules need none. */
const ORDER_STEPS_MAX = 20000;
/** Different sets made out of one previous set. */
const REPAIRS_PER_SET = 4;
const EMPTY = -1;

function compareNodes(a: string, b: string): number {
  if (/^\d+$/.test(a) && /^\d+$/.test(b)) return Number(a) - Number(b);
  return a < b ? -1 : a > b ? 1 : 0;
}

export class Combinations {
  readonly #leaves: readonly Leaf[];
  readonly #rules: PlacementRules;
  readonly #keys: readonly number[];
  /** Slots filled in the best candidate, at most pg_size. */
  filled = 0;

  constructor(leaves: readonly Leaf[], rules: PlacementRules) {
    this.#leaves = leaves;
    this.#rules = rules;
    this.#keys = leaves.map((leaf) => hashText(leaf.node));
  }

  get #pgSize(): number {
    return this.#rules.slots.length;
  }

  /**
   * All candidates, at most one per leaf + `max`; sets `filled`. Empty only if there is no leaf
   * that fits slot 1.
   */
  candidates(max: number): { sets: LeafSet[]; complete: boolean } {
    const all = this.#enumerate(max);
    const sets = all ?? this.#sample(max);
    this.filled = sets.reduce((best, set) => Math.max(best, set.length), 0);
    const unique = new Map<string, LeafSet>();
    for (const set of sets) {
      if (set.length < this.filled || set.length === 0) continue;
      const sorted = sortedSet(set);
      unique.set(setKey(sorted), sorted);
    }
    return { sets: [...unique.values()], complete: all !== null };
  }

  /**
   * True if some order of the set obeys the rules and it fills as many slots as the best candidate.
   */
  isValid(set: LeafSet): boolean {
    if (set.length !== this.filled || new Set(set).size !== set.length) return false;
    if (set.some((leaf) => this.#leaves[leaf] === undefined)) return false;
    const level = this.#rules.allDifferentAt;
    if (level !== null)
      return new Set(set.map((leaf) => this.#node(leaf, level))).size === set.length;
    let steps = 0;
    const picks: number[] = [];
    const search = (left: LeafSet, empties: number): boolean => {
      if (picks.length === this.#pgSize) return true;
      if (++steps > ORDER_STEPS_MAX) return false;
      for (const leaf of left) {
        if (!this.#fits(leaf, picks)) continue;
        picks.push(leaf);
        if (
          search(
            left.filter((other) => other !== leaf),
            empties,
          )
        )
          return true;
        picks.pop();
      }
      if (empties === 0) return false;
      picks.push(EMPTY);
      if (search(left, empties - 1)) return true;
      picks.pop();
      return false;
    };
    return search(set, this.#pgSize - set.length);
  }

  /**
   * Valid sets near a previous one: a set that lost members keeps the others; a whole one swaps one
   * member for a leaf of `wanted`. `previous` may hold −1 for members that are no leaves any more.
   */
  repairs(previous: LeafSet, wanted: readonly number[]): LeafSet[] {
    const kept = [...new Set(previous.filter((leaf) => leaf !== EMPTY))].slice(0, this.filled);
    const result: LeafSet[] = [];
    const bases = this.isValid(kept)
      ? wanted.length
        ? kept.map((leaf) => kept.filter((other) => other !== leaf))
        : []
      : [
          kept,
          ...(kept.length > 1 ? kept.map((leaf) => kept.filter((other) => other !== leaf)) : []),
        ];
    const seed = hashText(setKey(previous));
    for (const base of bases) {
      const before = result.length;
      for (let n = 0; n < REPAIRS_PER_SET; n++) {
        const found = this.#complete(base, this.isValid(kept) ? wanted : null, hash32(seed, n));
        if (found !== null) result.push(found);
      }
      // What loses nobody else is best; only a set that cannot be completed gives up more members.
      if (base === kept && result.length > before) break;
    }
    return result;
  }

  /**
   * A valid set made of the members of `base` (−1: gone) and, where they are too few, the first
   * leaves of `order` that fit. Members that cannot stay together give way one at a time; null:
   * there is no such set.
   */
  complete(base: LeafSet, order: readonly number[]): LeafSet | null {
    const members = [...new Set(base.filter((leaf) => leaf !== EMPTY))].slice(0, this.filled);
    const attempts = [members, ...members.map((leaf) => members.filter((other) => other !== leaf))];
    for (const attempt of attempts) {
      if (attempt.some((leaf, i) => !this.#apart(leaf, attempt.slice(0, i)))) continue;
      const set = [...attempt];
      while (set.length < this.filled) {
        const last = set.length + 1 === this.filled;
        const next = order.find(
          (leaf) =>
            !set.includes(leaf) && (last ? this.isValid([...set, leaf]) : this.#apart(leaf, set)),
        );
        if (next === undefined) break;
        set.push(next);
      }
      if (this.isValid(set)) return sortedSet(set);
    }
    return null;
  }

  /** Adds leaves (the first one from `first`, if given) until the set is whole; null: none fits. */
  #complete(base: LeafSet, first: readonly number[] | null, seed: number): LeafSet | null {
    const set = [...base];
    while (set.length < this.filled) {
      const pool =
        set.length === base.length && first !== null
          ? first
          : this.#leaves.map((leaf) => leaf.index);
      const ranked = pool
        .filter((leaf) => !set.includes(leaf))
        .map((leaf) => ({ leaf, score: this.#score(leaf, seed, set.length) }));
      ranked.sort((a, b) => b.score - a.score || a.leaf - b.leaf);
      const last = set.length + 1 === this.filled;
      const next = ranked.find(({ leaf }) =>
        last ? this.isValid([...set, leaf]) : this.#apart(leaf, set),
      );
      if (next === undefined) return null;
      set.push(next.leaf);
    }
    return sortedSet(set);
  }

  #apart(leaf: number, set: LeafSet): boolean {
    const level = this.#rules.allDifferentAt;
    return (
      level === null || set.every((other) => this.#node(other, level) !== this.#node(leaf, level))
    );
  }

  #node(leaf: number, level: string): string {
    return this.#leaves[leaf]?.path.get(level) ?? '';
  }

  #score(leaf: number, a: number, b: number): number {
    return hrwScore(hash32(this.#keys[leaf] ?? 0, a, b), this.#leaves[leaf]?.weight ?? 0);
  }

  #holds(rule: Rule, leaf: number, picks: readonly number[]): boolean {
    const mine = this.#node(leaf, rule.level);
    const others = [...rule.names];
    for (const slot of rule.slots) {
      const pick = picks[slot];
      if (pick !== undefined && pick !== EMPTY) others.push(this.#node(pick, rule.level));
    }
    switch (rule.op) {
      case '=':
      case '?=':
        return others.includes(mine);
      case '!=':
        return !others.includes(mine);
      case '>':
        return others.every((other) => compareNodes(mine, other) > 0);
    }
  }

  /** Hard rules of the slot after `picks`. */
  #fits(leaf: number, picks: readonly number[]): boolean {
    return (this.#rules.slots[picks.length] ?? []).every(
      (rule) => rule.op === '?=' || this.#holds(rule, leaf, picks),
    );
  }

  /**
   * Leaves that may take the slot after `picks`; wishes (?=) count only where somebody fulfils
   * them.
   */
  #choices(picks: readonly number[]): number[] {
    let choices = this.#leaves
      .map((leaf) => leaf.index)
      .filter((leaf) => !picks.includes(leaf) && this.#fits(leaf, picks));
    for (const rule of this.#rules.slots[picks.length] ?? []) {
      if (rule.op !== '?=') continue;
      const preferred = choices.filter((leaf) => this.#holds(rule, leaf, picks));
      if (preferred.length) choices = preferred;
    }
    return choices;
  }

  /** Every set that obeys the rules, or null when there are more than `max` ways to go. */
  #enumerate(max: number): number[][] | null {
    const result: number[][] = [];
    const symmetric = this.#rules.allDifferentAt !== null;
    let visits = 0;
    const walk = (picks: readonly number[]): boolean => {
      if (++visits > 4 * max || result.length > max) return false;
      if (picks.length === this.#pgSize) {
        result.push(picks.filter((leaf) => leaf !== EMPTY));
        return true;
      }
      const last = picks[picks.length - 1] ?? EMPTY;
      // In a symmetric set ascending order is enough; after an empty slot only empty ones follow.
      const choices =
        symmetric && picks.length > 0
          ? last === EMPTY
            ? []
            : this.#choices(picks).filter((leaf) => leaf > last)
          : this.#choices(picks);
      if (choices.length === 0) return walk([...picks, EMPTY]);
      return choices.every((leaf) => walk([...picks, leaf]));
    };
    return walk([]) && result.length <= max ? result : null;
  }

  #sample(max: number): number[][] {
    const firsts = this.#choices([]);
    const result = firsts.map((leaf) => this.#draw([leaf], hash32(leaf + 1, 0x5107)));
    for (let n = 0; n < max; n++) result.push(this.#draw([], hash32(n, 0xc0b0)));
    return result.map((picks) => picks.filter((leaf) => leaf !== EMPTY));
  }

  #draw(start: readonly number[], seed: number): number[] {
    const picks = [...start];
    while (picks.length < this.#pgSize) {
      let best = EMPTY;
      let bestScore = Number.NEGATIVE_INFINITY;
      for (const leaf of this.#choices(picks)) {
        const score = this.#score(leaf, seed, picks.length);
        if (score > bestScore) [best, bestScore] = [leaf, score];
      }
      picks.push(best);
    }
    return picks;
  }
}
