"""From image files to rows of predictions: decoding, computing and writing at the same time."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from neptune_jax import terminal
from neptune_jax.inference.predictor import Predictor
from neptune_jax.predicting import explaining, image_files, input_checks, outputs
from neptune_jax.predicting.outputs import Output
from neptune_jax.predicting.rows import Prediction, top_classes

BATCH_PIXELS = 2**20  # of a batch, about; but a batch has
FEWEST, MOST = 32, 256  # at least and at most so many images


def default_batch_size(image_shape: tuple[int, int, int], count: int) -> int:
    """Returns a power of two that suits a number of images of a shape (height, width, channels)."""
    fitting = min(MOST, max(FEWEST, BATCH_PIXELS // math.prod(image_shape)))
    return min(1 << (fitting.bit_length() - 1), 1 << (max(1, count) - 1).bit_length())


def predict_run(
    workdir: str,
    files: Sequence[str],
    *,
    checkpoint: str,
    resize: str,
    top: int,
    batch_size: int | None,
    processes: int | None,
    out: str | None,
    form: str,
    resume: bool,
    explain: str | None,
) -> int:
    """Predicts the classes of image files with a finished run. Returns how many are unreadable.

    Args:
        workdir: the run directory.
        files: their names.
        checkpoint: 'best', 'last', or a step.
        resize: how files of another size become images; '': as in the training.
        top: classes in a row.
        batch_size: images at once; None: as many as suit.
        processes: that decode (`image_files.read_all`).
        out: the file for the rows; None: standard output.
        form: of what is printed: 'text', 'json' or 'csv'.
        resume: whether to continue the file.
        explain: the folder for pictures that explain the rows; None: draw none.

    Raises:
        UserError: a flag that cannot be followed, or no usable run.
    """
    if explain:
        explaining.check_new(explain, files, resume)
    predictor = Predictor.from_run(workdir, checkpoint, resize)
    for note in predictor.notes:
        terminal.line(f'note     {note}')
    top = min(top, len(predictor.classes))
    size = batch_size or default_batch_size(predictor.image_shape, len(files))
    with outputs.open_output(out, form, top, files, batch_size=size, resume=resume) as output:
        predict_files(
            predictor,
            files,
            output,
            top=top,
            batch_size=size,
            processes=processes,
            explain=explaining.Explainer(predictor, explain) if explain else None,
            progress=out is not None or form != 'text',
        )
        if out:
            terminal.line(f'wrote {len(files) - output.written:,} rows to {out}')
        if output.errors:
            terminal.line(f'{output.errors:,} of {len(files):,} files cannot be read')
        return output.errors


def predict_files(
    predictor: Predictor,
    files: Sequence[str],
    output: Output,
    *,
    top: int,
    batch_size: int,
    processes: int | None = None,
    explain: Callable[[Prediction, np.ndarray], None] | None = None,
    progress: bool = True,
) -> None:
    """Predicts the classes of image files. A file that cannot be read is a row with an error.

    Args:
        predictor: of the run.
        files: their names.
        output: takes the predictions.
        top: classes in a row.
        batch_size: images at once.
        processes: that decode (`image_files.read_all`).
        explain: is called with each new prediction and its image, before the row is written.
        progress: whether to show how many are done.

    Raises:
        UserError: the output refuses the rows, or a worker process was killed.
    """
    sample = image_files.Sample(files, predictor.conversion)
    for difference in input_checks.differences(predictor.inputs, sample.images):
        terminal.line(f'warning: the images do not look like those of the training: {difference}')
    images = image_files.read_all(
        files, predictor.conversion, sample, start=output.start, processes=processes
    )
    shown = terminal.counted(len(files) - output.start, 'images') if progress else _silent()
    with contextlib.closing(images), shown as advance:
        write_predictions(
            predictor,
            files,
            images,
            output,
            top=top,
            batch_size=batch_size,
            explain=explain,
            advance=advance,
        )


def write_predictions(
    predictor: Predictor,
    files: Sequence[str],
    images: Iterable[np.ndarray | str],
    output: Output,
    *,
    top: int,
    batch_size: int,
    explain: Callable[[Prediction, np.ndarray], None] | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Does what `predict_files` does with files that are decoded.

    Args:
        predictor: of the run.
        files: the names of all files.
        images: of those from number `output.start` on, as `predict` takes them.
        output: takes the predictions.
        top: classes in a row.
        batch_size: images at once.
        explain: as for `predict_files`.
        advance: is called with the number of images that are done.
    """
    place = output.start
    for batch, errors, probabilities in predict(predictor, images, batch_size):
        tops = top_classes(probabilities, predictor.classes, top)
        names = files[place : place + len(errors)]
        rows = [
            Prediction(file, [] if error else found, error)
            for file, found, error in zip(names, tops, errors, strict=True)
        ]
        for image, row in zip(batch, rows, strict=True):
            if explain and not row.error and place >= output.written:
                explain(row, image)
            place += 1
        output.write(rows)
        advance(len(rows))
    if place == output.start:
        output.write([])


def predict(
    predictor: Predictor, images: Iterable[np.ndarray | str], batch_size: int
) -> Iterator[tuple[np.ndarray, list[str], np.ndarray]]:
    """Yields the predictions of images, batch by batch. The next batch is computed meanwhile.

    Each image has its place in a batch by its number. Nothing else decides on the bits of its
    probabilities: an image that cannot be read leaves its place empty.

    Args:
        predictor: of the run.
        images: uint8[H, W, C] each, or a text that says why one cannot be read.
        batch_size: images at once.

    Yields:
        The images uint8[n, H, W, C], n errors ('' for an image), probabilities float32[n, K].
    """
    computing = None
    for batch, errors in _batches(images, batch_size, predictor.image_shape):
        started = (batch, errors, predictor.compiled(batch_size)(batch))
        if computing:
            yield _finished(*computing)
        computing = started
    if computing:
        yield _finished(*computing)


def _finished(batch, errors, probabilities):
    count = len(errors)
    return batch[:count], errors, np.asarray(probabilities)[:count]


def _batches(images, batch_size, image_shape):
    """Yields batches uint8[batch_size, H, W, C], the last one padded, each with its n errors."""
    errors: list[str] = []
    for image in images:
        if not errors:
            batch = np.zeros((batch_size, *image_shape), np.uint8)
        if isinstance(image, str):
            errors.append(image)
        else:
            batch[len(errors)] = image
            errors.append('')
        if len(errors) == batch_size:
            yield batch, errors
            errors = []
    if errors:
        yield batch, errors


@contextlib.contextmanager
def _silent():
    yield lambda count: None
