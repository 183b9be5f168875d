"""What a person or a program sees of an export: its files, and what a check has found."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from neptune_jax import terminal
from neptune_jax.exporting.checking import Checked
from neptune_jax.runs import files


def show(out: str, sizes: dict[str, int], checked: Sequence[Checked], style: str) -> None:
    """Prints the files of an export, as style 'text', 'json' or 'csv'."""
    found = {each.file: each for each in checked}
    rows = [
        {'file': name, 'bytes': size}
        | (
            {
                'images': found[name].images,
                'difference': found[name].difference,
                'tolerance': found[name].tolerance,
                'equal': found[name].is_equal,
            }
            if name in found
            else {}
        )
        for name, size in sizes.items()
    ]
    if style == 'json':
        print(files.dumps({'out': str(Path(out).resolve()), 'files': rows}, indent=2))
    elif style == 'csv':
        writer = csv.DictWriter(sys.stdout, max(rows, key=len), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    else:
        _show_text(out, rows)


def _show_text(out, rows):
    table = Table('file', title=f'exported to {out}')
    table.add_column('size', justify='right')
    checks = any('equal' in row for row in rows)
    if checks:
        table.add_column('largest difference', justify='right')
        table.add_column('')
    for row in rows:
        cells = [row['file'], f'{row["bytes"]:,}']
        if 'equal' in row:
            what = f'on {row["images"]} images' if row['images'] else 'of a parameter'
            verdict = 'agrees with the run' if row['equal'] else 'DIFFERS from the run'
            cells += [f'{row["difference"]:.1e} {what}', verdict]
        table.add_row(*cells)
    terminal.table(table)
