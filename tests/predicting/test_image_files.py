"""Which files a command line names, and their decoding in order."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from neptune_jax.data.sources.images import Conversion
from neptune_jax.errors import UserError
from neptune_jax.predicting import image_files

CONVERSION = Conversion((4, 4), 1, 'stretch')


@pytest.fixture
def folder(tmp_path):
    """A folder of grey images, one a name; its brightness is the length of the name."""
    for name in ('b.png', 'a.png', 'sub/c.png', 'sub/deep/d.PNG', '.hidden.png', 'notes.txt'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (4, 4), len(name)).save(path, 'png')
    return tmp_path


def names_in(folder, found):
    return [os.path.relpath(path, folder) for path in found]


def test_folders_stand_for_their_images_by_name(folder, capsys):
    found = image_files.list_files([f'{folder}/b.png', str(folder)])
    assert names_in(folder, found) == ['b.png', 'a.png', 'b.png']
    found = image_files.list_files([str(folder)], recursive=True)
    assert names_in(folder, found) == ['a.png', 'b.png', 'sub/c.png', 'sub/deep/d.PNG']
    shown = capsys.readouterr().out.splitlines()
    for kind in ('1 .txt', '1 hidden', '1 subfolder(s), which --recursive reads'):
        assert kind in shown[0]
    assert '--recursive' not in shown[1]


def test_a_file_that_is_named_is_always_tried(folder):
    named = [f'{folder}/notes.txt', f'{folder}/.hidden.png', f'{folder}/gone.png']
    assert image_files.list_files(named) == named


def test_names_come_from_standard_input(folder, monkeypatch):
    def listed(content, **options):
        monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(content)))
        return image_files.list_files(['first.png', '-', 'last.png'], **options)

    content = b'a b.png\n\n\xff.png\n' + os.fsencode(folder)
    expected = ['first.png', 'a b.png', os.fsdecode(b'\xff.png')]
    expected += [f'{folder}/a.png', f'{folder}/b.png', 'last.png']
    assert listed(content) == expected
    assert listed(b'line\nfeed.png\0x.png\0', separator='\0')[1:3] == ['line\nfeed.png', 'x.png']


def test_no_images_are_refused(folder):
    (folder / 'empty').mkdir()
    with pytest.raises(UserError, match=r'there are no image files in .*empty; found: nothing'):
        image_files.list_files([f'{folder}/empty'])
    with pytest.raises(UserError, match='is a URL'):
        image_files.list_files(['https://example.org/cat.png'])


def test_shards_are_the_whole_in_order():
    files = [str(number) for number in range(10)]
    for count in (1, 3, 4, 10, 13):
        shards = [image_files.shard(files, f'{i}/{count}') for i in range(1, count + 1)]
        assert [file for part in shards for file in part] == files
        assert max(map(len, shards)) - min(map(len, shards)) <= 1
    for part in ('0/2', '3/2', '1', '1/0', '-1/2', 'a/b', '1/2/3', ''):
        with pytest.raises(UserError, match='must be 1/n to n/n'):
            image_files.shard(files, part)


@pytest.mark.parametrize('processes', [0, 2])
def test_images_come_in_order_with_a_reason_for_what_cannot_be_read(folder, processes):
    (folder / 'text.png').write_text('no image')
    (folder / 'empty.png').touch()
    names = ['a.png', 'text.png', 'sub/c.png', 'gone.png', 'empty.png', 'sub/deep/d.PNG', 'sub']
    files = [f'{folder}/{name}' for name in names] + ['\0']
    sample = image_files.Sample(files, CONVERSION)
    found = list(image_files.read_all(files, CONVERSION, sample, processes=processes))
    for number in (0, 2, 5):
        np.testing.assert_array_equal(found[number], np.full((4, 4, 1), len(names[number])))
    reasons = [each for each in found if isinstance(each, str)]
    assert reasons == [
        'no image, or of a format that Pillow does not read',
        'No such file or directory',
        'the file is empty',
        'Is a directory',
        'embedded null byte',
    ]
    later = image_files.read_all(files, CONVERSION, sample, start=5, processes=processes)
    np.testing.assert_array_equal(next(later), found[5])
    later.close()


def test_a_few_files_all_over_the_list_are_the_sample(folder):
    assert list(image_files.Sample([f'{folder}/a.png'] * 3, CONVERSION).decoded) == [0, 1, 2]
    sample = image_files.Sample([f'{folder}/a.png', 'gone'] * 500, CONVERSION)
    assert np.diff(list(sample.decoded)).tolist() == pytest.approx([62.5] * 15, abs=1)
    assert len(sample.images) < len(sample.decoded)
    assert image_files.Sample([], CONVERSION).images == []


@pytest.mark.parametrize(
    ('module', 'heavy'),
    [
        ('predicting.image_files', {'jax', 'tensorflow_datasets'}),
        ('inference.predictor', {'tensorflow_datasets'}),
    ],
)
def test_what_decodes_files_imports_no_library_that_it_does_not_use(module, heavy):
    """Each worker process imports the first, each command that predicts the second."""
    code = f'import sys, neptune_jax.{module}; print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(done.stdout.split())
