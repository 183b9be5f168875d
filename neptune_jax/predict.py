"""Predicts the classes of image files with a finished run.

    python -m neptune_jax.predict runs/cnn photo.jpg holiday/
    python -m neptune_jax.predict runs/cnn photos/ --recursive --out=predictions.csv
    find photos -name '*.jpg' | python -m neptune_jax.predict runs/cnn - --out=predictions.jsonl

Files are decoded as in the training. One that cannot be read is a row with an error, and the exit
status is then 1. --resume goes on where a killed command has ended.
"""

import sys

from absl import flags

from neptune_jax import cli, exits
from neptune_jax.errors import UserError
from neptune_jax.runs import files

TOP = flags.DEFINE_integer('top', 3, 'Classes in a row.', lower_bound=1)
OUT = flags.DEFINE_string('out', None, 'A new file for the rows: NAME.csv or NAME.jsonl.')
FORMAT = cli.define_format()
RESUME = flags.DEFINE_bool('resume', False, 'Go on after the last row of --out.')
RECURSIVE = flags.DEFINE_bool('recursive', False, 'Also read the folders in folders.')
NULL = flags.DEFINE_bool('null', False, 'NUL separates the names on standard input.')
SHARD = flags.DEFINE_string('shard', '1/1', 'The part of the files to predict: 1/n to n/n.')
EXPLAIN = flags.DEFINE_string('explain', None, 'A folder for a picture that explains each row.')
CHECKPOINT = flags.DEFINE_string('checkpoint', 'best', 'best, last, or a step.')
RESIZE = flags.DEFINE_string('resize', '', 'stretch, crop or pad; by default as in the training.')
BATCH_SIZE = flags.DEFINE_integer('batch_size', None, 'Images computed at once.', lower_bound=1)
WORKERS = flags.DEFINE_integer(
    'workers', None, 'Processes that decode; 0: none. By default as many as cores.', lower_bound=0
)


def main(args: list[str]) -> None:
    """Predicts; exits with status 1 if a file could not be read."""
    if len(args) < 2:
        raise UserError(
            'give a run directory and images: python -m neptune_jax.predict runs/cnn photo.jpg'
        )
    from neptune_jax.predicting import image_files, outputs

    with exits.interruptible():
        workdir = files.expand_user(args[0], 'RUN_DIR')
        out = OUT.value and files.expand_user(OUT.value, '--out')
        folder = EXPLAIN.value and files.expand_user(EXPLAIN.value, '--explain')
        outputs.check_flags(out, FORMAT.value, RESUME.value)
        names = image_files.list_files(args[1:], RECURSIVE.value, '\0' if NULL.value else '\n')
        names = image_files.shard(names, SHARD.value)
        cli.prepare_for_run(workdir)

        from neptune_jax.predicting import prediction

        unreadable = prediction.predict_run(
            workdir,
            names,
            checkpoint=CHECKPOINT.value,
            resize=RESIZE.value,
            top=TOP.value,
            batch_size=BATCH_SIZE.value,
            processes=WORKERS.value,
            out=out,
            form=FORMAT.value,
            resume=RESUME.value,
            explain=folder,
        )
    sys.exit(1 if unreadable else 0)


if __name__ == '__main__':
    cli.run(main, positional='RUN_DIR FILE_OR_FOLDER... ("-" reads names from standard input)')
