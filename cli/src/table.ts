// SPDX-License-Identifier: GPL-2.0-or-later
// Columns of text. Source: tools 1.

export interface Column {
  title: string;
  align?: 'left' | 'right';
}

export interface TableOptions {
  /** Bold header. */
  color: boolean;
  /** Lines are to be no longer, if columns of text can be cut for it; absent or 0 = as long as they are. */
  columns?: number;
}

/** Cut columns keep this many characters at least, and their titles. */
const LEAST_WIDTH = 12;
const GAP = 2;

/** Cells padded to the widest, two blanks between; one line a row, header first. Ends without a line break. */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  options: TableOptions,
): string {
  const natural = columns.map((column, i) => rows.reduce((most, row) => Math.max(most, width(row[i] ?? '')), width(column.title)));
  const widths = options.columns ? fitted(columns, natural, options.columns) : natural;
  const line = (cells: readonly string[]): string => {
    const text = columns.map((column, i) => pad(cut(cells[i] ?? '', widths[i] ?? 0), widths[i] ?? 0, column.align ?? 'left')).join(' '.repeat(GAP));
    // Blanks at the end would wrap.
    return options.columns ? text.trimEnd() : text;
  };
  const header = line(columns.map((column) => column.title));
  return [options.color ? `\u001b[1m${header}\u001b[0m` : header, ...rows.map(line)].join('\n');
}

/** The widest columns become narrower, all of them alike, until a line fits. */
function fitted(columns: readonly Column[], natural: readonly number[], limit: number): number[] {
  const least = columns.map((column, i) => Math.min(natural[i] ?? 0, Math.max(LEAST_WIDTH, width(column.title))));
  const room = limit - GAP * (columns.length - 1);
  const at = (cap: number): number[] => natural.map((size, i) => Math.max(Math.min(size, cap), least[i] ?? 0));
  const total = (sizes: readonly number[]): number => sizes.reduce((sum, size) => sum + size, 0);
  let cap = Math.max(0, ...natural);
  while (cap > LEAST_WIDTH && total(at(cap)) > room) cap--;
  return at(cap);
}

function cut(text: string, size: number): string {
  return width(text) <= size ? text : `${[...text].slice(0, Math.max(0, size - 1)).join('')}…`;
}

/** Code points, not UTF-16 units: names may hold anything. */
function width(text: string): number {
  return [...text].length;
}

function pad(text: string, size: number, align: 'left' | 'right'): string {
  const blanks = ' '.repeat(size - width(text));
  return align === 'left' ? text + blanks : blanks + text;
}
