import numpy as np
import pytest

from nucseg_mmdet.commands import check


def test_installed_names_the_distribution_and_its_version():
    owners = {'numpy': ['numpy'], 'cv2': []}
    assert check.installed('numpy', owners) == f'numpy {np.__version__}'
    assert check.installed('cv2', owners) == 'no cv2'
    assert check.installed('unknown', owners) == 'no unknown'


def test_a_failing_trial_is_one_line(capsys):
    def fail():
        raise OSError('libGL.so.1: cannot open\nmore')

    assert not check.attempt('viewer', fail)
    assert capsys.readouterr().out == 'viewer            fails: libGL.so.1: cannot open\n'
    assert check.attempt('viewer', lambda: 'works')
    assert capsys.readouterr().out == 'viewer            works\n'


@pytest.mark.slow
def test_default_model_finds_the_nuclei_of_the_packaged_image(capsys):
    # People outlined 54 nuclei in it; many of them are blurred or cut by the border.
    assert check.main(['--device', 'cpu']) == 0
    assert 'nuclei in an image of 320 x 256 px' in capsys.readouterr().out
