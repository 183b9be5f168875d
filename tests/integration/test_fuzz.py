"""A seeded share of tests/stress/fuzz.py, and that it sees what is wrong."""

import pytest

from tests.stress import fuzz

ERROR = 'error: train.steps=0 must be at least 1\n'


def test_whatever_main_is_given_it_trains_or_says_in_one_line_why_not():
    total, faults = fuzz.fuzz(300, seed=16, commands=0.004)
    assert not faults, '\n\n'.join(faults)
    assert sum(total.values()) == 300
    assert total['refused'] > 150  # most cases are odd
    assert total['trains'] > 30  # but some are not


@pytest.mark.parametrize(
    ('expected', 'end', 'status', 'stderr', 'left'),
    [
        ('', 'trains', 0, '', ['run/config.json']),
        ('', 'exits', 0, '', []),  # --help
        ('', 'exits', 2, ERROR, []),
        ('files left', 'exits', 2, ERROR, ['run/config.json']),
        ('2 lines', 'exits', 2, f'warning\n{ERROR}', []),
        ('0 lines', 'exits', 2, '', []),
        ('no error line', 'exits', 2, 'something\n', []),
        ('no error line', 'exits', 2, 'error: 1\n', []),
        ('status 1', 'exits', 1, ERROR, []),
        ('traceback', 'exits', 1, 'Traceback (most recent call last):\n', []),
        ('traceback', 'trains', 0, 'Traceback (most recent call last):\n', []),
        ('crash', 'crashes', -1, '', []),
    ],
)
def test_what_counts_as_a_fault(expected, end, status, stderr, left):
    assert fuzz.fault(fuzz.Outcome(end, status, '', stderr, left)) == expected
