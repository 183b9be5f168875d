"""Paths as a user writes them."""

import os

import pytest

from neptune_jax import defaults
from neptune_jax.data.sources import opening
from neptune_jax.errors import UserError
from neptune_jax.runs import files, weights, writer


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('x' * 300, '--workdir=x+ cannot be used: File name too long'),
        ('x/' * 3000, '--workdir=[x/]+ cannot be used: File name too long'),
        ('a\0b', '--workdir=a\0b cannot be used: .*embedded null'),
        ('gs://bucket/run', '--workdir=gs://bucket/run is a URL; give a path in a file system'),
    ],
)
def test_a_path_that_no_file_can_have_is_refused(path, message):
    with pytest.raises(UserError, match=message):
        files.expand_user(path, '--workdir')


def test_a_loop_of_links_is_refused_and_what_is_not_there_is_not(tmp_path):
    (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
    with pytest.raises(UserError, match='cannot be used: Too many levels of symbolic links'):
        files.expand_user(f'{tmp_path}/loop/x', '--workdir')
    for path in (f'{tmp_path}/new/run', '/dev/null/run', 'relative: name'):
        assert files.expand_user(path, '--workdir') == path


@pytest.mark.parametrize(
    ('path', 'expanded'),
    [
        ('~/runs/a', '/home/me/runs/a'),
        ('~', '/home/me'),
        ('runs/~/a', 'runs/~/a'),
        ('./~nobody', './~nobody'),
        ('/tmp/a~', '/tmp/a~'),
        ('', ''),
    ],
)
def test_a_tilde_at_the_start_is_the_home_folder(monkeypatch, path, expanded):
    monkeypatch.setenv('HOME', '/home/me')
    assert files.expand_user(path, '--workdir') == expanded


def test_a_user_who_does_not_exist_is_named():
    with pytest.raises(
        UserError, match=r"--workdir=~nosuch/a: there is no user 'nosuch'; write ./~"
    ):
        files.expand_user('~nosuch/a', '--workdir')


def test_without_a_home_folder_the_message_says_what_to_set(monkeypatch):
    monkeypatch.delenv('HOME', raising=False)
    monkeypatch.setattr('pwd.getpwuid', lambda number: {}[number])
    assert os.path.expanduser('~') == '~'
    with pytest.raises(
        UserError, match=r'data\.dir=~/data: the home folder is unknown; set data.dir'
    ):
        files.expand_user('~/data', 'data.dir')


def test_a_folder_whose_name_is_no_text_is_refused_before_libraries_meet_it(tmp_path, monkeypatch):
    files.check_characters(tmp_path / 'é 日')
    bad = os.fsdecode(b'caf\xe9')
    with pytest.raises(UserError, match=r"^--workdir='.*caf\\udce9/a': its path has bytes"):
        files.check_characters(tmp_path / bad / 'a', '--workdir=')
    (tmp_path / bad).mkdir()
    monkeypatch.chdir(tmp_path / bad)
    with pytest.raises(UserError):  # a relative path is below it
        files.check_characters('run')
    config = defaults.get_config()
    config.data.name, config.data.dir = 'fashion_mnist_mini', bad
    for use in (
        lambda: writer.open_run(bad, config, {}).__enter__(),
        lambda: weights.read_weights(bad),
        lambda: opening.open_source(config.data),
    ):
        with pytest.raises(UserError, match='bytes that are no characters'):
            use()
    assert os.listdir() == []
