// What the pointer shows on parallel coordinates and on the picture of a confusion matrix.

const ways = $('#parallel');
if (ways) {
  const picture = $('svg', ways), paths = $$('[data-trial]', ways);
  const lookAt = (path, x) => {
    $('.near', ways)?.classList.remove('near');
    path.classList.add('near');
    path.parentNode.append(path); // drawn last, it lies on top
    showTip(ways, x, [data.trials[Number(path.dataset.trial)]]);
  };
  const leave = () => {
    $('.near', ways)?.classList.remove('near');
    hideTip(ways);
  };
  picture.addEventListener('pointermove', (event) => {
    const box = picture.getBoundingClientRect(), factor = picture.viewBox.baseVal.width / box.width;
    const at = [(event.clientX - box.left) * factor, (event.clientY - box.top) * factor];
    let best = null, least = 12;
    for (const path of paths) {
      const distance = distanceTo(pointsOf(path), at);
      if (distance < least) [best, least] = [path, distance];
    }
    if (best) lookAt(best, event.clientX - ways.getBoundingClientRect().left);
    else leave();
  });
  picture.addEventListener('pointerleave', leave);
  picture.addEventListener('blur', leave);
  let rank = -1;
  picture.setAttribute('tabindex', '0'); // the keys go from the best run to the worst
  picture.addEventListener('keydown', (event) => {
    const turn = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[event.key];
    if (!turn) return;
    event.preventDefault();
    rank = Math.min(Math.max(rank + turn, 0), paths.length - 1);
    lookAt(paths.find((path) => Number(path.dataset.trial) === rank), 0);
  });
}

function pointsOf(path) {
  path.points ??= path.getAttribute('d').slice(1).split('L').map((each) => each.split(' ').map(Number));
  return path.points;
}

// The vertical distance of a line to a place.
function distanceTo(points, [x, y]) {
  for (let i = 1; i < points.length; i += 1) {
    const [[x0, y0], [x1, y1]] = [points[i - 1], points[i]];
    if (x >= x0 && x <= x1) return Math.abs(y0 + ((y1 - y0) * (x - x0)) / (x1 - x0) - y);
  }
  return Infinity;
}

for (const image of $$('[data-matrix]')) {
  const block = Number(image.dataset.block), figure = image.closest('figure');
  let pixels = null;
  image.addEventListener('pointermove', (event) => {
    const box = image.getBoundingClientRect(), size = image.naturalWidth;
    const at = (value, start, length) => Math.min(Math.max(Math.floor(((value - start) / length) * size), 0), size - 1);
    const row = at(event.clientY, box.top, box.height), column = at(event.clientX, box.left, box.width);
    pixels ??= read(image);
    const [, , blue, alpha] = pixels.getImageData(column, row, 1, 1).data;
    const share = alpha ? Math.max((alpha / 2 - 30) / 97, 0) ** 2 : 0, sign = blue < 128 && alpha ? '−' : '';
    const named = (place) => data.classes[place * block] + (block > 1 ? ` … (${block} classes)` : '');
    showTip(figure, event.clientX - figure.getBoundingClientRect().left, [
      make('div', {}, 'label: ', make('b', {}, named(row))),
      make('div', {}, 'prediction: ', make('b', {}, named(column))),
      make('div', {}, `about ${sign}${(100 * share).toFixed(share < 0.1 ? 1 : 0)}% of the label`),
    ]);
  });
  image.addEventListener('pointerleave', () => hideTip(figure));
}

function read(image) {
  const canvas = make('canvas', { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context;
}
