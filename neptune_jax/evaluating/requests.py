"""What a person asks an evaluation for, and which requests make no sense."""

import dataclasses
from collections.abc import Mapping

from neptune_jax.errors import UserError, check_choice
from neptune_jax.inference import views

SPLITS = {'train': 'training', 'val': 'validation', 'test': 'test'}


@dataclasses.dataclass(frozen=True)
class Request:
    """What to evaluate. The fields are flags of `python -m neptune_jax.evaluate`."""

    workdir: str
    split: str = ''  # of the run's data, 'test' if empty; or of `data`, all if empty
    data: str = ''  # other images: 'image_folder:PATH', 'arrays:PATH' or the name of a data set
    compare: str = ''  # another run directory; then nothing is evaluated
    checkpoint: str = 'best'
    resize: str = ''
    tta: tuple[str, ...] = ()
    temperature: str = ''  # 'fit', 'saved' or a number
    save: bool = False  # the fitted temperature
    out: str = ''
    form: str = 'text'  # what is printed on stdout: 'text', 'json' or 'csv'
    places: Mapping[str, str] = dataclasses.field(default_factory=dict)  # finished.PLACES


def check(request: Request) -> float | None:
    """Returns the temperature if it is given as a number, else None. Refuses a wrong request."""
    if request.compare:
        ignored = ('split', 'data', 'tta', 'temperature', 'save', 'resize')
        given_too = [f'--{name}' for name in ignored if getattr(request, name)]
        if given_too or request.checkpoint != 'best':
            raise UserError(
                '--compare reads the tests that both runs have left; take away '
                f'{", ".join(given_too) or "--checkpoint"}'
            )
    if request.split:
        check_choice(request.split, SPLITS, '--split')
    for name in request.tta:
        check_choice(name, views.VIEWS, '--tta')
    if len(set(request.tta)) < len(request.tta):
        raise UserError(f'--tta={",".join(request.tta)} names the same views twice')
    if request.save and request.temperature != 'fit':
        raise UserError('--save keeps a temperature that was fitted: add --temperature=fit')
    if request.save and request.tta:
        raise UserError(
            '--save keeps a temperature for predict, export and serve, which see each image once; '
            'leave --tta away'
        )
    if request.temperature in ('', 'fit', 'saved'):
        return None
    try:
        temperature = float(request.temperature)
    except ValueError:
        temperature = 0.0
    if not 1e-6 <= temperature <= 1e6:
        raise UserError(
            f'--temperature={request.temperature} must be fit, saved, or a number above 0'
        )
    return temperature
