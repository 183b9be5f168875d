"""NumPy files and CSVs as people have them."""

import numpy as np
import pytest

from neptune_jax.errors import UserError

RNG = np.random.default_rng(0)
PHOTOS = RNG.integers(0, 256, (12, 7, 6, 3)).astype(np.uint8)
SCANS = PHOTOS[..., 0]
LABELS = np.arange(12) % 3


@pytest.fixture
def read_arrays(read, tmp_path):
    """Writes arrays to an .npz and opens it."""

    def read_arrays(arrays, **fields):
        np.savez(tmp_path / 'raw.npz', **arrays)
        return read(name='arrays', path=str(tmp_path / 'raw.npz'), **fields)

    return read_arrays


@pytest.fixture
def read_csv(read, tmp_path):
    def read_csv(text, **fields):
        (tmp_path / 'raw.csv').write_text(text)
        return read(name='arrays', path=str(tmp_path / 'raw.csv'), **fields)

    return read_csv


def test_an_npz_of_images_and_labels(read_arrays):
    source = read_arrays({'images': PHOTOS, 'labels': LABELS})
    np.testing.assert_array_equal(source.images(), PHOTOS)
    np.testing.assert_array_equal(source.index()['label'], LABELS)
    assert source.class_names == ('0', '1', '2')
    assert list(source.splits) == ['train']
    assert source.report == {}


def test_an_npz_with_a_test_split_and_labels_in_a_column(read_arrays):
    arrays = {
        'x_train': SCANS[:8],
        'y_train': LABELS[:8, None],
        'x_test': SCANS[8:],
        'y_test': LABELS[8:, None],
    }
    source = read_arrays(arrays)
    np.testing.assert_array_equal(source.images()[..., 0], SCANS)
    np.testing.assert_array_equal(source.index()['label'], LABELS)
    assert {name: len(part) for name, part in source.splits.items()} == {'train': 8, 'test': 4}


def test_a_pair_of_npy_files_that_change(read, tmp_path):
    paths = {'path': str(tmp_path / 'images.npy'), 'labels_path': str(tmp_path / 'labels.npy')}
    np.save(paths['path'], SCANS)
    np.save(paths['labels_path'], LABELS)
    np.testing.assert_array_equal(read(name='arrays', **paths).images()[..., 0], SCANS)
    np.save(paths['labels_path'], 2 - LABELS)
    np.testing.assert_array_equal(read(name='arrays', **paths).index()['label'], 2 - LABELS)


def test_floats_are_of_one_range_in_all_images(read_arrays):
    images = SCANS.astype(np.float32)
    images[0] = images[0] > 99  # a black image with a little noise
    source = read_arrays({'images': images, 'labels': LABELS})
    np.testing.assert_array_equal(source.images()[..., 0], images)
    images = SCANS / 255
    images[3, 0, 0] = 2
    source = read_arrays({'images': images, 'labels': LABELS})
    np.testing.assert_array_equal(source.images()[..., 0], np.delete(SCANS, 3, axis=0))
    assert source.report['unreadable'] == {
        'count': 1,
        'examples': ['train[3] (float64 values from 0.00392157 to 2; expected 0 to 1)'],
    }


def test_an_image_out_of_range_is_refused_where_the_unreadable_are(read_arrays):
    images = SCANS.astype(np.int64)
    images[5, 1, 2] = -1
    with pytest.raises(UserError, match=r'^train\[5\]: int64 values from -1 .*unreadable=drop'):
        read_arrays({'images': images, 'labels': LABELS}, **{'clean.unreadable': 'error'})


@pytest.mark.parametrize(
    ('numbers', 'note'),
    [
        ((0, 1, 2), None),
        ((1, 2, 3), 'the labels that occur, 1, 2, 3; 1 other number(s) from 0 to 3 do not occur'),
        ((0, 1, 3000), 'occur, 0, 1, 3000; 2,998 other number(s) from 0 to 3000 do not occur'),
        ((7.0, 3.0, 9.0), 'occur, 3, 7, 9; 7 other number(s) from 0 to 9 do not occur'),
    ],
)
def test_the_classes_are_the_labels_that_occur(read_arrays, numbers, note):
    labels = np.array(numbers)[LABELS]
    arrays = {'x_train': SCANS, 'y_train': labels, 'x_test': SCANS[:4], 'y_test': labels[:4]}
    source = read_arrays(arrays)
    assert source.class_names == tuple(str(int(number)) for number in sorted(numbers))
    names = np.array(source.class_names)[source.index()['label']]
    np.testing.assert_array_equal(names.astype(int), [*labels, *labels[:4]])
    assert len(source.notes) == bool(note)
    assert not note or source.notes[0].endswith(note)


def test_a_label_that_is_missing_is_no_class(read_arrays):
    labels = LABELS * 2.0
    labels[5] = np.nan
    source = read_arrays({'images': SCANS, 'labels': labels})
    assert source.class_names == ('0', '2', '4')
    np.testing.assert_array_equal(source.index()['label'], np.delete(LABELS, 5))
    assert source.report['missing_labels'] == {'count': 1, 'examples': ['train[5]']}


def test_a_file_that_cannot_be_read_now_can_be_read_later(read_arrays, monkeypatch):
    arrays = {'images': SCANS, 'labels': LABELS}
    with monkeypatch.context() as patch:

        def refuse(*args, **kwargs):
            raise PermissionError(13, 'Permission denied')

        patch.setattr('numpy.load', refuse)
        with pytest.raises(UserError, match=r'raw.npz cannot be read: .*Permission denied'):
            read_arrays(arrays)
    np.testing.assert_array_equal(read_arrays(arrays).images()[..., 0], SCANS)


def test_splits_of_two_scales_are_refused(read_arrays, refused, tmp_path):
    arrays = {'x_train': SCANS * 1.0, 'y_train': LABELS, 'x_test': SCANS / 255, 'y_test': LABELS}
    message = r'12 of 12 images of test .* floats from 0.\S+ to 1, the others from \S+ to 255; res'
    with pytest.raises(UserError, match=message):
        read_arrays(arrays)
    source = read_arrays(arrays, white=255.0)
    test = source.images()[source.splits['test'], ..., 0]
    np.testing.assert_array_equal(test, np.rint(SCANS / 255))


def test_white_of_arrays(read_arrays):
    twelve = np.random.default_rng(0).integers(0, 4096, SCANS.shape).astype(np.uint16)
    twelve[0, 0, 0] = 4095
    arrays = {'images': twelve, 'labels': LABELS}
    for field in (0.0, 4095.0):
        pixels = read_arrays(arrays, white=field).images()[..., 0]
        np.testing.assert_array_equal(pixels, np.rint(twelve / 4095 * 255))
    full = read_arrays(arrays, white=65535.0).images()[..., 0]
    np.testing.assert_array_equal(full, np.rint(twelve / 257))


def test_missing_pixels_and_labels(read_arrays):
    images, labels = SCANS.astype(np.float32), LABELS.astype(np.float64)
    images[2, 0, 0] = np.nan
    labels[[4, 7]] = np.nan
    source = read_arrays({'images': images, 'labels': labels})
    expected = SCANS.copy()
    expected[2, 0, 0] = np.rint(np.delete(SCANS[2].ravel(), 0).mean())
    np.testing.assert_array_equal(source.images()[..., 0], np.delete(expected, [4, 7], axis=0))
    np.testing.assert_array_equal(source.index()['label'], np.delete(LABELS, [4, 7]))
    assert source.report['missing_pixels'] == {'count': 1, 'examples': ['train[2]']}
    assert source.report['missing_labels'] == {'count': 2, 'examples': ['train[4]', 'train[7]']}
    fields = {'clean.missing_pixels': 'drop', 'clean.unreadable': 'error'}
    source = read_arrays({'images': images, 'labels': labels}, **fields)
    np.testing.assert_array_equal(source.images()[..., 0], np.delete(SCANS, [2, 4, 7], axis=0))
    rule = source.report['missing_pixels']
    assert rule == {'count': 1, 'examples': ['train[2] (1 missing pixels)']}


def test_ten_examples_of_a_rule_are_named(read_arrays):
    images, labels = np.tile(SCANS, (2, 1, 1)), np.tile(LABELS, 2).astype(np.float32)
    labels[:15] = np.nan
    rule = read_arrays({'images': images, 'labels': labels}).report['missing_labels']
    assert rule == {'count': 15, 'examples': [f'train[{i}]' for i in range(10)]}


def test_images_of_another_size_in_the_test_split(read_arrays):
    arrays = {'x_train': SCANS, 'y_train': LABELS, 'x_test': SCANS[:, 1:], 'y_test': LABELS}
    with pytest.raises(UserError, match=r'^test\[0\]: 6x6 pixels where 7x6 .*data.resize'):
        read_arrays(arrays)


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({}, 'holds nothing; expected images and labels'),
        ({'pictures': SCANS, 'labels': LABELS}, 'holds pictures, labels; expected images'),
        (
            {'x_train': SCANS, 'y_train': LABELS, 'x_test': SCANS},
            'holds x_train, y_train, x_test; expected .* x_test and y_test',
        ),
        (
            {'images': SCANS, 'labels': LABELS - 1},
            'label -1 of example 0 is not a whole number from 0',
        ),
        ({'images': SCANS, 'labels': LABELS + 0.5}, r'label 0\.5 of example 0'),
        ({'images': SCANS, 'labels': LABELS - np.inf}, 'label -inf of example 0'),
        ({'images': SCANS, 'labels': LABELS * 10**9}, 'label 1000000000 of example 1'),
        ({'images': SCANS, 'labels': LABELS.astype(str)}, 'labels of shape .* and type <U21'),
        ({'images': SCANS, 'labels': np.eye(12)}, r'labels of shape \(12, 12\)'),
        ({'images': SCANS, 'labels': LABELS[:-1]}, '12 images and 11 labels'),
        ({'images': SCANS, 'labels': LABELS * 0}, 'has only class 0: there is nothing to classify'),
        ({'images': SCANS, 'labels': LABELS * np.nan}, 'has no labels'),
        ({'images': SCANS[:0], 'labels': LABELS[:0]}, 'has no labels'),
        ({'images': SCANS, 'labels': np.arange(12)}, 'class 0 has one image'),
        ({'images': SCANS.reshape(12, -1), 'labels': LABELS}, r'images of shape \(12, 42\)'),
        ({'images': SCANS.astype(str), 'labels': LABELS}, 'images of shape .* and type <U3'),
        (
            {'images': SCANS.astype(object), 'labels': LABELS},
            r'cannot be read: .*allow_pickle',
        ),
        (
            {'images': PHOTOS.transpose(0, 3, 1, 2), 'labels': LABELS},
            r'images of shape \(12, 3, 7, 6\); the last number must be 1, 3, 4',
        ),
        (
            {'x_train': SCANS, 'y_train': LABELS, 'x_test': SCANS, 'y_test': LABELS + 1},
            'raw.npz, test: training has no class 3',
        ),
        (
            {'x_train': SCANS, 'y_train': LABELS, 'x_test': SCANS, 'y_test': LABELS * np.nan},
            r"none of the 12 images of the split 'test' .* test\[11\]: its label is missing",
        ),
        (
            {'images': SCANS - 128.0, 'labels': LABELS},
            r'12 of 12 images of train .train.0., .* below 0: floats from -127 to 127; black must '
            r'be 0: rescale all images, maybe by .x \+ 127. / 254$',
        ),
    ],
)
def test_arrays_that_are_refused(read_arrays, tmp_path, arrays, message):
    with pytest.raises(UserError, match=message) as caught:
        read_arrays(arrays)
    assert '\n' not in str(caught.value)
    assert not [path for path in (tmp_path / 'data').rglob('*') if path.is_file()]


@pytest.mark.parametrize('content', [b'', b'nothing', b'PK\x03\x04 and the rest was lost'])
@pytest.mark.parametrize('ending', ['npz', 'npy', 'csv'])
def test_files_that_are_none(refused, tmp_path, ending, content):
    path = tmp_path / f'raw.{ending}'
    path.write_bytes(content)
    fields = {'name': 'arrays', 'path': str(path)}
    fields |= {'labels_path': str(path)} if ending == 'npy' else {}
    refused('cannot be read|no column', **fields)


def test_an_npz_that_was_cut_short(refused, tmp_path):
    path = tmp_path / 'raw.npz'
    np.savez(path, images=SCANS, labels=LABELS)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(r'raw.npz cannot be read: ', name='arrays', path=str(tmp_path / 'raw.npz'))


def test_paths_that_are_none(refused, tmp_path):
    refused("data.name='arrays' needs --config.data.path", name='arrays', path='')
    refused(r"data.path='nowhere.npz' is not a file", name='arrays', path='nowhere.npz')
    refused(r"data.path='a.mat' must end in .npz, .npy or .csv", name='arrays', path='a.mat')
    np.save(tmp_path / 'images.npy', SCANS)
    refused(
        r"^data.labels_path='' is not a file; set --config.data.labels_path",
        name='arrays',
        path=str(tmp_path / 'images.npy'),
    )


@pytest.mark.parametrize(
    ('ending', 'fields', 'message'),
    [
        (
            'npz',
            {'labels_path': 'y.npy'},
            r"data.labels_path='y.npy' is not used by .* not of the type .npy",
        ),
        (
            'csv',
            {'labels_path': 'y.npy'},
            r"data.labels_path='y.npy' .*--config.data.labels_path=$",
        ),
        (
            'npz',
            {'label_column': 'digit'},
            r"data.label_column='digit' .* not of the type .csv; .*=label$",
        ),
    ],
)
def test_fields_for_other_kinds_of_files(refused, tmp_path, ending, fields, message):
    (tmp_path / f'raw.{ending}').write_bytes(b'')
    refused(message, name='arrays', path=str(tmp_path / f'raw.{ending}'), **fields)


CSV = 'p0,label,p1,p2,p3\n1,0,2,3,4\n5,1,6,7,8\n9,0,10,11,12\n255,1,14,15,16\n'
PIXELS = np.uint8([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [255, 14, 15, 16]])


def test_a_csv(read_csv):
    for text in (CSV, CSV.replace('\n', '\r\n'), CSV.replace('\n', '\n\n')):
        source = read_csv(text)
        np.testing.assert_array_equal(source.images(), PIXELS.reshape(4, 2, 2, 1))
        assert source.index()['label'].tolist() == [0, 1, 0, 1]
    source = read_csv(CSV.replace('label', 'digit'), label_column='digit', image_size=(1, 4))
    np.testing.assert_array_equal(source.images(), PIXELS.reshape(4, 1, 4, 1))


def test_columns_that_are_numbered(read_csv):
    # As pandas writes a table without names of columns.
    source = read_csv(CSV.replace('p0,label,p1,p2,p3', '0,1,2,3,4'), label_column='1')
    np.testing.assert_array_equal(source.images(), PIXELS.reshape(4, 2, 2, 1))
    assert source.notes == []


@pytest.mark.parametrize(
    ('header', 'noted'),
    [
        ('p0,label,p1,p2,p3', False),
        ('1x1,label,1x2,2x1,2x2', False),
        ('a,label,b,c,d', False),
        ('x9,label,x10,x11,x12', False),
        ('b2,label,a,c,d', False),
        ('p0,label,p10,p2,p3', True),
        ('1x1,label,2x1,1x2,2x2', True),
    ],
)
def test_pixels_in_another_order_than_their_names_are_noted(read_csv, header, noted):
    source = read_csv(CSV.replace('p0,label,p1,p2,p3', header))
    np.testing.assert_array_equal(source.images(), PIXELS.reshape(4, 2, 2, 1))
    assert bool(source.notes) == noted
    assert not noted or 'as pixels row by row in this order' in source.notes[0]


def test_a_csv_of_12_bits(read_csv):
    source = read_csv(CSV.replace('255', '4095').replace('5,1,6', '2005,1,4000'))
    deep = np.array([[1, 2, 3, 4], [2005, 4000, 7, 8], [9, 10, 11, 12], [4095, 14, 15, 16]])
    # Half of the images are as dark as images of 8 bits are: no single scale is certain.
    np.testing.assert_array_equal(
        source.images().reshape(4, 4), np.rint(deep * (255 / 4095)).astype(np.uint8)
    )


def test_a_csv_as_excel_writes_it(read_csv):
    source = read_csv('\ufefflabel,p0\r\n0,7\r\n0,8\r\n1,9\r\n1,255\r\n')
    assert source.images().ravel().tolist() == [7, 8, 9, 255]


def test_a_csv_in_colour(read_csv):
    rows = [f'{i % 2},' + ','.join(map(str, photo.ravel())) for i, photo in enumerate(PHOTOS)]
    text = '\n'.join(['label,' + ','.join(map(str, range(126))), *rows])
    source = read_csv(text, image_size=(7, 6), channels=3)
    np.testing.assert_array_equal(source.images(), PHOTOS)


def test_a_csv_with_missing_cells(read_csv):
    source = read_csv(CSV.replace('5,1,6', '5,1,').replace('9,0', '9,') + '0,0,,0,1\n')
    expected = [[1, 2, 3, 4], [5, 7, 7, 8], [255, 14, 15, 16], [0, 0, 0, 1]]
    np.testing.assert_array_equal(source.images().reshape(4, 4), expected)
    assert source.report['missing_labels'] == {'count': 1, 'examples': ['train[2]']}
    assert source.report['missing_pixels']['examples'] == ['train[1]', 'train[4]']


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (CSV + '1,0,2\n', 'line 6: 3 columns where the header has 5'),
        (CSV.replace('10', 'x'), "line 4: could not convert string to float: 'x'"),
        (CSV.replace('1,0,', '1,cat,', 1), "line 2: could not convert string to float: 'cat'"),
        (CSV.replace('label', 'digit'), "no column 'label'; .* one of: p0, digit, p1"),
        (
            CSV.replace('p3', 'p3,p4').replace(',0,', ',0,0,').replace(',1,', ',1,0,'),
            'has 5 pixels a row, .* 2x2x1',
        ),
        ('label\n1\n0\n', 'has 0 pixels a row'),
        (CSV.replace(',', ';'), "has ';' between its columns; write it with commas there"),
        (CSV.replace(',', ';').replace('2', '2,5'), "has ';' between its columns"),
        (CSV.replace(',', '\t'), r"has '\\t' between its columns"),
        (CSV.replace(',', '|'), r"has '\|' between"),
        (CSV.replace(',', ' '), "has ' ' between"),
        (';'.join(['label', *(f'pixel{i}' for i in range(784))]), '^.{,300}$'),
        (CSV.partition('\n')[2], 'has no header: its first line holds numbers'),
        ('0.5,1\n0.7,0\n', 'has no header'),
        ('5;0,5;1,5\n4;0,5;2,5\n', "has ';' between its columns"),
        (CSV.replace('p3', 'label'), "has two columns 'label'; rename one"),
        (','.join(['x' * 500] * 784), '^.{,700}$'),
        (CSV.replace('7', '"7,5"'), "line 3: could not convert string to float: '7,5'"),
        (CSV.replace('7', 'x' * 9999), '^.{,400}$'),
        ('', 'no column'),
        ('p0,label\n', 'raw.csv has no labels'),
        (CSV.replace('1,0,', '1,-3,', 1), 'label -3.0 of example 0 is not a whole number'),
        ('p0,label\n' + 'a' * 200_000, 'cannot be read: field larger than field limit'),
    ],
)
def test_csvs_that_are_refused(read_csv, tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read_csv(text)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'data').exists()
