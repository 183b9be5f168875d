"""What ends a command early: something that the user can mend, or a signal."""

# The exit status of a run that a signal has ended: EX_TEMPFAIL of sysexits.h. Nothing is wrong; the
# same command, given later, goes on.
PREEMPTED_STATUS = 75


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, where, and what to do."""


class Preempted(Exception):
    """The run has been asked to end, and has saved what it had. The message names the signal."""


def choose(table, name, field):
    """Returns `table[name]`; raises UserError listing the choices where there is no such name."""
    if name not in table:
        raise UserError(f'{field}={name!r} is unknown; choose one of: {", ".join(table)}')
    return table[name]
