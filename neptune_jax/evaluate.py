"""Evaluates a finished run: metrics with intervals, tables and figures.

    python -m neptune_jax.evaluate runs/cnn
    python -m neptune_jax.evaluate runs/cnn --data=image_folder:photos --tta=flip,shift
    python -m neptune_jax.evaluate runs/cnn --temperature=fit --save
    python -m neptune_jax.evaluate runs/cnn --compare=runs/net

Without flags it repeats the test of the training. The results are in the run directory, in the
folder evaluations/, or in --out. --compare reads what the tests of both runs have left.
"""

from absl import flags

from neptune_jax import cli, exits
from neptune_jax.errors import UserError
from neptune_jax.runs import files

SPLIT = flags.DEFINE_string(
    'split', '', 'test, val or train; by default test, or all images of --data.'
)
DATA = flags.DEFINE_string(
    'data', '', 'Other images: image_folder:PATH, arrays:PATH or the name of a data set.'
)
COMPARE = flags.DEFINE_string('compare', '', 'Another run directory, tested on the same images.')
CHECKPOINT = flags.DEFINE_string('checkpoint', 'best', 'best, last, or a step.')
TTA = flags.DEFINE_list('tta', [], 'Average over views of each image: flip, shift, or flip,shift.')
TEMPERATURE = flags.DEFINE_string(
    'temperature', '', 'Divide logits: fit (on the validation split), saved, or a number.'
)
SAVE = flags.DEFINE_bool('save', False, 'Keep the fitted temperature for predict, export, serve.')
RESIZE = flags.DEFINE_string(
    'resize', '', 'stretch, crop or pad other sizes, rather than as in the training.'
)
OUT = flags.DEFINE_string('out', '', 'The folder for the results.')
FORMAT = cli.define_format()
PLACES = {
    'dir': flags.DEFINE_string('data_dir', None, 'Where prepared data lie on this machine.'),
    'path': flags.DEFINE_string('data_path', None, "Where the run's images lie on this machine."),
    'labels_path': flags.DEFINE_string('data_labels_path', None, 'The .npy file of their labels.'),
    'archive_dir': flags.DEFINE_string('data_archive_dir', None, "The publisher's archives."),
}


def main(args: list[str]) -> None:
    """Evaluates a run or compares it with another, and prints the results."""
    if len(args) != 1:
        raise UserError('give one run directory: python -m neptune_jax.evaluate runs/cnn')
    workdir = files.expand_user(args[0], 'RUN_DIR')
    cli.prepare_for_run(workdir)
    from neptune_jax.evaluating import evaluation
    from neptune_jax.evaluating.requests import Request

    request = Request(
        workdir=workdir,
        split=SPLIT.value,
        data=DATA.value,
        compare=files.expand_user(COMPARE.value, '--compare'),
        checkpoint=CHECKPOINT.value,
        tta=tuple(TTA.value),
        temperature=TEMPERATURE.value,
        save=SAVE.value,
        resize=RESIZE.value,
        out=files.expand_user(OUT.value, '--out'),
        form=FORMAT.value,
        places={name: flag.value for name, flag in PLACES.items() if flag.value is not None},
    )
    with exits.interruptible():
        evaluation.run(request)


if __name__ == '__main__':
    cli.run(main, positional='RUN_DIR')
