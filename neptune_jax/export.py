"""Exports the model of a run as files for other programs, with a model card and a program.

    python -m neptune_jax.export runs/cnn --out=model/
    python -m neptune_jax.export runs/cnn --out=model/ --formats=onnx --check

README.md in the folder says how each file is used. --check runs the files in other processes,
without this package, and compares what they predict with the run. If they differ, the exit status
is 1.
"""

import sys

from absl import flags

from neptune_jax import cli, exits, terminal
from neptune_jax.errors import UserError
from neptune_jax.runs import files

OUT = flags.DEFINE_string('out', None, 'The folder to write; an earlier export there is replaced.')
FORMATS = flags.DEFINE_list(
    'formats', 'stablehlo,onnx,safetensors', 'Which of stablehlo, onnx and safetensors to write.'
)
CHECK = flags.DEFINE_bool('check', False, 'Compare the files with the run.')
CHECKPOINT = flags.DEFINE_string('checkpoint', 'best', 'best, last, or a step.')
RESIZE = flags.DEFINE_string(
    'resize', '', 'stretch, crop or pad other sizes, rather than as in the training.'
)
FORMAT = cli.define_format()


def main(workdirs: list[str]) -> None:
    """Writes the folder; exits with status 1 if a check finds a difference."""
    if len(workdirs) != 1 or not OUT.value:
        raise UserError(
            'give one run and a folder: python -m neptune_jax.export runs/cnn --out=model'
        )
    workdir = files.expand_user(workdirs[0], 'RUN_DIR')
    out = files.expand_user(OUT.value, '--out')
    cli.prepare_for_run(workdir)
    with exits.interruptible():
        from neptune_jax.exporting import checking, folder, report
        from neptune_jax.inference.predictor import Predictor

        formats = folder.check_formats(FORMATS.value)
        folder.check_out(out)
        predictor = Predictor.from_run(workdir, CHECKPOINT.value, RESIZE.value)
        for note in predictor.notes:
            terminal.line(f'note     {note}')
        sizes = folder.write(predictor, out, formats)
        checked = checking.check(predictor, out, formats) if CHECK.value else []
        report.show(out, sizes, checked, FORMAT.value)
    if not all(each.is_equal for each in checked):
        sys.exit(1)


if __name__ == '__main__':
    cli.run(main, positional='RUN_DIR')
