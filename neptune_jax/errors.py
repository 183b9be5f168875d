"""What a user can get wrong: one exception, whose message is the one line the user sees."""


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, where, and what to do."""


def choose(table, name, field):
    """Returns `table[name]`; raises UserError listing the choices where there is no such name."""
    if name not in table:
        raise UserError(f'{field}={name!r} is unknown; choose one of: {", ".join(table)}')
    return table[name]
