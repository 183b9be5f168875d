import jax
import pytest
from flax import linen as nn

from neptune_jax.models import flops
from neptune_jax.models.cnn import CNN
from neptune_jax.training import loop


@pytest.mark.parametrize('wrap', [lambda model: model, nn.jit], ids=['plain', 'within jit'])
def test_the_operations_of_a_network_counted_by_hand(wrap):
    model = wrap(CNN)(10, features=(4, 8), kernel_size=3, hidden=(16,))
    convolutions = 28 * 28 * 9 * 1 * 4 + 14 * 14 * 9 * 4 * 8
    dense = 7 * 7 * 8 * 16 + 16 * 10
    assert flops.forward(model, (28, 28, 1)) == 2 * (convolutions + dense)


def test_the_share_of_the_peak_is_printed_where_that_is_known(
    config, tmp_path, capsys, monkeypatch, standard_promotion
):
    loop.train_and_evaluate(config, tmp_path)
    assert "devices' peak" not in capsys.readouterr().out
    monkeypatch.setitem(flops.PEAKS, jax.devices()[0].device_kind, 1e9)
    summary = loop.train_and_evaluate(config, tmp_path)
    operations = 28 * 28 * 9 * 4 + 14 * 14 * 9 * 4 * 8 + 7 * 7 * 8 * 10
    share = 3 * 2 * operations * summary['images_per_second'] / (2 * 1e9)
    assert f"{share:.1%} of the devices' peak" in capsys.readouterr().out
