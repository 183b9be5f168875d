"""Which trials a sweep has: from the flags and get_sweep() to directories, and sweep.json."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from neptune_jax.errors import UserError, one_line
from neptune_jax.runs import files, writer
from neptune_jax.sweeping import objectives, space, study, trials
from neptune_jax.sweeping.objectives import Objective
from neptune_jax.sweeping.space import Dimension, Overrides
from neptune_jax.sweeping.trials import Trial

DEFAULT_TRIALS = 20  # of a search


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    config: ConfigDict
    config_file: str  # the value of --config
    config_arguments: list[str]  # the fields that the command line sets, as it sets them
    points: list[Overrides] | None  # of get_sweep()
    grid: Sequence[str]
    search: Sequence[str]
    out: str
    environ: Mapping[str, str]  # of the trainings
    trials: int | None = None
    objective: str = 'val/accuracy'
    sampler: str = 'tpe'
    prune: str = 'none'
    seed: int = 0
    workers: int | None = None
    together: int = 1
    shard: str = '1/1'
    max_hours: float | None = None
    retries: int = 1
    keep: str = 'all'


class Plan:
    """The trials of a sweep, in order. Those of a search get their fields when they start."""

    def __init__(self, request: Request) -> None:
        """Reads what the request asks for, without writing anything.

        Raises:
            UserError: a mistake in the request, or a directory that holds another sweep.
        """
        self.request = request
        self.out = Path(request.out)
        self.objective: Objective = objectives.parse(request.objective)
        self.dimensions: list[Dimension] = space.search(request.search, request.config)
        self.trials: list[Trial] = []
        self._base = space.resolve(request.config, {})
        self._points: list[Overrides] = []
        _check_flags(request, self.dimensions)
        if self.dimensions:
            study.check(request.sampler)
            fields = {each.name: 0 for each in self.dimensions}
            _refuse_set_twice(request, [fields])
        else:
            self._points = self._all_points()
        self._agree(self._read())

    # -------------------------------------------------------------------------------------- points
    def _all_points(self):
        request = self.request
        if request.points is None and not request.grid:
            raise UserError(
                'the config file has no get_sweep(), and there is no --grid and no --search; vary '
                'something, such as --grid=seed=0:5'
            )
        points = [{}] if request.points is None else request.points
        points = space.combine(points, space.grid(request.grid, request.config))
        if not points:
            raise UserError('get_sweep() yields nothing')
        _refuse_set_twice(request, points)
        unique = {}
        for number, point in enumerate(points, 1):
            try:
                key = space.identity(space.resolve(request.config, point))
            except UserError as error:
                name = ', '.join(f'{name}={value!r}' for name, value in point.items())
                raise UserError(f'trial {number} of {len(points)} ({name}): {error}') from error
            unique.setdefault(key, files.encode(point))
        self._keys = list(unique)
        return list(unique.values())

    def configs(self) -> list[tuple[str, ConfigDict]]:
        """Returns the configs to check before the first trial, with what a message calls each."""
        config = self.request.config
        if self.dimensions:
            corners = space.corners(self.dimensions)
            return [(_shown(point), space.resolve(config, point)) for point in corners]
        return [
            (f'trial {trial.name}', space.resolve(config, trial.overrides))
            for trial in self.trials
            if not trial.path('config.json').is_file()  # else it was checked before
        ]

    # -------------------------------------------------------------------------------------- trials
    def find_trials(self, write: bool) -> None:
        """Gives the trials their names and directories; with `write`, also writes sweep.json.

        A config keeps the directory that it has, also if it is now one of more trials.
        """
        if not write:
            self._find(self._read())
            return
        with trials.planning(self.out):
            known = self._read()
            self._agree(known)
            value = self._find(known)
            if value != known:
                files.write_json(self.out / 'sweep.json', value)

    def _find(self, known):
        described = trials.descriptions(self.out)
        if self.dimensions:
            count = max(self.request.trials or DEFAULT_TRIALS, 0)
            self.trials = [
                Trial(self.out, name, number, described.get(name, {}).get('overrides'))
                for number, name in enumerate(f'{number:04}' for number in range(count))
            ]
            more = {
                'search': {each.name: each.text for each in self.dimensions},
                'sampler': self.request.sampler,
                'seed': self.request.seed,
                'trials': max(count, known.get('trials', 0)),
            }
        else:
            named = dict(known.get('trials', {}))
            named |= {name: value['overrides'] for name, value in described.items()}
            self._name(named)
            more = {'trials': named}
        return self._description() | more

    def _name(self, named):
        """Makes the trials. Adds those to `named` that have no name yet."""
        places = {}
        for name, overrides in named.items():
            try:
                places[space.identity(space.resolve(self.request.config, overrides))] = name
            except UserError:  # a field that is not there any more
                continue
        fresh = space.names(self._points, self._base, named)
        for key, point, name in zip(self._keys, self._points, fresh, strict=True):
            if key not in places:
                places[key] = name
                named[name] = point
        numbers = {name: number for number, name in enumerate(named)}
        names = [places[key] for key in self._keys]
        self.trials = [Trial(self.out, name, numbers[name], named[name]) for name in names]

    def suggest(self, trial: Trial) -> bool:
        """Gives a trial of a search its fields; False if all configs of the space have a trial.

        The process that calls it holds the claim of the trial.
        """
        with trials.planning(self.out):
            others = {
                name: Trial(self.out, name, 0, value['overrides'])
                for name, value in trials.descriptions(self.out).items()
            }
            own = others.pop(trial.name, None)
            trial.overrides = (
                own.overrides
                if own
                else study.suggest(
                    self.dimensions,
                    list(others.values()),
                    trial.number,
                    sampler=self.request.sampler,
                    objective=self.objective,
                    seed=self.request.seed,
                )
            )
            if trial.overrides is None:
                return False
            trial.describe()
        return True

    # ---------------------------------------------------------------------------------- sweep.json
    def _read(self):
        path = self.out / 'sweep.json'
        try:
            return files.read_json(path)
        except (OSError, ValueError) as error:
            raise UserError(
                f'{path} cannot be read: {one_line(error)}; delete it, and it is written anew'
            ) from error

    def _description(self):
        return {
            'config': self.request.config_file,
            'arguments': self.request.config_arguments,
            'fields': self._fields,
            'objective': self.objective.key,
        }

    def _agree(self, known):
        """Raises UserError unless the directory may hold this sweep."""
        another = 'choose another --out'
        if (self.out / 'config.json').is_file():
            raise UserError(f'--out={self.out} is the directory of a single run; {another}')
        if not known:
            return
        found = writer.config_differences(known.get('fields', {}), self._fields)
        if found:
            raise UserError(
                f'--out={self.out} holds a sweep of another config ({"; ".join(found)}); {another}'
            )
        if ('search' in known) != bool(self.dimensions):
            kinds = ('a search', 'no search') if self.dimensions else ('no search', 'a search')
            raise UserError(f'--out={self.out} holds {kinds[1]}, and this is {kinds[0]}; {another}')
        if self.dimensions:
            now = {'objective': self.objective.key, 'seed': self.request.seed}
            now |= {each.name: each.text for each in self.dimensions}
            before = {'objective': known['objective'], 'seed': known['seed'], **known['search']}
            found = writer.config_differences(before, now)
            if found:
                raise UserError(
                    f'--out={self.out} holds another search ({"; ".join(found)}); {another}'
                )

    @property
    def _fields(self):
        return dict(sorted(writer.decisive_fields(self._base.to_dict()).items()))


def _check_flags(request, dimensions):
    """Raises UserError for flags that contradict each other."""
    if dimensions and request.grid:
        raise UserError(
            '--search and --grid cannot be combined; search first, then train the best config '
            'again with --grid=seed=0:5 and another --out'
        )
    if request.together > 1 and (dimensions or request.prune != 'none'):
        other = '--search' if dimensions else f'--prune={request.prune}'
        raise UserError(
            f'--together={request.together} trains seeds of one config in one program; it cannot '
            f'be combined with {other}'
        )
    if request.trials is not None and not dimensions:
        raise UserError('--trials is the number of trials of a --search, and there is none')


def _refuse_set_twice(request, points):
    swept = {name for point in points for name in point}
    for text in request.config_arguments:
        name = text.lstrip('-').removeprefix('no').removeprefix('config.').partition('=')[0]
        if name in swept:
            raise UserError(
                f'{text}: the sweep sets {name} itself; leave it out, or give it as '
                f'--grid={name}=...'
            )


def _shown(point):
    return 'a trial with ' + ', '.join(f'{name}={value!r}' for name, value in point.items())


def units(found: Sequence[Trial], size: int) -> list[list[Trial]]:
    """Divides trials into units, each of which one process trains.

    Args:
        found: the trials.
        size: of a unit at most. The trials of a unit differ in nothing but their seeds.
    """
    if size == 1:
        return [[trial] for trial in found]
    alike: dict[str, list[Trial]] = {}
    for trial in found:
        others = {name: value for name, value in trial.overrides.items() if name != 'seed'}
        alike.setdefault(files.dumps(dict(sorted(others.items()))), []).append(trial)
    return [
        group[start : start + size]
        for group in alike.values()
        for start in range(0, len(group), size)
    ]


def shard(found: Sequence[Any], part: str) -> list[Any]:
    """Returns every n-th of some things, from the i-th on, for a part 'i/n'.

    Raises:
        UserError: a part that is none.
    """
    number, _, count = part.partition('/')
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f'--shard={part} must be 1/n to n/n, such as 1/4 for every fourth trial')
    return list(found[int(number) - 1 :: int(count)])
