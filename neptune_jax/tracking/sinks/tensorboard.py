"""TensorBoard event files, in the folder `tensorboard` of the run directory; without TensorFlow.

    tensorboard --logdir=runs

Event files can only grow, so a replay starts a new one and removes the one before.
"""

import contextlib

import numpy as np
import tensorboardX
from PIL import Image

_LONGEST_TEXT = 100_000  # bytes


@contextlib.contextmanager
def open_sink(record):
    """Opens a new event file."""
    folder = record.workdir / 'tensorboard'
    for path in folder.glob('events.out.tfevents.*'):
        path.unlink()
    with tensorboardX.SummaryWriter(str(folder)) as writer:
        sink = _TensorBoard(writer, folder)
        yield sink
        sink.write_tables(final=True)


class _TensorBoard:
    def __init__(self, writer, folder):
        self._writer, self.address = writer, str(folder)
        self._values, self._changed = {}, set()  # values by group and name; groups not written yet

    def has(self, key):
        return False

    def log(self, key, points):
        for step, time, value in points:
            self._writer.add_scalar(key, value, int(step), time)

    def assign(self, values):
        for key, value in values.items():
            group, _, name = key.partition('/')
            self._values.setdefault(group, {})[name] = value
            self._changed.add(group)

    def upload(self, key, path):
        if path.suffix == '.png':
            with Image.open(path) as image:
                self._writer.add_image(key, np.asarray(image.convert('RGB')), dataformats='HWC')
        elif path.suffix in ('.csv', '.json', '.txt') and path.stat().st_size < _LONGEST_TEXT:
            indented = path.read_text().replace('\n', '\n    ')  # Markdown keeps that as it is
            self._writer.add_text(key, f'    {indented}')

    def flush(self):
        self.write_tables()
        self._writer.flush()

    def write_tables(self, final=False):
        """Writes the groups of values that have changed; the summary, which always does, once."""
        for group in sorted(self._changed if final else self._changed - {'summary'}):
            rows = (f'| {name} | {value} |' for name, value in sorted(self._values[group].items()))
            self._writer.add_text(group, '\n'.join(('| | |', '|---|---|', *rows)))
            self._changed.discard(group)
