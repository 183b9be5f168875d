"""Folders as people have them: what is read of them, what is not, and which are not understood."""

import io
import os
import sys
import types
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from neptune_jax.data import clean
from neptune_jax.data.sources import files, raw, workers
from neptune_jax.errors import UserError

THREE_CLASSES = [f'{name}/{i}.png' for name in ('cat', 'cow', 'dog') for i in range(4)]


# ------------------------------------------------------------------------ What is read and what not

FORMATS = {  # the endings of formats that Pillow writes
    'TIFF': ('.tif', '.tiff', '.TIF'),
    'JPEG': ('.jfif', '.jpe', '.jpg', '.jpeg'),
    'PPM': ('.ppm', '.pgm'),
    'MPO': ('.mpo',),
    'JPEG2000': ('.jp2', '.j2k'),
    'PNG': ('.png', '.apng'),
    'TGA': ('.tga',),
    'PCX': ('.pcx',),
    'ICO': ('.ico',),
    'DIB': ('.dib',),
    'SGI': ('.sgi',),
    'DDS': ('.dds',),
}


def test_every_ending_that_pillow_decodes_is_read(read, write, tmp_path):
    Image.init()
    formats = FORMATS | ({'AVIF': ('.avif',)} if 'AVIF' in Image.SAVE else {})  # Pillow 11.3
    formats = {ending: kind for kind, endings in formats.items() for ending in endings}
    for name in ('a', 'b'):
        (tmp_path / 'raw' / name).mkdir(parents=True)
        for i, (ending, kind) in enumerate(formats.items()):
            grey = 5 * i + (100 if name == 'b' else 0)
            Image.new('RGB', (16, 16), (grey,) * 3).save(tmp_path / f'raw/{name}/{i}{ending}', kind)
    source = read(image_size=(16, 16), channels=1, resize='stretch')
    assert 'not_used' not in source.report
    assert 'unreadable' not in source.report
    assert len(source) == 2 * len(formats)
    found = {source.name(i): source.images()[i].mean() for i in range(len(source))}
    for i, ending in enumerate(formats):
        assert found[f'a/{i}{ending}'] == pytest.approx(5 * i, abs=2)
        assert found[f'b/{i}{ending}'] == pytest.approx(5 * i + 100, abs=2)


def test_formats_that_pillow_only_recognises_are_no_images():
    assert files.endings().isdisjoint({'.eps', '.ps', '.pdf', '.mpg', '.h5', '.wmf', '.grib'})


def test_what_is_not_used_is_counted_and_named_by_its_kind(paste, load, tmp_path):
    paste(THREE_CLASSES)
    raw = tmp_path / 'raw'
    for name in (
        *('cat/.DS_Store', 'cow/.DS_Store', 'dog/._1.png', 'Thumbs.db', '__MACOSX/cat/._1.png'),
        *('cat/IMG_1.HEIC', 'cat/IMG_2.heic', 'cow/3.heif', 'cat/boxes.XML', 'labels.csv'),
        *('dog/README', 'dog/.hidden.png', '.thumbnails/1.png', 'dog/a\nb.t\nxt'),
        *('cat/.ipynb_checkpoints/1.png', 'cat/@eaDir/1.png/SYNOPHOTO_THUMB_XL.jpg'),
    ):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(b'x')
    paste(['cover.jpg', 'back.png'])
    os.mkfifo(raw / 'dog/pipe.png')  # who opens it waits for ever
    (raw / 'none').mkdir()
    data = load()
    assert data.report['classes']['train'] == {'cat': 4, 'cow': 4, 'dog': 4}
    rule = data.report['rules']['not_used']
    assert rule['kinds'] == {
        '.heic (pip install pillow-heif)': 2,
        '.heif (pip install pillow-heif)': 1,
        '.DS_Store': 2,
        'Thumbs.db': 1,
        '__MACOSX': 1,
        '._*': 1,
        '.ipynb_checkpoints': 1,
        '@eaDir': 1,
        'hidden': 2,
        'images outside the folders of classes': 2,
        '.xml': 1,
        '.csv': 1,
        r'.t\nxt': 1,
        'without an ending': 1,
        'no files (pipes, sockets, devices)': 1,
    }
    assert rule['count'] == 19
    assert len(rule['examples']) == 10
    assert 'cat/IMG_1.HEIC' in rule['examples']
    assert data.report['rules']['folders_without_images']['examples'] == ['none (nothing)']
    summary = clean.summary(data.report)
    assert '2 .heic (pip install pillow-heif)' in summary
    assert '1 folders without images (none (nothing))' in summary
    assert '5 more kinds' in summary
    # A new file that is not used is named although nothing is prepared again.
    before = data.source.full_name
    (raw / 'cat/notes.doc').write_text('two cats')
    again = load()
    assert again.source.full_name == before
    assert again.report['rules']['not_used']['kinds']['.doc'] == 1


def test_subfolders_of_a_class_are_read_as_imagefolder_reads_them(read, paste, tmp_path):
    names = ['cat/2.png', 'cat/1/b.png', 'cat/1/a.png', 'cat/3/deep/x.png', 'cat/3/z.png']
    names += ['dog/only/1.png', 'dog/only/2.png', 'dog/dir.png/1.png']
    paste(names)
    raw = tmp_path / 'raw'
    (raw / 'cat/3/deep/up').symlink_to('../..')  # loops
    (raw / 'cat/again').symlink_to('.')
    (raw / 'dog/everything').symlink_to('..')
    (raw / 'dog/self').symlink_to('self')
    (raw / 'all').symlink_to('.')  # is no class
    (raw / 'dog/way').symlink_to('../../way')
    (tmp_path / 'way').mkdir()
    (tmp_path / 'way/back').symlink_to('../raw')
    source = read()
    found = [source.name(i) for i in range(len(source))]
    # As torchvision.datasets.ImageFolder orders them: a folder's files, then its folders.
    assert found == [
        *('cat/2.png', 'cat/1/a.png', 'cat/1/b.png', 'cat/3/z.png', 'cat/3/deep/x.png'),
        *('dog/dir.png/1.png', 'dog/only/1.png', 'dog/only/2.png'),
    ]
    assert source.index()['label'].tolist() == [0] * 5 + [1] * 3
    assert source.report['in_subfolders_of_classes']['count'] == 7
    assert source.report['not_used']['kinds'] == {
        'links to folders above them or read already': 5,
        'links that lead nowhere': 1,
    }


def test_a_link_to_a_folder_elsewhere_is_followed(read, paste, tmp_path):
    paste(['cat/1.png', 'cat/2.png'])
    paste(['../elsewhere/a/1.png', '../elsewhere/a/2.png'])
    (tmp_path / 'raw/dog').symlink_to('../elsewhere')
    source = read()
    assert [source.name(i) for i in (2, 3)] == ['dog/a/1.png', 'dog/a/2.png']


def test_heic_files_are_read_if_pillow_heif_is_installed(read, paste, tmp_path, monkeypatch):
    """A stand-in for pillow-heif, whose files start as HEIC files do and go on as PNG files."""
    heic = types.ModuleType('pillow_heif')

    class HeifFile(PngImagePlugin.PngImageFile):
        format = 'HEIF'

        def __init__(self, file, name):
            file.seek(16)
            super().__init__(io.BytesIO(file.read()))

    def register_heif_opener():
        Image.register_open('HEIF', HeifFile, lambda start: start[4:12] == b'ftypheic')
        Image.register_extensions('HEIF', ['.heic', '.heif'])

    heic.register_heif_opener = register_heif_opener
    paste([f'{name}/{i}.png' for name in ('cat', 'dog') for i in range(3)])
    paste(['../1.png', '../2.png'])
    for i, new in ((1, 'dog/a.heic'), (2, 'dog/b.jpg')):  # as an iPhone's photos may be called
        content = (tmp_path / f'{i}.png').read_bytes()
        (tmp_path / 'raw' / new).write_bytes(b'\0\0\0\x10ftypheic\0\0\0\0' + content)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'pillow_heif', None)  # an ImportError
        source = read()
        assert source.report['unreadable']['examples'] == [
            'dog/b.jpg (the file is in the format HEIF (HEIC): pip install pillow-heif)'
        ]
        assert source.report['not_used']['kinds'] == {'.heic (pip install pillow-heif)': 1}
    for cached in (files.endings, files._register_heif):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, 'pillow_heif', heic)
    for table in ('OPEN', 'EXTENSION', 'ID'):
        monkeypatch.setattr(Image, table, getattr(Image, table).copy())
    try:
        (tmp_path / 'raw/dog/a.heic').rename(tmp_path / 'a.heic')
        source = read()  # of the same files, of which one was unreadable
        assert 'unreadable' not in source.report
        assert len(source) == 7
        (tmp_path / 'a.heic').rename(tmp_path / 'raw/dog/a.heic')
        source = read()
        assert 'not_used' not in source.report
        assert len(source) == 8
    finally:
        for cached in (files.endings, files._register_heif):
            cached.cache_clear()


# ------------------------------------------------------------------------------------------ Layouts


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (
            ['Train/cat/1.png', 'Test/cat/1.png'],
            r'raw holds the folder\(s\) Test, Train, which look like splits but must be named',
        ),
        (
            ['training/cat/1.png', 'validation/cat/1.png'],
            r'folder\(s\) training, validation, which',
        ),
        (['test/cat/1.png', 'val/cat/1.png'], r'folder\(s\) test, val, which look like splits'),
        (['Train/1.png', 'Test/1.png'], r'folder\(s\) Test, Train, which look like splits'),
        (['training_set/cat/1.png', 'test_set/cat/1.png'], 'test_set, training_set, which look'),
        (['train/cat/1.png', 'Test/cat/1.png'], 'raw/Test is not a split; name it val or test'),
        (
            ['train/1.png', 'train/2.png', 'bus/1.png', 'car/1.png'],
            'holds the folder train beside bus, car: is train a class too, move .* into one new',
        ),
        (
            ['cat/train/1.png', 'cat/test/1.png', 'dog/train/1.png', 'dog/test/1.png'],
            r'raw holds folders of splits \(test, train\) in cat, dog: expected: PATH/train/CLASS',
        ),
        (
            ['pets/train/cat/1.png', 'pets/test/cat/1.png', '.git/1.png'],
            r'holds folders of splits \(test, train\) in pets: set --config.data.path=.*/raw/pets$',
        ),
        (
            ['pets/cat/1.png', 'pets/dog/1.png'],
            r"only one folder with images, 'pets', .*set --config.data.path=.*/raw/pets$",
        ),
        (
            ['1.png'],
            r"raw has no images; .*found: 2 images outside .*; is 'raw' a class, set "
            r'--config.data.path=\S*[^/]$',
        ),
        (
            ['train/1.png', 'test/cat/1.png'],
            'raw/train has no images; .*found: 2 images outside the folders of classes$',
        ),
        (
            ['cafe\u0301/1.png', 'caf\u00e9/1.png', 'dog/1.png'],
            r"two folders that are both called 'café', .*'cafe\\u0301' and 'caf\\xe9'",
        ),
    ],
)
def test_layouts_that_are_not_understood(paste, refused, names, message):
    paste([*names, *(name.replace('1.png', '3.png') for name in names)])
    refused(message)


@pytest.mark.parametrize(
    'names',
    [
        ['test/1.png', 'control/1.png'],  # a class may have any name
        ['test_tube/1.png', 'train_station/1.png'],
        ['train/train/1.png', 'train/test/1.png', 'test/train/1.png'],
        ['train/cat/1.png', 'train/dog/1.png', 'annotations/labels.txt', 'val/cat/1.png'],
    ],
)
def test_names_of_splits_that_are_classes(read, paste, tmp_path, names):
    images = [name for name in names if name.endswith('png')]
    paste([*images, *(name.replace('1.png', '2.png') for name in images)])
    for name in set(names).difference(images):
        (tmp_path / 'raw' / name).parent.mkdir()
        (tmp_path / 'raw' / name).write_text('boxes')
    source = read()
    train = [name.split('/') for name in images if name.startswith('train/') or len(names) == 2]
    assert set(source.class_names) == {parts[-2] for parts in train}
    if 'annotations/labels.txt' in names:
        assert source.report['not_used']['kinds'] == {'folders without images': 1}


def test_splits_beside_the_path_are_named(read, paste, tmp_path):
    paste([f'train/{name}' for name in THREE_CLASSES])
    paste(['test/cat/1.png', 'test/dog/1.png'])
    report = read(path=str(tmp_path / 'raw/train')).report
    assert report['not_used']['examples'] == ['../test']
    (kind,) = report['not_used']['kinds']
    assert kind == f'splits beside data.path={tmp_path}/raw/train'


def test_two_splits_that_are_one_folder(paste, refused, tmp_path):
    paste([f'train/{name}' for name in THREE_CLASSES])
    (tmp_path / 'raw/val').symlink_to('train')
    refused('raw/train and .*raw/val are the same folder, by a link')


def test_a_class_is_the_same_in_either_unicode_form(read, paste):
    paste(['train/caf\u00e9/1.png', 'train/caf\u00e9/2.png'])
    paste(['train/dog/1.png', 'train/dog/2.png', 'test/cafe\u0301/3.png'])
    source = read()
    assert source.class_names == ('caf\u00e9', 'dog')
    assert source.index()['label'].tolist() == [0, 0, 1, 1, 0]


def test_odd_names_of_files_are_printed_on_one_line(read, paste, refused, tmp_path):
    paste(THREE_CLASSES)
    for name in ('a\nb.png', os.fsdecode(b'caf\xe9.png')):
        paste([f'cat/{name}'])
        (tmp_path / f'raw/cat/{name}').write_bytes(b'')
    source = read()
    assert source.report['unreadable']['examples'] == [
        r'cat/a\nb.png (the file is empty)',
        r'cat/caf\udce9.png (the file is empty)',
    ]
    with pytest.raises(UserError, match=r'^cat/a\\nb.png: the file is empty; mend') as error:
        read(**{'clean.unreadable': 'error'})
    assert '\n' not in str(error.value)


def test_a_file_that_vanishes_after_it_was_listed(paste, refused, tmp_path, monkeypatch):
    paste(THREE_CLASSES)

    def vanish(*args):
        (tmp_path / 'raw/cow/2.png').unlink()
        return resolve(*args)

    resolve = raw.resolve
    monkeypatch.setattr(raw, 'resolve', vanish)
    refused(
        r'^cow/2.png cannot be read now \(.*No such file.*\), and so nothing was prepared; make'
    )


def test_a_worker_process_that_is_killed(monkeypatch):
    monkeypatch.setattr(workers, 'IN_PROCESS', 1)
    with pytest.raises(UserError, match='a process that converts images 0 to 1,024 was killed'):
        list(workers.map_all(os._exit, [9] * 20))


def test_large_results_are_not_computed_far_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, 'IN_PROCESS', 1)
    paths = [tmp_path / str(number) for number in range(40)]
    results = workers.map_all(Path.touch, paths, nbytes=workers.AHEAD_BYTES)
    next(results)
    assert len(list(tmp_path.iterdir())) == 1
    assert len(list(results)) == 39
