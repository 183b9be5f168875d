// Learning curves: drawn again with the axes, the smoothing and the runs that a reader chooses.

const WIDTH = 400, HEIGHT = 250, LEFT = 50, RIGHT = 12, TOP = 10, BOTTOM = 34;
const place = (value) => String(Math.round(value * 10) / 10);

function shown(value) {
  if (Number.isInteger(value)) return value.toLocaleString('en-US');
  const small = value !== 0 && Math.abs(value) < 1e-4;
  return small ? value.toExponential(2).replace(/\.?0+e/, 'e') : String(+value.toPrecision(4));
}

function svg(name, attributes, ...content) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...content);
  return element;
}

// The scale of an axis, as charts.Axis has it.
function scale(values, start, end, log, pad) {
  const fine = values.filter((each) => isFinite(each) && (each > 0 || !log));
  let low = fine.length ? fine.reduce((a, b) => Math.min(a, b)) : 0.1;
  let high = fine.length ? fine.reduce((a, b) => Math.max(a, b)) : 1;
  if (log) {
    const factor = high > low ? (high / low) ** pad : 1.5;
    [low, high] = [low / factor, high * factor];
  } else {
    const room = pad * (high - low) || Math.max(Math.abs(low) * 0.05, 1e-9);
    [low, high] = [low - room, high + room];
  }
  const of = log ? Math.log : (each) => each;
  const toPlace = (each) => start + ((end - start) * (of(each) - of(low))) / (of(high) - of(low));
  return Object.assign(toPlace, { low, high, log, start, end });
}

function ticks({ low, high, log }, count = 5) {
  if (log && high / low >= 10) {
    const all = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e += 1) {
      all.push(...[1, 2, 5].map((each) => each * 10 ** e));
    }
    const inside = all.filter((each) => each >= low && each <= high);
    const tens = inside.filter((each) => Math.abs(Math.log10(each) % 1) < 1e-9);
    return tens.length < 3 ? inside : tens.filter((_, i) => i % Math.ceil(tens.length / count) === 0);
  }
  const rough = (high - low) / count, size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * size).find((each) => each >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) {
    found.push(+(i * step).toPrecision(12));
  }
  return found;
}

// The texts of ticks; those of a linear axis have the same number of digits.
function labels(axis) {
  const found = ticks(axis), most = Math.max(0, ...found.map(Math.abs));
  if (axis.log || most < 1e-4) return found.map((value) => [value, shown(value)]);
  const places = Math.max(0, ...found.map((value) => (String(value).split('.')[1] ?? '').length));
  const options = { minimumFractionDigits: places, maximumFractionDigits: places };
  return found.map((value) => [value, value.toLocaleString('en-US', options).replace('-', '−')]);
}

function frame(across, up, label) {
  const group = svg('g', { class: 'frame', 'aria-hidden': 'true' });
  const bottom = HEIGHT - BOTTOM, right = WIDTH - RIGHT;
  for (const [value, text] of labels(up)) {
    const y = place(up(value));
    group.append(svg('path', { class: 'grid', d: `M${LEFT} ${y}H${right}` }));
    group.append(svg('text', { class: 'end', x: LEFT - 6, y, dy: '.32em' }, text));
  }
  for (const [value, text] of labels(across)) {
    const x = place(across(value));
    group.append(svg('path', { class: 'tick', d: `M${x} ${bottom}v4` }));
    group.append(svg('text', { class: 'middle', x, y: bottom + 16 }, text));
  }
  group.append(svg('path', { class: 'axis', d: `M${LEFT} ${bottom}H${right}` }));
  group.append(svg('text', { class: 'end label', x: right, y: bottom + 30 }, label));
  return group;
}

function path(points, across, up) {
  let d = '', isDown = false;
  for (const [x, y] of points) {
    const canBeShown = isFinite(y) && y !== null && (y > 0 || !up.log) && (x > 0 || !across.log);
    if (canBeShown) d += `${isDown ? 'L' : 'M'}${place(across(x))} ${place(up(y))}`;
    isDown = canBeShown;
  }
  return d.includes('L') ? d : `${d}h0`;
}

// A moving average with exponential weights, corrected for its start (Kingma and Ba, 2015).
function smooth(values, weight) {
  let sum = 0, total = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

const state = { x: 'step', show: 'runs', logX: false, logY: false, smooth: 0 };
const hiddenGroups = new Set();

function linesOf(key) {
  const found = [];
  for (const [number, steps, values] of data.curves[key]) {
    const [name, group, epoch] = data.runs[number];
    if (hiddenGroups.has(group) || (state.x === 'epoch' && !epoch)) continue;
    const smoothed = smooth(values, state.smooth);
    const points = data.steps[steps].map((step, i) => [state.x === 'epoch' ? step / epoch : step, smoothed[i]]);
    found.push({ name, group, points, band: [] });
  }
  if (state.show !== 'groups') return found;
  const groups = new Map();
  for (const { group, points } of found) {
    const own = groups.get(group) ?? groups.set(group, new Map()).get(group);
    for (const [x, y] of points) if (y !== null) own.set(x, [...(own.get(x) ?? []), y]);
  }
  return [...groups].map(([group, own]) => {
    const all = [...own].sort((a, b) => a[0] - b[0]);
    return {
      name: data.groups[group][0],
      group,
      points: all.map(([x, ys]) => [x, ys.reduce((a, b) => a + b) / ys.length]),
      band: all.some(([, ys]) => ys.length > 1) ? all.map(([x, ys]) => [x, Math.min(...ys), Math.max(...ys)]) : [],
    };
  });
}

function draw(figure) {
  const lines = linesOf(figure.dataset.curve), picture = $('svg', figure);
  const ys = lines.flatMap(({ points, band }) => [...points.map((p) => p[1]), ...band.flatMap((b) => b.slice(1))]);
  const across = scale(lines.flatMap(({ points }) => points.map((p) => p[0])), LEFT, WIDTH - RIGHT, state.logX, 0.02);
  const up = scale(ys.filter((each) => each !== null), HEIGHT - BOTTOM, TOP, state.logY, 0.04);
  const drawn = [...lines].sort((a, b) => b.group - a.group).map(({ group, points, band }) => {
    const color = data.groups[group][1];
    const parts = svg('g', { class: color === null ? 'cx' : `c${color}` });
    if (band.length > 1) {
      const edge = [...band.map(([x, low]) => [x, low]), ...band.map(([x, , high]) => [x, high]).reverse()];
      parts.append(svg('path', { class: 'band', d: `${path(edge, across, up)}Z` }));
    }
    parts.append(svg('path', { class: 'line', d: path(points, across, up) }));
    return parts;
  });
  picture.replaceChildren(frame(across, up, state.x), ...drawn);
  figure.chart = { lines, across, up };
  figure.at = undefined;
}

// ---------------------------------------------------------------------- pointer, keys, controls
function showTip(figure, x, content) {
  const tip = $('.tip', figure) ?? figure.appendChild(make('div', { className: 'tip', role: 'status' }));
  tip.replaceChildren(...content);
  tip.hidden = false;
  const width = figure.clientWidth, isRight = x > width / 2;
  tip.style.left = isRight ? 'auto' : `${x + 12}px`;
  tip.style.right = isRight ? `${width - x + 12}px` : 'auto';
  tip.style.top = '2.2rem';
}

function hideTip(figure) {
  $$('.tip, .crosshair', figure).forEach((each) => each.remove());
}

// Shows the values of all lines nearest to a place on the horizontal axis.
function look(figure, x) {
  const { lines, across, up } = figure.chart;
  const near = lines.map((line) => {
    const points = line.points.filter((point) => point[1] !== null);
    const nearest = points.reduce((best, point) =>
      (Math.abs(across(point[0]) - x) < Math.abs(across(best[0]) - x) ? point : best), points[0]);
    return { ...line, nearest };
  }).filter(({ nearest }) => nearest);
  if (!near.length) return;
  const at = near.reduce((a, b) =>
    (Math.abs(across(b.nearest[0]) - x) < Math.abs(across(a.nearest[0]) - x) ? b : a)).nearest[0];
  const picture = $('svg', figure);
  $('.crosshair', picture)?.remove();
  const cross = svg('g', { class: 'crosshair' }, svg('path', { class: 'cross', d: `M${place(across(at))} ${TOP}V${HEIGHT - BOTTOM}` }));
  const colorOf = (group) => (data.groups[group][1] === null ? 'cx' : `c${data.groups[group][1]}`);
  for (const { group, nearest: [px, py] } of near) {
    if (py <= 0 && up.log) continue;
    cross.append(svg('circle', { class: `hover ${colorOf(group)}`, cx: place(across(px)), cy: place(up(py)), r: 3.5 }));
  }
  picture.append(cross);
  near.sort((a, b) => b.nearest[1] - a.nearest[1]);
  const rows = near.slice(0, 10).map(({ name, group, nearest }) => make('div', {},
    make('span', { className: 'n' }, shown(nearest[1])), make('span', { className: `mark ${colorOf(group)}` }, name)));
  if (near.length > 10) rows.push(make('div', {}, `and ${near.length - 10} more`));
  figure.at = at;
  const factor = picture.clientWidth / WIDTH;
  showTip(figure, picture.offsetLeft + across(at) * factor || across(at) * factor, [make('b', {}, `${state.x} ${shown(at)}`), ...rows]);
}

function listen(figure) {
  const picture = $('svg', figure);
  picture.setAttribute('tabindex', '0');
  picture.addEventListener('pointermove', (event) => {
    const box = picture.getBoundingClientRect();
    look(figure, ((event.clientX - box.left) * WIDTH) / box.width);
  });
  picture.addEventListener('pointerleave', () => hideTip(figure));
  picture.addEventListener('blur', () => hideTip(figure));
  picture.addEventListener('keydown', (event) => {
    const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === 'Escape') hideTip(figure);
    if (!turn) return;
    event.preventDefault();
    const { lines, across } = figure.chart;
    const all = [...new Set(lines.flatMap(({ points }) => points.map((point) => point[0])))].sort((a, b) => a - b);
    const next = figure.at === undefined ? (turn > 0 ? 0 : all.length - 1)
      : Math.min(Math.max(all.indexOf(figure.at) + turn, 0), all.length - 1);
    look(figure, across(all[next]));
  });
}

const curves = $$('[data-curve]'), redraw = () => curves.forEach(draw);
if (curves.length) {
  for (const control of $$('[data-set]')) {
    const key = control.dataset.set;
    const read = () => (control.type === 'checkbox' ? control.checked : control.type === 'range' ? Number(control.value) : control.value);
    state[key] = read();
    control.addEventListener('input', () => {
      state[key] = read();
      if (key === 'smooth') $('#curve-tools output').textContent = control.value;
      if (key === 'show') $('[data-bands]').hidden = state.show !== 'groups';
      redraw();
    });
  }
  for (const item of $$('[data-group]')) {
    const button = make('button', { type: 'button', ariaPressed: 'true' }, ...item.childNodes);
    button.addEventListener('click', () => {
      const group = Number(item.dataset.group), isHidden = hiddenGroups.has(group);
      if (isHidden) hiddenGroups.delete(group); else hiddenGroups.add(group);
      button.ariaPressed = String(isHidden);
      redraw();
    });
    item.append(button);
  }
  redraw();
  curves.forEach(listen);
}
