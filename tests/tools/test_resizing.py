"""Resizing by OpenCV and by PIL."""

import shutil

import numpy as np
import pytest

from tools.analysis_tools import resizing


def test_shrinking_differs_and_staying_does_not(capsys, data_root):
    assert resizing.main([str(data_root / 'train'), '--sides', '48', '96']) == 0
    shrunk, same = capsys.readouterr().out.splitlines()[2:]
    assert float(shrunk.split('|')[2]) > 0.5
    assert same == '| 96 px | 0.00 | 0 | 0.0% |'


@pytest.mark.parametrize('side', [10, 20, 40])
def test_a_flat_image_stays(side):
    assert resizing.difference(np.full((20, 30, 3), 77, np.uint8), side).max() == 0


def test_no_images(capsys, tmp_path):
    assert resizing.main([str(tmp_path)]) == 2
    assert 'no PNG images' in capsys.readouterr().err


def test_a_damaged_image_leaves_the_others(capsys, data_root, tmp_path):
    good = min((data_root / 'train').glob('*.png'))
    shutil.copy(good, tmp_path / 'b.png')
    assert resizing.main([str(tmp_path), '--sides', '48']) == 0
    alone = capsys.readouterr().out
    (tmp_path / 'a.png').write_bytes(good.read_bytes()[:300])
    (tmp_path / 'c.png').mkdir()
    assert resizing.main([str(tmp_path), '--sides', '48']) == 1
    printed = capsys.readouterr()
    assert printed.out == alone
    told = [line.split(': ')[:2] for line in printed.err.splitlines()]
    assert told == [['left out', f'{tmp_path}/{name}.png'] for name in 'ac']
    (tmp_path / 'b.png').unlink()
    assert resizing.main([str(tmp_path), '--sides', '48']) == 2
    for side in '0', '100000000':
        assert resizing.main([str(tmp_path), '--sides', '48', side]) == 2
        assert f'--sides {side}: expected 1 to 20000' in capsys.readouterr().err
