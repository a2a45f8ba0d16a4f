// SPDX-License-Identifier: GPL-2.0-or-later
// Patterns of image and pool names: `*`, `?`, backslash escapes; the whole name must match.

export function matchesGlob(pattern: string, name: string): boolean {
  const source = pattern.replace(
    /\\([\s\S])|([\s\S])/g,
    (_, escaped: string | undefined, plain: string | undefined) => {
      if (escaped !== undefined) return literal(escaped);
      return plain === '*' ? '[\\s\\S]*' : plain === '?' ? '[\\s\\S]' : literal(plain ?? '');
    },
  );
  return new RegExp(`^${source}$`, 'u').test(name);
}

export function matchesAny(patterns: readonly string[], name: string, exact: boolean): boolean {
  return patterns.length === 0 || patterns.some((pattern) => (exact ? pattern === name : matchesGlob(pattern, name)));
}

function literal(c: string): string {
  return c.replace(/[\\^$.*+?()[\]{}|]/, '\\$&');
}
