// SPDX-License-Identifier: GPL-2.0-or-later
// Placement rules: what a pool demands of the nodes in its slots, whichever way it was written.
// Source: etcd schema 9.2.

import { VitastorError, type PoolConfig } from '@vitastor/core';

export type RuleOperator = '=' | '!=' | '>' | '?=';

/**
 * The node of this slot's OSD at `level`, compared with the nodes of earlier slots and with names.
 */
export interface Rule {
  level: string;
  op: RuleOperator;
  /** Earlier slots, from 0. */
  slots: readonly number[];
  names: readonly string[];
}

export interface PlacementRules {
  /** One list a slot; empty = any OSD. */
  slots: readonly (readonly Rule[])[];
  /**
   * Only "all different at this level": any order of a set is as good as another, and checks are
   * quick. null: anything else.
   */
  allDifferentAt: string | null;
}

/**
 * The rules of a pool. Throws ERR_BAD_VALUE for a raw_placement that does not parse or has not
 * pg_size slots.
 */
export function rulesOf(pool: PoolConfig): PlacementRules {
  if (pool.rawPlacement !== '')
    return { slots: parseRules(pool.rawPlacement, pool.pgSize), allDifferentAt: null };
  const slots: Rule[][] = Array.from({ length: pool.pgSize }, () => []);
  for (const [level, pattern] of pool.levelPlacement) addPattern(slots, level, pattern);
  addPattern(
    slots,
    pool.failureDomain,
    slots.map((_, i) => String(i)),
  );
  return { slots, allDifferentAt: pool.levelPlacement.size ? null : pool.failureDomain };
}

function addPattern(slots: Rule[][], level: string, pattern: readonly string[]): void {
  const firsts = new Map<string, number>();
  pattern.forEach((letter, i) => {
    const first = firsts.get(letter);
    if (first !== undefined) {
      slots[i]?.push({ level, op: '=', slots: [first], names: [] });
      return;
    }
    if (firsts.size) slots[i]?.push({ level, op: '!=', slots: [...firsts.values()], names: [] });
    firsts.set(letter, i);
  });
}

/**
 * True if the rules keep every two slots apart, so that a folded node can be used once in a set at
 * most.
 */
export function keepsSlotsApart(rules: PlacementRules): boolean {
  if (rules.allDifferentAt !== null) return true;
  return rules.slots.every((list, i) => {
    const apart = new Set(
      list.filter((rule) => rule.op === '!=' || rule.op === '>').flatMap((rule) => rule.slots),
    );
    return apart.size === i;
  });
}

export function mentionedLevels(rules: PlacementRules): Set<string> {
  return new Set(rules.slots.flatMap((list) => list.map((rule) => rule.level)));
}

const TOKEN = /\s*(?:([,\n])|(\?=|!=|=|>)|([()])|"((?:[^"\\]|\\.)*)"|([^\s,()=!>?"]+))/y;

interface Token {
  kind: 'separator' | 'operator' | 'bracket' | 'quoted' | 'word' | 'end';
  text: string;
}

function tokens(text: string): Token[] {
  const result: Token[] = [];
  // A newline separates slots as a comma does; one that follows a comma or starts the text adds
  // nothing.
  const source = text
    .trim()
    .replace(/,\s*\n\s*/g, ',')
    .replace(/\s*\n\s*/g, ',');
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < source.length) {
    const at = TOKEN.lastIndex;
    const found = TOKEN.exec(source);
    if (!found) throw ruleError(`cannot read it from "${source.slice(at, at + 20)}" on`);
    const [, separator, operator, bracket, quoted, word] = found;
    if (separator !== undefined) result.push({ kind: 'separator', text: separator });
    else if (operator !== undefined) result.push({ kind: 'operator', text: operator });
    else if (bracket !== undefined) result.push({ kind: 'bracket', text: bracket });
    else if (quoted !== undefined)
      result.push({ kind: 'quoted', text: quoted.replace(/\\(.)/g, '$1') });
    else result.push({ kind: 'word', text: word ?? '' });
  }
  return result;
}

function ruleError(reason: string): VitastorError {
  return new VitastorError('ERR_BAD_VALUE', `raw_placement: ${reason}`, {
    data: { path: 'raw_placement', reason },
  });
}

const END: Token = { kind: 'end', text: 'the end' };

/** Parses the rule language. Throws ERR_BAD_VALUE. */
export function parseRules(text: string, pgSize: number): Rule[][] {
  const list = tokens(text);
  let at = 0;
  const next = (): Token => list[at++] ?? END;
  const slots: Rule[][] = [[]];
  while (at < list.length) {
    const token = next();
    const slot = slots[slots.length - 1] ?? [];
    if (token.kind === 'separator') {
      slots.push([]);
    } else if (token.kind === 'word' && list[at]?.kind !== 'operator') {
      if (token.text !== 'any') throw ruleError(`expected "any" or level=…, not "${token.text}"`);
    } else if (token.kind === 'word' || token.kind === 'quoted') {
      const op = next();
      const args = operands(next);
      const rule: Rule = { level: token.text, op: op.text as RuleOperator, slots: [], names: [] };
      slot.push(resolve(rule, args, slots.length - 1));
    } else {
      throw ruleError(`unexpected "${token.text}" in slot ${slots.length}`);
    }
  }
  if (slots.length !== pgSize)
    throw ruleError(`has ${slots.length} slots, but pg_size is ${pgSize}`);
  return slots;
}

function operands(next: () => Token): Token[] {
  const first = next();
  if (first.kind === 'word' || first.kind === 'quoted') return [first];
  if (first.text !== '(')
    throw ruleError(`expected a slot number, a name or "(", not "${first.text}"`);
  const result: Token[] = [];
  for (;;) {
    const item = next();
    if (item.kind !== 'word' && item.kind !== 'quoted')
      throw ruleError(`expected a slot number or a name, not "${item.text}"`);
    result.push(item);
    const after = next();
    if (after.text === ')') return result;
    if (after.kind !== 'separator') throw ruleError(`expected "," or ")", not "${after.text}"`);
  }
}

function resolve(rule: Rule, args: readonly Token[], slot: number): Rule {
  const slots: number[] = [];
  const names: string[] = [];
  for (const arg of args) {
    if (arg.kind === 'word' && /^\d+$/.test(arg.text)) {
      const ref = Number(arg.text) - 1;
      if (ref < 0 || ref >= slot)
        throw ruleError(`slot ${slot + 1} may refer to slots 1 to ${slot} only, not ${arg.text}`);
      slots.push(ref);
    } else {
      names.push(arg.text);
    }
  }
  return { ...rule, slots, names };
}
