// SPDX-License-Identifier: GPL-2.0-or-later
// Columns of text. Source: tools 1.

export interface Column {
  title: string;
  align?: 'left' | 'right';
}

export interface TableOptions {
  /** Bold header. */
  color: boolean;
}

/** Cells padded to the widest, two blanks between; one line a row, header first. Ends without a line break. */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  options: TableOptions,
): string {
  const widths = columns.map((column, i) => Math.max(width(column.title), ...rows.map((row) => width(row[i] ?? ''))));
  const line = (cells: readonly string[]): string =>
    columns.map((column, i) => pad(cells[i] ?? '', widths[i] ?? 0, column.align ?? 'left')).join('  ');
  const header = line(columns.map((column) => column.title));
  return [options.color ? `\u001b[1m${header}\u001b[0m` : header, ...rows.map(line)].join('\n');
}

/** Code points, not UTF-16 units: names may hold anything. */
function width(text: string): number {
  return [...text].length;
}

function pad(text: string, size: number, align: 'left' | 'right'): string {
  const blanks = ' '.repeat(size - width(text));
  return align === 'left' ? text + blanks : blanks + text;
}
