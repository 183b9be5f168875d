import pytest

from neptune_jax.errors import UserError
from neptune_jax.learning import lengths


@pytest.mark.parametrize(
    ('length', 'steps'),
    [
        ('1 step', 1),
        ('500 steps', 500),
        ('2 epochs', 200),
        ('0.5 epoch', 50),
        ('6400 examples', 100),
        ('5%', 50),
        ('12.5 %', 125),
        (' 3 steps ', 3),
        ('0 steps', 0),
        ('99 examples', 2),  # the nearest whole number
        ('0.0104 epochs', 1),
    ],
)
def test_every_unit(length, steps):
    found = lengths.in_steps(length, 'f', total_steps=1000, steps_per_epoch=100, batch_size=64)
    assert found == steps


@pytest.mark.parametrize('length', ['5', '', 'epochs', '5 parsecs', '-1 steps', '5 s%', '5 s', 5])
def test_anything_else_is_refused_with_the_fields_name(length):
    with pytest.raises(UserError, match=r'log\.every=.* is not a length; write it like'):
        lengths.in_steps(length, 'log.every', total_steps=9, steps_per_epoch=3, batch_size=1)


@pytest.mark.parametrize(
    ('length', 'seconds'), [('60 seconds', 60), ('0.5 second', 0.5), ('5 steps', None), (60, None)]
)
def test_seconds_are_told_from_steps(length, seconds):
    assert lengths.in_seconds(length) == seconds
