// Makes the report interactive: tables sort, filter and copy; charts answer to the pointer and keys.
// Without it the page shows the same. All text of others goes through textContent.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const data = JSON.parse($('#data').textContent);
$$('.tools').forEach((each) => { each.hidden = false; });
addEventListener('beforeprint', () => $$('details').forEach((each) => { each.open = true; }));

function make(name, properties = {}, ...content) {
  const element = document.createElement(name);
  Object.assign(element, properties);
  element.append(...content);
  return element;
}

// -------------------------------------------------------------------------------------- tables
const valueOf = (cell) => cell.dataset.v ?? cell.textContent;

// A number as the tables write it, or NaN: 1,234 and −0.5 are numbers.
function numberOf(text) {
  const plain = text.trim().replaceAll(',', '').replace('−', '-');
  return plain ? Number(plain) : NaN;
}

function compare(one, other) {
  const [a, b] = [numberOf(one), numberOf(other)];
  if (!isNaN(a) && !isNaN(b)) return a - b;
  if (!isNaN(a) || !isNaN(b)) return isNaN(a) ? 1 : -1;
  return one.localeCompare(other, undefined, { numeric: true });
}

function sortBy(table, header) {
  const column = header.cellIndex, down = header.ariaSort !== 'descending';
  $$('thead th', table).forEach((each) => { each.ariaSort = null; });
  header.ariaSort = down ? 'descending' : 'ascending';
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [valueOf(row.cells[column]), row]);
  const isEmpty = ([text]) => ['', '–', '-'].includes(text.trim());
  rows.sort((one, other) => isEmpty(one) - isEmpty(other)
    || (down ? -1 : 1) * compare(one[0], other[0]));
  body.append(...rows.map(([, row]) => row));
}

for (const table of $$('table[id]')) {
  for (const header of $$('thead th', table)) {
    const button = make('button', { type: 'button' }, ...header.childNodes);
    button.addEventListener('click', () => sortBy(table, header));
    header.append(button);
  }
}

function count(table) {
  const rows = [...table.tBodies[0].rows], shown = rows.filter((row) => !row.hidden).length;
  const text = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  $(`[data-count="${table.id}"]`).textContent = text;
}

for (const input of $$('[data-filter]')) {
  const table = document.getElementById(input.dataset.filter);
  input.addEventListener('input', () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    count(table);
  });
  count(table);
}

// ------------------------------------------------------------------------------------- copying
// As neptune_jax/reporting/escaping.py: nothing of a name is markup, a command or a formula.
function markdown(text) {
  const entity = (found) => [...found].map((each) => `&#${each.charCodeAt(0)};`).join('');
  return text.replace(/([\\`*[\]{}|~#!$])/g, '\\$1')
    .replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
    .replace(/(?<![\p{L}\p{N}_])_|_(?![\p{L}\p{N}_])/gu, '\\_')
    .replace(/(?<=[\p{L}\p{N}_]):\/\/|@|(?<=www)\./gu, entity);
}

const commands = {
  '\\': '\\textbackslash{}', '^': '\\textasciicircum{}', '~': '\\textasciitilde{}',
  '<': '\\textless{}', '>': '\\textgreater{}', '|': '\\textbar{}', '"': '\\textquotedbl{}',
  "'": '\\textquotesingle{}', '`': '\\textasciigrave{}', '[': '{[}', ']': '{]}', '*': '{*}',
  '±': '$\\pm$', '−': '$-$', '–': '--',
};
const latex = (text) => text
  .replace(/[\\^~<>|"'`[\]*±−–{}$&#%_]|-(?=-)/g, (one) => commands[one] ?? (one === '-' ? '-{}' : `\\${one}`));

function quoted(text) {
  const plain = /^[=+\-@\t\r\n]/.test(text) && isNaN(numberOf(text)) ? `'${text}` : text;
  return /[",\n\r]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

const forms = {
  Markdown(head, rows, numeric) {
    const line = (cells) => `| ${cells.join(' | ')} |`;
    const ruler = line(numeric.map((each) => (each ? '---:' : '---')));
    return [line(head.map(markdown)), ruler, ...rows.map((cells) => line(cells.map(markdown)))];
  },
  LaTeX(head, rows, numeric) {
    const line = (cells) => `${cells.map(latex).join(' & ')} \\\\`;
    const columns = numeric.map((each) => (each ? 'r' : 'l')).join('');
    return ['% \\usepackage{booktabs}', `\\begin{tabular}{${columns}}`, '\\toprule', line(head),
      '\\midrule', ...rows.map(line), '\\bottomrule', '\\end{tabular}'];
  },
  CSV: (head, rows) => [head, ...rows].map((cells) => cells.map(quoted).join(',')),
};

// The text of the rows that are shown. CSV has all digits of a number.
function asText(table, form) {
  const headers = [...table.tHead.rows[0].cells];
  const text = (cell) => {
    const shown = cell.textContent.trim(), exact = cell.dataset.v;
    if (exact !== undefined && (!shown || form === 'CSV')) return exact;
    return form === 'CSV' && !isNaN(numberOf(shown)) ? String(shown.replaceAll(',', '').replace('−', '-')) : shown;
  };
  const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
  return `${forms[form](
    headers.map((each) => each.textContent.trim()),
    rows.map((row) => [...row.cells].map(text)),
    headers.map((each) => each.classList.contains('n')),
  ).join('\n')}\n`;
}

async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // not allowed for a file, or an old browser
    const area = make('textarea', { value: text });
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
    button.focus();
  }
  button.textContent = 'Copied';
  setTimeout(() => { button.textContent = before; }, 1200);
}

for (const button of $$('[data-copy]')) {
  button.addEventListener('click', () => {
    const source = document.getElementById(button.dataset.copy);
    copy(button.dataset.form ? asText(source, button.dataset.form) : source.textContent, button);
  });
}

