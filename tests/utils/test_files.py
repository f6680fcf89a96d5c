"""Files appear whole or not at all, and never through another's file or link."""

import contextlib
import errno
import fcntl
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.files import (
    PartialFile,
    PartialFolder,
    check_file_is_writable,
    check_folder_is_writable,
    check_place_is_writable,
    make_folder,
    new_file,
    new_folder,
    without_nan,
    write_bytes,
    write_json,
    write_text,
)
from nucseg_mmdet.utils.ownership import owned_folder


def test_writers_replace_the_older_file_and_leave_nothing_else(tmp_path):
    path = tmp_path / 'a.txt'
    write_text(path, 'older')
    write_text(path, 'Körper')
    assert path.read_bytes() == b'K\xc3\xb6rper'
    write_bytes(path, b'\x00')
    assert path.read_bytes() == b'\x00'
    write_json(path, dict(a=[1, None]), indent=None)
    assert path.read_text() == '{"a": [1, null]}\n'
    assert os.listdir(tmp_path) == ['a.txt']


def test_json_without_a_word_for_it_leaves_the_older_file(tmp_path):
    path = tmp_path / 'a.json'
    write_json(path, 1)
    with pytest.raises(ValueError, match='not JSON compliant'):
        write_json(path, float('nan'))
    assert path.read_text() == '1\n'
    assert os.listdir(tmp_path) == ['a.json']


def test_what_is_not_defined_is_null(tmp_path):
    path = tmp_path / 'a.json'
    write_json(path, without_nan(dict(a=[float('nan'), 1.5], b=dict(c=float('nan')))))
    assert json.loads(path.read_text()) == dict(a=[None, 1.5], b=dict(c=None))


def test_a_file_is_in_place_after_the_block_or_never(tmp_path):
    path = tmp_path / 'a.zip'
    write_text(path, 'older')
    with new_file(path) as file, zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('answer.json', '[]')
        assert path.read_text() == 'older'
    assert zipfile.ZipFile(path).read('answer.json') == b'[]'
    write_text(path, 'older')

    def stop_half_way():
        with new_file(path) as file:
            file.write(b'new')
            raise KeyError

    with pytest.raises(KeyError):
        stop_half_way()
    assert path.read_text() == 'older'
    assert os.listdir(tmp_path) == ['a.zip']


def test_a_finished_part_is_on_disk_beside_its_place_until_published(tmp_path):
    part = PartialFile(tmp_path / 'a.bin')
    part.file.write(b'ab')
    part.finish()
    assert not part.path.exists()
    assert part.partial.read_bytes() == b'ab'
    part.publish()
    part.abort()  # too late to take it back
    assert part.path.read_bytes() == b'ab'
    assert os.listdir(tmp_path) == ['a.bin']


def test_parts_that_wait_for_their_places_take_no_open_files(tmp_path):
    before = len(os.listdir('/proc/self/fd'))
    parts = [PartialFile(tmp_path / f'{number}.bin') for number in range(5)]
    for part in parts:
        part.finish()
        part.unlock()
    assert len(os.listdir('/proc/self/fd')) == before
    for part in parts:
        part.publish()
    assert len(os.listdir(tmp_path)) == 5


def test_an_aborted_part_leaves_nothing(tmp_path):
    for ready in (False, True):
        part = PartialFile(tmp_path / 'a.bin')
        if ready:
            part.finish()
        part.abort()
        part.abort()
    assert not os.listdir(tmp_path)


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    first, second = PartialFile(tmp_path / 'a'), PartialFile(tmp_path / 'a')
    first.file.write(b'first')
    second.file.write(b'second')
    first.publish()
    assert first.path.read_bytes() == b'first'
    second.publish()
    assert first.path.read_bytes() == b'second'


@pytest.fixture
def interfere(monkeypatch):
    """Has something happen at the moment before a lock is taken, once."""

    @contextlib.contextmanager
    def at_the_first_lock(happens):
        left = [happens]
        with monkeypatch.context() as patch:
            flock = fcntl.flock
            patch.setattr(fcntl, 'flock', lambda *lock: (left and left.pop()(), flock(*lock)))
            yield
        assert not left

    return at_the_first_lock


def test_what_is_under_construction_is_not_taken_for_abandoned(tmp_path):
    part = PartialFile(tmp_path / 'a')
    part.finish()
    with new_folder(tmp_path / 'folder') as folder:
        write_text(tmp_path / 'a', 'second')
        with new_folder(tmp_path / 'folder'):
            pass
        (folder / 'b').touch()
    part.publish()
    assert (tmp_path / 'a').read_bytes() == b''
    assert sorted(os.listdir(tmp_path)) == ['a', 'folder']


def test_what_is_taken_for_abandoned_before_it_is_locked_is_made_again(tmp_path, interfere):
    with interfere(lambda: [path.unlink() for path in tmp_path.iterdir()]):
        write_text(tmp_path / 'a', 'text')
    removed = interfere(lambda: [path.rmdir() for path in tmp_path.glob('.*')])
    with removed, new_folder(tmp_path / 'folder') as folder:
        (folder / 'b').touch()
    assert sorted(os.listdir(tmp_path)) == ['a', 'folder']


def test_a_file_is_on_disk_before_it_is_in_place(tmp_path, monkeypatch):
    path, seen = tmp_path / 'a', []
    fsync = os.fsync
    monkeypatch.setattr(os, 'fsync', lambda number: (seen.append(path.exists()), fsync(number)))
    write_text(path, 'text')
    assert seen == [False]


def test_a_file_system_without_locks_is_written_to(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'flock', refuse)
    with owned_folder(tmp_path / 'out'), new_folder(tmp_path / 'out/folder') as folder:
        write_text(folder / 'a', 'a')
    assert os.listdir(tmp_path / 'out') == ['folder']


def test_a_link_in_the_place_is_replaced_and_its_target_kept(tmp_path):
    (tmp_path / 'target').write_text('kept')
    (tmp_path / 'a').symlink_to('target')
    write_text(tmp_path / 'a', 'new')
    assert (tmp_path / 'target').read_text() == 'kept'
    assert not (tmp_path / 'a').is_symlink()


def test_a_long_name_can_be_written(tmp_path):
    name = 'ä' * 125  # 250 bytes; file systems take 255
    write_text(tmp_path / name, 'a')
    assert os.listdir(tmp_path) == [name]


def test_files_have_the_usual_mode(tmp_path):
    (tmp_path / 'usual').write_text('')
    write_text(tmp_path / 'ours', '')
    modes = [(tmp_path / name).stat().st_mode for name in ('usual', 'ours')]
    assert modes[0] == modes[1]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'folder').mkdir()
    with pytest.raises(UserError, match=r'folder: cannot be written \(Is a directory\)'):
        write_text(tmp_path / 'folder', '')
    with pytest.raises(UserError, match=r'none/a: cannot be written \(No such file or directory\)'):
        write_text(tmp_path / 'none' / 'a', '')
    write_text(tmp_path / 'file', '')
    with pytest.raises(UserError, match='file: no folder for results'):
        make_folder(tmp_path / 'file')
    with pytest.raises(UserError, match='below: no folder for results'):
        check_folder_is_writable(tmp_path / 'file' / 'below')
    assert sorted(os.listdir(tmp_path)) == ['file', 'folder']


def test_the_check_of_a_folder_leaves_nothing(tmp_path):
    check_folder_is_writable(tmp_path)
    check_folder_is_writable(tmp_path / 'new/deep')
    check_place_is_writable(tmp_path / 'new/deep/file')
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('name', ['', 'new/deep'])
def test_a_folder_without_rights_is_named_as_it_was_given(tmp_path, monkeypatch, name):
    def refuse(path, *_, **__):  # also to root, who may write everywhere
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, 'open', refuse)
    with pytest.raises(UserError) as caught:
        check_folder_is_writable(tmp_path / name)
    assert str(caught.value) == f'{tmp_path / name}: cannot be written (Permission denied)'


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('file/new', 'Not a directory'),
        ('file', 'Not a directory'),
        ('nowhere/new', 'No such file or directory'),
        ('x' * 300, 'File name too long'),
    ],
)
def test_a_folder_that_could_not_be_made_is_named(tmp_path, name, reason):
    (tmp_path / 'file').touch()
    (tmp_path / 'nowhere').symlink_to('gone')
    for check, path in (
        (check_folder_is_writable, tmp_path / name),
        (check_place_is_writable, tmp_path / name / 'a'),
    ):
        with pytest.raises(UserError, match=rf'{name}: no folder for results \({reason}\)'):
            check(path)


@pytest.mark.parametrize('wrong', [True, False])
def test_an_owned_folder_with_nothing_in_it_goes_again(tmp_path, wrong):
    (tmp_path / 'there').mkdir()
    for name in ('there', 'new/deep'):
        with contextlib.suppress(UserError), owned_folder(tmp_path / name):
            if wrong:
                raise UserError('no image')
            (tmp_path / name / 'result').touch()
    assert sorted(os.listdir(tmp_path)) == (['there'] if wrong else ['new', 'there'])


def test_a_folder_has_one_owner(tmp_path):
    with owned_folder(tmp_path):
        for _ in range(2):
            expected = pytest.raises(UserError, match='another run writes there, expected one')
            with expected, owned_folder(tmp_path):
                pass
    with owned_folder(tmp_path):
        pass


def test_a_folder_whose_owner_has_just_gone_is_owned_anew(tmp_path, interfere):
    with interfere((tmp_path / '.owner.lock').unlink), owned_folder(tmp_path):
        assert os.listdir(tmp_path) == ['.owner.lock']


def test_a_planted_lock_is_not_followed(tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/.owner.lock').symlink_to('../elsewhere')
    with pytest.raises(UserError, match='cannot be written'), owned_folder(tmp_path / 'out'):
        pass
    assert os.listdir(tmp_path) == ['out']


def test_a_device_or_pipe_in_the_place_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'link').symlink_to('pipe')  # as /dev/stdout is one
    for name in ('pipe', 'link'):
        with pytest.raises(UserError, match=f'{name}: is a pipe, expected a place for a file'):
            write_text(tmp_path / name, '')
    assert sorted(os.listdir(tmp_path)) == ['link', 'pipe']


def test_a_place_is_checked_and_left_as_it_is(tmp_path):
    (tmp_path / 'new').mkdir()
    check_file_is_writable(tmp_path / 'new/a')
    assert os.listdir(tmp_path / 'new') == []
    write_text(tmp_path / 'b', 'kept')
    check_file_is_writable(tmp_path / 'b')
    assert (tmp_path / 'b').read_text() == 'kept'
    for name, message in (('new', 'is a folder, expected the file'), ('none/a', 'cannot be')):
        with pytest.raises(UserError, match=f'{name}: {message}'):
            check_file_is_writable(tmp_path / name)


def test_a_folder_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    place = tmp_path / 'data'

    def stop_half_way():
        with new_folder(place) as folder:
            (folder / 'a').write_text('a')
            raise KeyError

    with pytest.raises(KeyError):
        stop_half_way()
    assert not os.listdir(tmp_path)
    place.mkdir()  # an empty one is no obstacle
    with new_folder(place) as folder:
        (folder / 'a').write_text('a')
        assert not os.listdir(place)
    assert os.listdir(place) == ['a']
    with pytest.raises(UserError, match=r'data: .*not empty'), new_folder(place) as folder:
        (folder / 'b').write_text('b')
    assert os.listdir(place) == ['a']
    with new_folder(place, replace=True) as folder:
        (folder / 'b').write_text('b')
    assert os.listdir(place) == ['b']
    monkeypatch.chdir(place)
    with new_folder(Path(), replace=True) as folder:
        (folder / 'c').write_text('c')
    assert os.listdir(place) == ['c']
    assert os.listdir(tmp_path) == ['data']


def test_what_killed_processes_left_is_removed_and_what_is_in_use_stays(tmp_path):
    path = tmp_path / 'a[1].json'
    code = (
        'import os, sys; from pathlib import Path; from nucseg_mmdet.utils.files import *\n'
        'path = Path(sys.argv[1]); part = PartialFile(path); part.file.write(b"x")\n'
        'with new_folder(path.with_name("folder")) as folder: os._exit(9)'
    )
    assert subprocess.run([sys.executable, '-c', code, str(path)]).returncode == 9
    assert len(list(tmp_path.iterdir())) == 2  # a hidden file and a hidden folder
    in_use = PartialFile(path)
    assert in_use.partial.exists()
    write_bytes(path, b'{}')
    with new_folder(tmp_path / 'folder'):
        pass
    assert {item.name for item in tmp_path.iterdir()} == {in_use.partial.name, path.name, 'folder'}
    in_use.abort()


def test_planted_link_is_not_written_through(tmp_path):
    (tmp_path / 'victim').write_text('must stay')
    for name in ('.a.json.partial', 'a.json'):
        (tmp_path / name).symlink_to(tmp_path / 'victim')
    write_bytes(tmp_path / 'a.json', b'{}')
    assert (tmp_path / 'victim').read_text() == 'must stay'
    assert (tmp_path / 'a.json').read_bytes() == b'{}'


def test_folder_that_is_replaced_stands_whole_at_every_moment(tmp_path, monkeypatch):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'old').touch()
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, 'replace', lambda *paths: (seen.append(look(out)), replace(*paths)))
    with new_folder(out, replace=True) as folder:
        (folder / 'new').touch()
    assert seen == [['old'], None]  # never a part of it
    assert look(out) == ['new']
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_what_a_folder_replaces_goes_and_what_a_link_leads_to_stays(tmp_path):
    elsewhere, out = tmp_path / 'elsewhere', tmp_path / 'out'
    elsewhere.mkdir()
    (elsewhere / 'old').touch()
    for plant in (lambda: out.symlink_to(elsewhere), out.touch):
        plant()
        part = PartialFolder(out)
        part.publish()
        assert not out.is_symlink()
        assert look(out) == []
        assert {path.name for path in tmp_path.iterdir()} == {'elsewhere', 'out'}
        out.rmdir()
    assert look(elsewhere) == ['old']


def test_folder_whose_place_cannot_be_taken_is_kept(tmp_path, monkeypatch):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'old').touch()
    replace, left = os.replace, iter([True, False, True])  # the second time, as a full disk does

    def replace_or_fail(*paths):
        if not next(left):
            raise OSError(errno.EIO, 'Input/output error')
        replace(*paths)

    monkeypatch.setattr(os, 'replace', replace_or_fail)
    expected = pytest.raises(UserError, match='out: cannot be written')
    with expected, new_folder(out, replace=True) as folder:
        (folder / 'new').touch()
    assert look(out) == ['old']
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def look(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else None
