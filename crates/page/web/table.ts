// Tables as programs write them: a row on each line, and between its cells a comma, a semicolon or a tabulator. A cell
// with one of those in it stands between quotes, and a quote in such a cell is doubled (RFC 4180).

/** How much of a table is shown. */
const ROWS_MAX = 201;
const COLUMNS_MAX = 40;

export function cells(text: string, tabs: boolean): string[][] {
  const first = text.split('\n', 1)[0] ?? '';
  const between = tabs ? '\t' : first.split(';').length > first.split(',').length ? ';' : ',';
  const rows: string[][] = [];
  let row: string[] = [];
  let cell = '';
  let quoted = false;
  const endCell = (): void => {
    if (row.length < COLUMNS_MAX) row.push(cell.trim());
    cell = '';
  };
  const endRow = (): void => {
    endCell();
    if (row.length > 1 || row[0]) rows.push(row);
    row = [];
  };
  for (let at = 0; at < text.length && rows.length < ROWS_MAX; at += 1) {
    const c = text.charAt(at);
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text.charAt(at + 1) === '"') {
        cell += '"';
        at += 1;
      } else quoted = false;
    } else if (c === '"' && cell.trim() === '') {
      cell = '';
      quoted = true;
    } else if (c === between) endCell();
    else if (c === '\n') endRow();
    else if (c !== '\r') cell += c;
  }
  if (rows.length < ROWS_MAX && (cell || row.length > 0)) endRow();
  return rows;
}
