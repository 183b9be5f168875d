"""TensorBoard: event files in the folder `tensorboard` of the run directory, without TensorFlow.

    tensorboard --logdir=runs

An event file can only grow, so each replay writes a new one and removes the previous one.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorboardX
from PIL import Image

from neptune_jax.tracking.sinks import Point, Record, Sink, Value

_MAX_TEXT_BYTES = 100_000


@contextlib.contextmanager
def open_sink(record: Record) -> Iterator[Sink]:
    """Opens a new event file."""
    folder = record.workdir / 'tensorboard'
    for path in folder.glob('events.out.tfevents.*'):
        path.unlink()
    with tensorboardX.SummaryWriter(str(folder)) as writer:
        sink = _TensorBoard(writer, folder)
        yield sink
        sink.write_tables(final=True)


class _TensorBoard:
    def __init__(self, writer: tensorboardX.SummaryWriter, folder: Path) -> None:
        self._writer = writer
        self.address = str(folder)
        self._values: dict[str, dict[str, Value]] = {}  # by group, then by name
        self._changed: set[str] = set()  # groups whose table is outdated

    def has(self, key: str) -> bool:
        return False  # the event file is new

    def log(self, key: str, points: Sequence[Point]) -> None:
        for step, time, value in points:
            self._writer.add_scalar(key, value, int(step), time)

    def assign(self, values: dict[str, Value]) -> None:
        for key, value in values.items():
            group, _, name = key.partition('/')
            self._values.setdefault(group, {})[name] = value
            self._changed.add(group)

    def upload(self, key: str, path: Path) -> None:
        if path.suffix == '.png':
            with Image.open(path) as image:
                self._writer.add_image(key, np.asarray(image.convert('RGB')), dataformats='HWC')
        elif path.suffix in ('.csv', '.json', '.txt') and path.stat().st_size < _MAX_TEXT_BYTES:
            # Texts are shown as Markdown, which leaves indented lines as they are.
            indented = path.read_text().replace('\n', '\n    ')
            self._writer.add_text(key, f'    {indented}')

    def flush(self) -> None:
        self.write_tables()
        self._writer.flush()

    def write_tables(self, final: bool = False) -> None:
        """Writes a table for each group whose values have changed.

        The summary changes all the time, so its table is written at the end only.
        """
        for group in sorted(self._changed if final else self._changed - {'summary'}):
            rows = (f'| {name} | {value} |' for name, value in sorted(self._values[group].items()))
            self._writer.add_text(group, '\n'.join(('| | |', '|---|---|', *rows)))
            self._changed.discard(group)
