"""The models of a server: a run directory or an exported model each, with a name of its own."""

from collections.abc import Sequence
from pathlib import Path

from neptune_jax.errors import UserError
from neptune_jax.inference import exported
from neptune_jax.inference.predictor import Predictor


def load(folders: Sequence[str], checkpoint: str, resize: str) -> dict[str, Predictor]:
    """Returns the predictors of run directories and exported models, by their names.

    Raises:
        UserError: a folder holds neither, or cannot be used.
    """
    predictors = {}
    for name, folder in zip(names(folders), folders, strict=True):
        if not exported.is_export(folder):
            predictors[name] = Predictor.from_run(folder, checkpoint, resize)
        elif checkpoint != 'best' or resize:
            raise UserError(
                f'{folder} is an exported model, whose checkpoint and resizing are fixed; leave '
                '--checkpoint and --resize out'
            )
        else:
            predictors[name] = exported.ExportedPredictor.from_export(folder)
    return predictors


def names(folders: Sequence[str]) -> list[str]:
    """Returns the last part of each path; from the second on of the same name, with a number."""
    found: list[str] = []
    for folder in folders:
        name = first = Path(folder).resolve().name or 'model'
        number = 1
        while name in found:
            number += 1
            name = f'{first}-{number}'
        found.append(name)
    return found
