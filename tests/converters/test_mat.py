"""MATLAB label maps with and without types."""

import json

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from nucseg_mmdet.commands import prepare as prepare_data

# Labels out of order and with a gap: 5 at the top, 2 below.
INST_MAP = np.array([[5, 5, 0, 0], [0, 0, 0, 9], [2, 0, 0, 9]])


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / 'raw'
    (folder / 'Images').mkdir(parents=True)
    (folder / 'Labels').mkdir()
    assert cv2.imwrite(str(folder / 'Images/train_1.png'), np.zeros((3, 4, 3), np.uint8))
    return folder


def run(raw, *options):
    return prepare_data.main(['mat', str(raw), str(raw.parent / 'out'), '--workers=1', *options])


def annotations(raw):
    return json.loads((raw.parent / 'out/annotations/train.json').read_text())['annotations']


@pytest.mark.parametrize('dtype', [float, np.int32, np.uint16])
def test_without_types(raw, dtype):
    savemat(raw / 'Labels/train_1.mat', dict(inst_map=INST_MAP.astype(dtype)))
    assert run(raw) == 0
    # By ascending label: 2, 5, 9.
    assert [entry['bbox'] for entry in annotations(raw)] == [
        [0, 2, 1, 1],
        [0, 0, 2, 1],
        [3, 1, 1, 2],
    ]
    assert 'type' not in annotations(raw)[0]


def test_types_follow_the_ascending_labels(raw):
    content = dict(inst_map=INST_MAP.astype(float), inst_type=[[2.0], [3.0], [4.0]])
    savemat(raw / 'Labels/train_1.mat', content)
    merge = 'epithelial=healthy epithelial,dysplastic/malignant epithelial'
    assert run(raw, '--classes', merge, 'inflammatory') == 0
    assert [(entry['type'], entry['category_id']) for entry in annotations(raw)] == [
        ('inflammatory', 2),
        ('healthy epithelial', 1),
        ('dysplastic/malignant epithelial', 1),
    ]


def test_types_follow_inst_uid(raw):
    """HoVer-Net writes its nuclei in another order than that of their labels."""
    content = dict(inst_map=INST_MAP, inst_uid=[[9], [2], [5]], inst_type=[[4], [2], [3]])
    savemat(raw / 'Labels/train_1.mat', content)
    assert run(raw) == 0
    types = ['inflammatory', 'healthy epithelial', 'dysplastic/malignant epithelial']  # of 2, 5, 9
    assert [entry['type'] for entry in annotations(raw)] == types


@pytest.mark.parametrize('labels', [[[9], [2], [6]], [[9], [2], [9]]])
def test_inst_uid_of_other_labels_is_refused(raw, capsys, labels):
    content = dict(inst_map=INST_MAP, inst_uid=labels, inst_type=[[4], [2], [3]])
    savemat(raw / 'Labels/train_1.mat', content)
    assert run(raw) == 2
    assert 'inst_uid with 3 numbers, not the 3 of inst_map' in capsys.readouterr().err


def damaged(path):
    savemat(path, dict(inst_map=INST_MAP))
    path.write_bytes(path.read_bytes()[:-30])


def version_73(path):
    header = b'MATLAB 7.3 MAT-file, Platform: GLNXA64'.ljust(116) + b'\0' * 8 + b'\x00\x02IM'
    path.write_bytes(header + b'\0' * 384 + b'\x89HDF\r\n\x1a\n')


BAD = {
    'foreground': (dict(inst_map=INST_MAP > 0), 'one label, 1, in 3 parts: a foreground mask'),
    'MATLAB 7.3': (version_73, "MATLAB 7.3 (HDF5), expected an older version; save it with '-v7'"),
    'damaged': (damaged, 'not readable'),
    'empty': (lambda path: path.write_bytes(b''), 'not readable'),
    'no inst_map': (dict(type_map=INST_MAP), 'no variable inst_map'),
    'types missing': (dict(inst_map=INST_MAP, inst_type=[[1.0]]), '1 inst_type for 3 nuclei'),
    'unknown type': (dict(inst_map=INST_MAP, inst_type=[[1], [2], [8]]), 'inst_type beyond 1 to 7'),
    'another size': (dict(inst_map=INST_MAP.T), '3 x 4 px, expected 4 x 3 px'),
    'objects': (dict(inst_map=np.array([{}, 'x'], object)[None]), 'train_1.mat: '),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_file_is_named(raw, capsys, case):
    content, message = BAD[case]
    path = raw / 'Labels/train_1.mat'
    if callable(content):
        content(path)
    else:
        savemat(path, content)
    assert run(raw) == 2
    error = capsys.readouterr().err
    assert 'train_1.mat: ' in error
    assert message in error
