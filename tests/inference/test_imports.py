"""Segmenting slides takes torch and the mm libraries where the predictor does, nowhere else."""

import subprocess
import sys

import pytest

HEAVY = ('torch', 'mmcv', 'mmengine', 'mmdet')


@pytest.mark.parametrize(
    'module',
    [
        'nucseg_mmdet',
        'nucseg_mmdet.inference.run',  # and so segmenter, frame, tiling, plan, shards, ...
        'nucseg_mmdet.inference.predictor',
        'nucseg_mmdet.inference.openvino_predictor',  # and so openvino_model, openvino_int8, ...
        'nucseg_mmdet.inference.cluster',
        'nucseg_mmdet.commands.segment',
        'nucseg_mmdet.benchmarks.tiles',
    ],
)
def test_import_without_torch_and_mm(module):
    code = f'import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_segmenter_is_offered_but_not_imported():
    code = (
        'import sys, nucseg_mmdet; before = len(sys.modules); '
        'from nucseg_mmdet import Segmenter; print(Segmenter.__name__, "numpy" in sys.modules); '
        'assert before < 200'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ['Segmenter', 'True']
