"""Runs a sweep: claims trials, keeps workers busy, and ends them in good order."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator

from neptune_jax import terminal
from neptune_jax.errors import Preempted
from neptune_jax.sweeping import checking, planning, workers
from neptune_jax.sweeping.display import Display
from neptune_jax.sweeping.planning import Plan, Request
from neptune_jax.sweeping.pruning import Pruner
from neptune_jax.sweeping.trials import DONE, Trial

_POLL_SECONDS = 0.2
_SCAN_SECONDS = 2.0  # between two looks at the trials of other processes


def run(request: Request) -> int:
    """Trains all trials of a sweep that are not done yet.

    Returns:
        The exit status: 1 if trials have failed, whose names are on stderr then, else 0.

    Raises:
        UserError: a mistake of the user's; no trial has started then.
        Preempted: SIGTERM, or the time is up. The trainings have saved their states.
        KeyboardInterrupt: Ctrl-C, likewise.
    """
    plan = Plan(request)
    count = request.workers or workers.default_count()
    shares = workers.shares(count, request.environ)
    plan.find_trials(write=False)
    planning.shard(plan.trials, request.shard)  # a mistake is found before data are prepared
    configs = plan.configs()
    if configs and not (plan.dimensions and all(trial.status in DONE for trial in plan.trials)):
        checking.check_in_process(configs, shares[0].gpus, request.together)
    plan.find_trials(write=True)
    failed = Sweep(plan, shares).run()
    if failed:
        what = '1 trial' if len(failed) == 1 else f'{len(failed)} trials'
        print(f'error: {what} failed: {", ".join(failed)}', file=sys.stderr)
    return 1 if failed else 0


def list_trials(request: Request) -> None:
    """Prints the trials of a sweep, after having checked them. It writes nothing.

    Raises:
        UserError: as from `run`.
    """
    plan = Plan(request)
    plan.find_trials(write=False)
    if configs := plan.configs():
        checking.check_in_process(configs, together=request.together)
    chosen = planning.shard(plan.trials, request.shard)
    for trial in chosen:
        terminal.line(f'{trial.status:<10}{trial.name}')
    terminal.line(f'{len(chosen)} trials in {plan.out}')


class Sweep:
    """The trials that this process runs, and its workers."""

    def __init__(self, plan: Plan, shares: list[workers.Share]) -> None:
        """Starts nothing yet.

        Args:
            plan: the trials.
            shares: of the machine, one for each worker.
        """
        self._plan, self._request = plan, plan.request
        self._trials: list[Trial] = planning.shard(plan.trials, plan.request.shard)
        self._slots: list[workers.Worker | None] = [None] * len(shares)
        self._shares = shares
        self._command = workers.Command(
            plan.request.config_file,
            plan.request.config_arguments,
            plan.request.environ,
            plan.request.config.seed,
        )
        self._began = time.monotonic()
        self._states: dict[str, str] = {}  # by name, as of the last look at the directories
        self._errors: dict[str, str] = {}  # of trials that are not tried again
        self._failed_before: dict[str, bool] = {}
        self._start_time = time.time()
        self._scanned = -1e9
        self._asked: str | int = 0  # why to end: a signal, or a text
        self._pruner = (
            Pruner(plan.request.prune, plan.objective) if plan.request.prune != 'none' else None
        )
        self._pruned: dict[str, str] = {}  # reasons, by name, of those that have been told to end
        self._display = Display(plan.objective, self._trials)

    # ----------------------------------------------------------------------------------- main loop
    def run(self) -> list[str]:
        """Returns the names of the trials that failed, when all trials are done or have failed."""
        with self._watching(), self._display:
            try:
                while self._goes_on():
                    time.sleep(_POLL_SECONDS)
            finally:
                self._end_workers()
            self._scan()
            self._show()
        if self._asked and not self._is_complete():
            if self._asked == signal.SIGINT:
                terminal.line('ended by Ctrl-C; the same command continues from here')
                raise KeyboardInterrupt
            name = self._asked if isinstance(self._asked, str) else signal.Signals(self._asked).name
            raise Preempted(name)
        self._display.results()
        return [name for name, state in self._states.items() if state == 'failed']

    def _goes_on(self):
        self._reap()
        if not self._asked and self._time_is_up():
            self._ask(f'--max_hours={self._request.max_hours}')
        if self._asked:
            return any(self._slots)
        if time.monotonic() - self._scanned > _SCAN_SECONDS:
            self._scan()
            self._prune()
        for slot, worker in enumerate(self._slots):
            if worker is None and not self._start_next(slot):
                break
        self._show()
        return any(self._slots) or not self._is_complete()

    def _is_complete(self):
        states = [self._states.get(trial.name) for trial in self._trials]
        return all(state in (*DONE, 'failed') for state in states)

    def _time_is_up(self):
        hours = self._request.max_hours
        return hours is not None and time.monotonic() - self._began > hours * 3600

    # -------------------------------------------------------------------------------------- states
    def _scan(self):
        """Looks at the directories of all trials that this process does not train."""
        began = time.monotonic()
        own = self._own()
        for trial in self._trials:
            if trial.name in own or self._states.get(trial.name) in DONE:
                continue
            state = trial.status
            self._failed_before.setdefault(trial.name, state == 'failed')
            if trial.overrides is None and state != 'waiting':
                trial.overrides = trial.read_overrides()
            if state in DONE:
                self._tidy(trial)
            elif state == 'failed':
                state = 'failed' if self._is_given_up(trial) else 'waiting'
            elif state in ('running', 'preempted'):
                state = 'elsewhere' if self._is_claimed(trial) else 'waiting'
            self._states[trial.name] = state
        # A sweep of very many trials must not spend its time on looking.
        self._scanned = time.monotonic() + 20 * (time.monotonic() - began)

    def _own(self):
        return {trial.name: worker for worker in self._slots if worker for trial in worker.trials}

    def _is_claimed(self, trial):
        claim = trial.claim()
        if claim is None:
            return True
        with contextlib.closing(claim):
            return trial.is_written()

    def _is_given_up(self, trial):
        if trial.name in self._errors:
            return True
        since = [each for each in trial.failures if each['time'] >= self._start_time]
        tries = self._request.retries + (not self._failed_before[trial.name])
        if len(since) < tries and not any(each['final'] for each in since):
            return False
        self._errors[trial.name] = (since or trial.failures or [{'error': ''}])[-1]['error']
        return True

    def _tidy(self, trial):
        """Removes checkpoints of a trial that is done, unless another process still writes it."""
        claim = self._request.keep != 'all' and trial.claim()
        if claim:
            with contextlib.closing(claim):
                trial.remove_checkpoints(self._request.keep)

    # ------------------------------------------------------------------------------------- workers
    def _start_next(self, slot):
        """Starts the next trial that waits; returns whether there was one."""
        for unit in planning.units(self._trials, self._request.together):
            if self._start(unit, slot):
                return True
        return False

    def _start(self, unit, slot):
        """Starts the trials of a unit that wait; returns whether there was one."""
        claims, were = {}, {}
        with contextlib.ExitStack() as stack:
            for trial in unit:
                if self._states.get(trial.name) != 'waiting':
                    continue
                status, claim = trial.status, self._claim(trial)
                if claim:
                    stack.callback(claim.close)
                    claims[trial], were[trial] = claim, status
                elif not claims:  # another process claims this unit
                    return False
            if not claims:
                return False
            trials, share = list(claims), self._shares[slot]
            self._slots[slot] = workers.Worker(
                trials, list(claims.values()), self._command, share, unit
            )
            stack.pop_all()
        for trial in trials:
            self._states[trial.name] = 'running'
            self._display.started(trial, again=were[trial] != 'waiting')
        return True

    def _claim(self, trial):
        """Returns the claim of a trial, unless another process trains it or has trained it."""
        claim = trial.claim()
        if claim is None:
            self._states[trial.name] = 'elsewhere'
            return None
        with contextlib.ExitStack() as stack:
            stack.callback(claim.close)
            status = trial.status
            if status in DONE or (status == 'failed' and self._is_given_up(trial)):
                trial.read_overrides()
                self._states[trial.name] = status  # another process was faster
                return None
            if trial.is_written():
                self._states[trial.name] = 'elsewhere'
                return None
            if trial.overrides is None and not self._plan.suggest(trial):
                trial.discard()
                self._exhausted()
                return None
            trial.describe()
            stack.pop_all()
        return claim

    def _exhausted(self):
        """Drops the trials of a search that have no config: all of a finite space have a trial."""
        for trial in list(self._trials):
            if trial.overrides is None and not trial.read_overrides():
                self._trials.remove(trial)
                self._states.pop(trial.name, None)
        self._display.note(f'the space of the search has no more than {len(self._trials)} configs')

    def _reap(self):
        for slot, worker in enumerate(self._slots):
            if worker and worker.has_ended():
                self._slots[slot] = None
                try:
                    for trial in worker.trials:
                        self._finish(trial, worker)
                finally:
                    worker.release()

    def _finish(self, trial, worker):
        """Notes how a training has ended, while its claim is still held."""
        reason = self._pruned.pop(trial.name, '')
        problem = worker.problem(trial)
        if reason and worker.was_ended() and trial.status not in DONE:
            trial.prune(reason)
        elif problem and not (self._asked and worker.was_ended()):
            trial.note_failure(problem, worker.would_fail_again())
            self._display.failed(trial, problem)
        state = trial.status
        if state in DONE:
            trial.remove_checkpoints(self._request.keep)
            self._display.done(trial)
        elif state == 'failed':
            state = 'failed' if self._is_given_up(trial) else 'waiting'
        else:
            state = 'waiting'
        self._states[trial.name] = state

    def _prune(self):
        if self._pruner is None:
            return
        for trial, worker in [(t, w) for w in self._slots if w for t in w.trials]:
            if len(worker.trials) == 1 and trial.name not in self._pruned:
                reason = self._pruner.reason(trial, self._trials)
                if reason:
                    self._pruned[trial.name] = reason
                    worker.send(signal.SIGTERM)

    # --------------------------------------------------------------------------------------- ending
    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """Inside, SIGTERM and Ctrl-C end the workers in good order, a second one at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread can handle signals
            return
        before = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, lambda number, frame: self._ask(number))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, why):
        self._asked = why
        for worker in filter(None, self._slots):
            if not worker.has_ended():
                worker.send(signal.SIGTERM)

    def _end_workers(self):
        """Ends the workers if an error ends the sweep."""
        if any(self._slots):
            self._asked = self._asked or 'an error'
            self._ask(self._asked)
            while any(self._slots):
                self._reap()
                time.sleep(_POLL_SECONDS)

    def _show(self):
        self._display.update(self._states, self._errors, len(self._shares))
