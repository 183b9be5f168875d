"""`python -m docs.generate_configs` writes docs/configs.md from defaults.py and the models."""

import dataclasses
import inspect
import re
from pathlib import Path

from neptune_jax import defaults, models

PAGE = Path(__file__).with_name('configs.md')

INTRODUCTION = """\
# Configs

*Written by `python -m docs.generate_configs` from `neptune_jax/defaults.py` and the models; a test
compares them.*

An experiment is a Python file with a function `get_config()`. It starts from the defaults and
states what differs:

```python
from ml_collections import ConfigDict

from neptune_jax import defaults


def get_config() -> ConfigDict:
    config = defaults.get_config()
    config.model = ConfigDict({'name': 'cnn', 'features': (32, 64, 128)})
    config.optim.learning_rate = 1e-3
    return config
```

The file may lie anywhere. Any field can also be set on the command line:

```
python -m neptune_jax.main --config=mine.py --config.optim.learning_rate=0.01 \\
    --config.model.features=16,32 --config.optim.decay_at='50%,75%'
```

`get_config` may take a text: `--config=mine.py:large` calls `get_config('large')`. An unknown field,
a wrong type or a value out of range is one line on stderr and exit status 2, before anything is
written:

```
error: --config.optim.lerning_rate: there is no such field; did you mean optim.learning_rate?
```

A *length* is a number with a unit: `'500 steps'`, `'2 epochs'`, `'10000 examples'`, or `'5%'` of the
run. Batch sizes are over all devices together. In a range, `[0, 1)` includes 0 and excludes 1. A range
of a tuple holds for each of its elements.

## Parts of your own

`model.name`, `optim.name`, `optim.schedule`, `loss.name` and the entries of `augment.extra` may be
`'package.module:name'`, the import path of an object of your own. Nothing has to be registered.

| field | what the name refers to |
|---|---|
| `model.name` | a Flax module with a field `num_classes`; called with `(images, train)`, it returns logits. Its other fields are set in `config.model`. If it has a field `batch_norm_axis`, it gets the axis to average batch statistics over |
| `optim.name` | a function of (`config.optim`, schedule, `in_steps`) to an Optax transformation, learning rate included |
| `optim.schedule` | a function of (`config.optim`, steps after the warm-up, `in_steps`) to an Optax schedule |
| `loss.name` | a function of (logits, labels, label_smoothing) to the loss of each example, float32[B] |
| `augment.extra` | a function of (key, image in [0, 1]) to an image |

`in_steps('2 epochs', 'optim.options.hold')` converts a length to steps. `config.optim.options` is a
group for free fields of your own: `config.optim.options = ConfigDict({'hold': '2 epochs'})`.
"""


def page() -> str:
    """Returns the content of docs/configs.md."""
    groups: dict[str, list[str]] = {}
    for name in defaults.FIELDS:
        groups.setdefault(name.rpartition('.')[0], []).append(name)
    parts = [INTRODUCTION]
    for group, names in groups.items():
        if group == 'model':
            parts += [_model_section(name, module) for name, module in models.MODELS.items()]
        else:
            parts.append(_section(f'`{group}`' if group else 'Top level', names))
    return '\n'.join(parts)


def _section(title, names):
    rows = ['| field | default | meaning | range |', '|---|---|---|---|']
    for name in names:
        field = defaults.FIELDS[name]
        rows.append(
            f'| `{name}` | {_value(field.default)} | {_cell(field.description)} '
            f'| {_cell(field.range)} |'
        )
    return f'## {title}\n\n' + '\n'.join(rows) + '\n'


def _model_section(name, module):
    docstring = inspect.cleandoc(module.__doc__)
    summary = docstring.split('\n\n')[0]
    attributes = dict(re.findall(r'^    (\w+): (.*(?:\n      +.*)*)', docstring, re.MULTILINE))
    fields = models.complete_fields(defaults.ConfigDict({'name': name}))
    rows = ['| field | default | meaning | range |', '|---|---|---|---|']
    for field in dataclasses.fields(module):
        if field.name in fields and field.name != 'name':
            meaning = ' '.join(attributes[field.name].split())
            held = field.metadata['field'].range
            rows.append(
                f'| `model.{field.name}` | {_value(fields[field.name])} | {_cell(meaning)} '
                f'| {_cell(held)} |'
            )
    return f"## `model.name = '{name}'`\n\n{summary}\n\n" + '\n'.join(rows) + '\n'


def _value(value):
    return 'unset' if value is None else f'`{value!r}`'


def _cell(text):
    return text.replace('|', '\\|')


if __name__ == '__main__':
    PAGE.write_text(page())
