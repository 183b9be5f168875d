"""The accuracy and the time that a config file states are those of the results files."""

import ast
import statistics
from pathlib import Path

import pytest

from experiments.four_networks import run

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.mark.parametrize('network', run.NETWORKS)
def test_a_config_states_the_results_of_its_runs(network):
    docstring = ast.get_docstring(ast.parse((CONFIGS / f'{network}.py').read_text()))
    accuracies = [
        record['test']['accuracy']
        for record in run.read(run.RESULTS / 'accuracy.jsonl')
        if record['network'] == network
    ]
    (timed,) = (r for r in run.read(run.RESULTS / 'speed.jsonl') if r['network'] == network)
    mean, deviation = statistics.mean(accuracies), statistics.stdev(accuracies)
    assert (
        f'test accuracy {mean:.4f} ± {deviation:.4f} over {len(accuracies)} seeds; '
        f'{timed["train_seconds"]:.0f} s an epoch'
    ) in ' '.join(docstring.split())
    assert f'--config=configs/{network}.py' in docstring
