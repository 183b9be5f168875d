"""The top of a page: the main figures; what differs between the runs, and what they share."""

import collections
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neptune_jax import defaults
from neptune_jax.reporting import statistics
from neptune_jax.reporting.grouping import SEED, shown
from neptune_jax.reporting.page.markup import Markup, escape, fixed, join, name, number, tag
from neptune_jax.reporting.page.views import View
from neptune_jax.reporting.run_record import Record, is_place
from neptune_jax.runs import files

_VALUES_SHOWN = 12
_LISTED = 50  # runs
_DATA = ('Data', 'Test images (sha256)')


def cards(view: View) -> Markup:
    """Returns the main figures of the page, a few words each."""
    counts = collections.Counter(record.status for record in view.runs)
    found: list[tuple[Any, Any]] = []
    if view.is_single:
        found = list(_single(view.runs[0]))
    else:
        status = ', '.join(f'{count:,} {each}' for each, count in counts.most_common())
        found.append((f'{len(view.runs):,} runs', status))
        if len(view.groups) > 1:
            fields = ', '.join(view.fields[:3]) + (', ...' if len(view.fields) > 3 else '')
            found.append((f'{len(view.groups):,} groups', join(('by ', name(fields)))))
        best = view.groups[0]
        values = list(best.values(view.ranking).values())
        if values:
            kind = 'run' if len(best.records) == 1 else 'group'
            label = join((f'{view.ranking}, best {kind}: ', name(view.label(0))))
            if len(view.groups) == 1:
                label = join((f'{view.ranking}, mean of {len(values):,} runs',))
            found.append((fixed(math.fsum(values) / len(values)), label))
        seconds = sum(record.summary.get('train_seconds') or 0 for record in view.runs)
        found.append((duration(seconds), 'of training, all runs together'))
    items = (tag('li', tag('b', big), tag('span', small)) for big, small in found)
    return tag('ul', *items, class_='cards')


def _single(record: Record) -> Iterator[tuple[Any, Any]]:
    test, summary = record.summary.get('test') or {}, record.summary
    accuracy, count = test.get('accuracy'), test.get('count')
    if accuracy is not None and count:
        low, high = statistics.wilson(round(accuracy * count), count)
        yield fixed(accuracy), f'test accuracy; 95% interval {fixed(low)} to {fixed(high)}'
    best = summary.get('best') or {}
    if best.get('accuracy') is not None:
        yield (
            fixed(best['accuracy']),
            f'best validation accuracy, at step {number(best.get("step"))}',
        )
    if test.get('ece') is not None:
        yield fixed(test['ece']), 'expected calibration error (15 bins), test'
    progress = ''
    if record.status != 'finished' and not math.isnan(record.progress):
        progress = f', {record.progress:.0%} of the training'
    yield record.status, f'{number(summary.get("step", 0))} steps{progress}'
    if summary.get('train_seconds'):
        speed = f'{number(summary.get("images_per_second"))} images/s'
        yield duration(summary['train_seconds']), f'of training, {speed}'
    if summary.get('params'):
        yield number(summary['params']), 'parameters'


def differences(view: View) -> Markup:
    """Returns the fields that differ, and what else does: seeds, versions, devices, data."""
    rows = [
        (tag('code', field), _values([record.value(field) for record in view.runs]))
        for field in view.fields
    ]
    seeds = [record.config.get(SEED) for record in view.runs]
    if len(set(map(str, seeds))) > 1:
        rows.append((tag('code', SEED), _values(seeds)))
    for label, values in _surroundings(view).items():
        known = [value for value in values if value]  # a run that has just begun knows less
        if len(set(known)) > 1:
            rows.append((join((label,)), _values(known)))
    if not rows:
        return tag('p', 'The runs do not differ: neither in their configs nor in their versions.')
    head = tag('tr', *(tag('th', each, scope='col') for each in ('What', 'Values (runs)')))
    body = (tag('tr', tag('th', what, scope='row'), tag('td', values)) for what, values in rows)
    return tag('div', tag('table', tag('thead', head), tag('tbody', *body)), class_='table')


def shared(view: View) -> Markup:
    """Returns what all runs share: data, versions and config. Of several runs it is folded up."""
    content = _shared(view)
    if view.is_single:
        return content
    return tag('details', tag('summary', 'What all runs share'), content)


def _shared(view: View) -> Markup:
    facts = {
        label: known.pop()
        for label, values in _surroundings(view).items()
        # The environment of a single run has a section of its own.
        if len(known := set(filter(None, values))) == 1 and (label in _DATA or not view.is_single)
    }
    first = view.runs[0]
    classes = (first.environment.get('data') or {}).get('classes')
    if classes and 'Data' in facts:
        facts['Classes'] = f'{len(classes):,}'
    content = [facts_list(facts)]
    usual = files.encode({each: field.default for each, field in defaults.FIELDS.items()})
    same = {
        field: value
        for field, value in first.config.items()
        if field not in view.fields and field != SEED and not is_place(field)
    }
    if view.is_single:
        same |= {SEED: first.config.get(SEED)}
    changed = {field: value for field, value in same.items() if usual.get(field, ()) != value}
    rest = {field: value for field, value in same.items() if field not in changed}
    content.append(tag('h3', 'Config: the model, and what is not the default'))
    content.append(_fields(changed))
    content.append(tag('details', tag('summary', 'Fields with their defaults'), _fields(rest)))
    return join(content)


def facts_list(facts: Mapping[str, str]) -> Markup:
    """Returns names with their texts."""
    pairs = (each for fact in facts.items() for each in fact)
    return tag('dl', *(tag(('dt', 'dd')[i % 2], tag('bdi', each)) for i, each in enumerate(pairs)))


def problems(view: View) -> Markup:
    """Returns the runs that have failed, and what could not be read, or only in part."""
    failed = [
        (record, str(record.summary.get('error') or 'no reason is known'))
        for record in view.runs
        if record.status == 'failed'
    ]
    damaged = [(record, record.problem) for record in (*view.foreign, *view.runs) if record.problem]
    return join((_listed(failed, 'failed'), _listed(damaged, 'damaged or foreign')))


def _listed(found: Sequence[tuple[Record, str]], what: str) -> Markup | None:
    if not found:
        return None
    items = [tag('li', name(record.name), ': ', text[:300]) for record, text in found[:_LISTED]]
    if len(found) > len(items):
        items.append(tag('li', f'and {len(found) - len(items):,} more'))
    return tag('details', tag('summary', f'{len(found):,} {what}'), tag('ul', *items))


def duration(seconds: float) -> str:
    """Returns a time in the two largest units that it has."""
    if seconds < 60:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f'{hours} h {minutes} min' if hours else f'{minutes} min'
    return f'{hours / 24:.1f} days'


def _fields(values: Mapping[str, Any]) -> Markup:
    text = '\n'.join(f'{field} = {shown(value)}' for field, value in sorted(values.items()))
    return tag('pre', Markup('\n'.join(map(escape, text.split('\n')))))


def _values(values: list[Any]) -> Markup:
    """Returns different values with how many runs have each."""
    counts = collections.Counter(map(shown, values))
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(counts) > _VALUES_SHOWN and len(numbers) == len(values):
        ends = f'{number(min(numbers))} to {number(max(numbers))}'
        return join((f'{ends}, {len(counts):,} values',))
    texts = map(shown, sorted(numbers)) if len(numbers) == len(values) else counts
    most = list(dict.fromkeys(texts))[:_VALUES_SHOWN]
    parts = [
        join((name(each), tag('span', f' ({counts[each]:,})', class_='quiet'))) for each in most
    ]
    if len(counts) > len(most):
        parts.append(Markup(f'and {len(counts) - len(most):,} more'))
    return join(parts, ', ')


def _surroundings(view: View) -> dict[str, list[str]]:
    """Returns what is known of each run beside its config, as texts."""
    found = collections.defaultdict(list)
    for record in view.runs:
        data = record.environment.get('data') or {}
        sizes = data.get('sizes') or {}
        images = ', '.join(f'{size:,} {split}' for split, size in sizes.items())
        found['Data'].append(f'{data["source"]}: {images}' if 'source' in data else '')
        found['Test images (sha256)'].append(record.test_images[:16])
        found['Parameters'].append(number(record.summary.get('params') or ''))
        for label, value in environment(record).items():
            found[label].append(value)
    return found


def environment(record: Record) -> dict[str, str]:
    """Returns versions, hardware and source of a run, as texts."""
    known = record.environment
    git, packages = known.get('git') or {}, known.get('packages') or {}
    devices = collections.Counter(known.get('devices') or [])
    changed = ', with uncommitted changes' if git.get('dirty') else ''
    commit = git.get('commit')
    return {
        'Devices': ', '.join(f'{count} × {each}' for each, count in devices.items()),
        'Processor': f'{known.get("processor", "")}, {known.get("cpu_count", "?")} cores'
        if known.get('processor')
        else '',
        'Driver': str(known.get('driver') or ''),
        'Python': str(known.get('python') or ''),
        'Packages': ', '.join(f'{each} {version}' for each, version in packages.items()),
        'Platform': str(known.get('platform') or ''),
        'Commit': f'{commit[:12]}{changed}' if commit else '',
    }
