// SPDX-License-Identifier: GPL-2.0-or-later
// What somebody may have meant by a word that is none.

/** Single letters put in, left out, replaced or swapped with their neighbour on the way from `a` to `b`. */
export function editDistance(a: string, b: string): number {
  let [before, last]: [number[], number[]] = [[], Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let least = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last[j - 1] ?? 0) + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) least = Math.min(least, (before[j - 2] ?? 0) + 1);
      row.push(least);
    }
    [before, last] = [last, row];
  }
  return last[b.length] ?? 0;
}

/** The candidate that is nearest, if one mistake in three letters explains it; '' = none. */
export function nearest(word: string, candidates: Iterable<string>): string {
  let [best, least] = ['', Math.max(1, Math.floor(word.length / 3)) + 1];
  for (const candidate of candidates) {
    const distance = editDistance(word, candidate);
    if (distance < least) [best, least] = [candidate, distance];
  }
  return best;
}

/** `, did you mean status?`, or ''. */
export function didYouMean(word: string, candidates: Iterable<string>, prefix = ''): string {
  const found = nearest(word, candidates);
  return found === '' ? '' : `, did you mean ${prefix}${found}?`;
}
