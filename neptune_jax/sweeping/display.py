"""What a person sees of a sweep: a live table on a terminal, lines elsewhere."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from neptune_jax import terminal
from neptune_jax.sweeping import workers
from neptune_jax.sweeping.objectives import Objective
from neptune_jax.sweeping.trials import DONE, Trial

_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 60  # between two lines of progress
_MOST_ROWS = 12  # of trials that run, or have failed
_BEST = 5  # trials that are listed at the end


class Display:
    """Shows the states of trials; a context manager."""

    def __init__(self, objective: Objective, trials: Sequence[Trial]) -> None:
        """Shows nothing yet.

        Args:
            objective: what trials are compared by.
            trials: those that are shown; the list may change.
        """
        self._objective, self._trials = objective, trials
        self._live = Live(console=terminal.console, auto_refresh=False, transient=True)
        self._shown_at = self._line_at = self._began = time.monotonic()
        self._started: dict[str, float] = {}
        self._seconds: list[float] = []  # that trials took
        self._states: Mapping[str, str] = {}

    def __enter__(self) -> 'Display':
        if terminal.shows_bars():
            self._live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live.is_started:
            self._live.stop()

    # ---------------------------------------------------------------------------------------- lines
    def started(self, trial: Trial, again: bool) -> None:
        """Says that a trial starts, or goes on."""
        self._started[trial.name] = time.monotonic()
        self._line(trial, f'{"goes on" if again else "starts"}{self._fields(trial)}')

    def done(self, trial: Trial) -> None:
        """Says that a trial has finished, or was pruned."""
        seconds = time.monotonic() - self._started.get(trial.name, self._began)
        summary = trial.summary
        if trial.status == 'pruned':
            self._line(trial, f'pruned: {summary.get("error", "")}')
            return
        self._seconds.append(seconds)
        value = self._objective.of_best(summary)
        shown = '' if value is None else f'  {self._objective.key} {value:.4f}'
        self._line(trial, f'finished{shown}  {seconds:,.0f} s')

    def failed(self, trial: Trial, problem: str) -> None:
        """Says that a training has failed."""
        self._line(trial, f'failed: {problem}')

    def note(self, text: str) -> None:
        """Says something about the whole sweep."""
        terminal.line(f'note     {text}')

    def _line(self, trial, text):
        terminal.line(f'{time.strftime("%H:%M:%S")}  {trial.name}  {text}')

    def _fields(self, trial):
        """Returns the fields of a trial whose name does not tell them: one of a search."""
        if not trial.name.isdecimal():
            return ''
        return '  ' + ' '.join(f'{name}={_short(value)}' for name, value in trial.overrides.items())

    # ---------------------------------------------------------------------------------------- table
    def update(self, states: Mapping[str, str], errors: Mapping[str, str], count: int) -> None:
        """Shows the states now, if it is time to.

        Args:
            states: by name: finished, pruned, failed, running, elsewhere or waiting.
            errors: the last line of those that failed.
            count: how many workers there are.
        """
        self._states = states
        now = time.monotonic()
        if self._live.is_started and now - self._shown_at >= _REFRESH_SECONDS:
            self._shown_at = now
            self._live.update(self._table(errors, count), refresh=True)
        elif not self._live.is_started and now - self._line_at >= _LINE_SECONDS:
            self._line_at = now
            terminal.line(self._summary(count))

    def _summary(self, count):
        counts = dict.fromkeys(('finished', 'pruned', 'running', 'elsewhere', 'failed'), 0)
        counts['waiting'] = 0
        for trial in self._trials:
            counts[self._states.get(trial.name, 'waiting')] += 1
        text = f'{len(self._trials)} trials: '
        text += ', '.join(f'{number} {name}' for name, number in counts.items() if number)
        left = counts['waiting'] + counts['running'] / 2  # on average halfway
        if self._seconds and left:
            mean = sum(self._seconds) / len(self._seconds)
            text += f', about {_duration(mean * max(1.0, left / count))} left'
        return text

    def _table(self, errors, count):
        table = Table(box=None, pad_edge=False)
        for name in ('trial', 'state', 'progress', 'left'):
            table.add_column(name, no_wrap=name != 'trial', overflow='ellipsis')
        rows = 0
        for state in ('running', 'elsewhere', 'failed'):
            for trial in self._trials:
                if self._states.get(trial.name) != state or rows >= _MOST_ROWS:
                    continue
                rows += 1
                if state == 'failed':
                    table.add_row(trial.name, state, Text(errors.get(trial.name, '')), '')
                    continue
                found = workers.progress(trial)
                share = f'{found.step:,} of {found.total:,} steps' if found else 'starts'
                left = _duration(found.seconds_left) if found else ''
                table.add_row(trial.name, state, share, left)
        return Group(table, Text(self._summary(count)))

    def results(self) -> None:
        """Prints how many trials are done, and the best ones."""
        terminal.line(self._summary(1))
        found = []
        for trial in self._trials:
            value = self._objective.of_best(trial.summary) if trial.status == 'finished' else None
            if value is not None:
                found.append((self._objective.sign * value, trial))
        found.sort(key=lambda each: -each[0])
        table = Table('trial', title='best trials, each at its best checkpoint')
        for name in (self._objective.key, 'test/accuracy'):
            table.add_column(name, justify='right')
        for value, trial in found[:_BEST]:
            test = trial.summary.get('test', {}).get('accuracy')
            name = trial.name + self._fields(trial)
            shown = '' if test is None else f'{test:.4f}'
            table.add_row(name, f'{self._objective.sign * value:.4f}', shown)
        if found:
            terminal.table(table)
        for trial in self._trials:
            if self._states.get(trial.name) == 'failed':
                terminal.line(f'failed   {trial.name}: {workers.last_line(trial)}')
        if any(self._states.get(trial.name) in DONE for trial in self._trials):
            terminal.line(
                f'report   python -m neptune_jax.report {self._trials[0].directory.parent}'
            )


def _short(value):
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _duration(seconds):
    minutes = round(seconds / 60)
    if minutes < 2:
        return f'{seconds:.0f} s'
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes:02} min' if hours else f'{minutes} min'
