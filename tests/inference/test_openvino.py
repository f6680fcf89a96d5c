"""A model in OpenVINO finds what it finds in torch."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import openvino
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from openvino import opset15
from pycocotools import mask as coco_mask

from nucseg_mmdet import Segmenter
from nucseg_mmdet.engine.model_zoo import model_files
from nucseg_mmdet.inference import openvino_export, openvino_int8, openvino_model
from nucseg_mmdet.inference.backends import load_predictor
from nucseg_mmdet.inference.predictor import ModelOptions, runtime_file
from nucseg_mmdet.synthetic.fields import synthesize
from nucseg_mmdet.utils.errors import UserError
from tools.model_converters import export_openvino

ROOT = Path(__file__).parents[2]
DEFAULT = runtime_file(ModelOptions())


@pytest.fixture(scope='module')
def field():
    return synthesize(3, 150, 200, 40)[0]


@pytest.fixture(scope='module')
def exported(random_model, tmp_path_factory):
    out = tmp_path_factory.mktemp('exported') / 'random.openvino.zip'
    args = [*map(str, random_model), '--out', str(out)]
    assert export_openvino.main(args) == 0
    return out


@pytest.mark.parametrize('crop', [(150, 200), (96, 96), (33, 61)])
def test_a_model_of_random_weights_finds_the_same(random_model, exported, field, crop):
    tile = field[: crop[0], : crop[1]]
    options = ModelOptions(*random_model, device='cpu', precision='fp32', score_thr=0.0)
    one = load_predictor(options, 'mmdet')
    other = load_predictor(options._replace(checkpoint=exported), 'openvino')
    assert one.step == other.step
    expected, found = (model.predict([model.prepare(tile)])[0] for model in (one, other))
    assert len(expected.scores) > 5
    openvino_export.compare(expected, found)  # raises
    assert [mask['size'] for mask in found.masks] == [list(crop)] * len(found.masks)


def test_masks_of_larger_boxes_are_those_of_torch(random_model, field, tmp_path):
    config, checkpoint = tmp_path / 'wide.py', random_model[1]
    wide = "dict(roi_head=dict(type='WideMaskRoIHead', mask_scale=1.5))"
    config.write_text(f'_base_ = {str(random_model[0])!r}\nmodel = {wide}\n')
    out = tmp_path / 'wide.openvino.zip'
    assert export_openvino.main([str(config), str(checkpoint), '--out', str(out)]) == 0
    options = ModelOptions(config, checkpoint, device='cpu', precision='fp32', score_thr=0.0)
    one = load_predictor(options, 'mmdet')
    other = load_predictor(options._replace(checkpoint=out), 'openvino')
    narrow = load_predictor(options._replace(config=random_model[0]), 'mmdet')
    expected, found, before = (
        model.predict([model.prepare(field)])[0] for model in (one, other, narrow)
    )
    openvino_export.compare(expected, found)  # raises
    areas = [coco_mask.area(each.masks) for each in (expected, found, before)]
    np.testing.assert_allclose(areas[1].sum(), areas[0].sum(), rtol=0.01)
    assert abs(areas[2].sum() / areas[0].sum() - 1) > 0.1
    assert openvino_model.read(out).meta['format'] == 3  # older readers would leave it out


def test_the_default_model_finds_the_same_on_a_real_image(class_data):
    """Boxes within 0.01 px, scores within 0.0001, and the very nuclei but for a pixel."""
    path = class_data / 'train' / 'TCGA-G9-6362-01Z-00-DX1/images/TCGA-G9-6362-01Z-00-DX1.png'
    image = cv2.imread(str(path))[100:500, 100:500, ::-1]
    options = ModelOptions(device='cpu', precision='fp32')
    predictors = [load_predictor(options, name) for name in ('mmdet', 'openvino')]
    colors = predictors[0].measure_colors(image)
    expected, found = (one.predict([one.prepare(image, colors)])[0] for one in predictors)
    assert len(expected.scores) > 60
    box, score = openvino_export.compare(expected, found)
    assert box < 0.01
    assert score < 1e-4
    one, other = (
        Segmenter(device='cpu', precision='fp32', backend=name)(image)
        for name in ('mmdet', 'openvino')
    )
    assert len(one) == len(other)
    # Nuclei whose scores differ in the seventh digit may change places.
    away = np.linalg.norm(one.centroids[:, None] - other.centroids, axis=2)
    assert away.min(axis=0).max() < 0.05
    assert away.min(axis=1).max() < 0.05


@pytest.mark.parametrize(('precision', 'least'), [('bf16', 0.99), ('int8', 0.97)])
def test_with_fewer_bits_the_default_model_finds_nearly_the_same(class_data, precision, least):
    path = class_data / 'train' / 'TCGA-G9-6362-01Z-00-DX1/images/TCGA-G9-6362-01Z-00-DX1.png'
    tile = np.ascontiguousarray(cv2.imread(str(path))[100:500, 100:500, ::-1])
    options = ModelOptions(device='cpu')
    one, other = (
        load_predictor(options._replace(precision=name), 'openvino') for name in ('fp32', precision)
    )
    prepared = [one.prepare(tile)]
    expected, found = one.predict(prepared), other.predict(prepared)
    assert openvino_export.agreement(expected, found, [(400, 400)]) > least
    if precision == 'int8' or openvino_model.has_bf16():  # in other numbers indeed
        assert not np.array_equal(np.sort(expected[0].scores), np.sort(found[0].scores))
    # Not in the 8 bits of bfloat16, in which scores would tie.
    assert len(np.unique(found[0].scores)) > 0.99 * len(found[0].scores)


def test_agreement_counts_tiles_in_which_nothing_is_found(exported, field):
    predictor = load_predictor(ModelOptions(checkpoint=exported, score_thr=0.0), 'openvino')
    (some,) = predictor.predict([predictor.prepare(field)])
    none, shape = some._replace(masks=[], scores=some.scores[:0]), field.shape[:2]
    pq = openvino_export.agreement([some, some], [some, none], [shape, shape])
    assert pq == pytest.approx(2 / 3)  # n found, none false, n missed: n / (n + n / 2)
    assert openvino_export.agreement([some], [some], [shape]) == 1
    assert np.isnan(openvino_export.agreement([none], [none], [shape]))


def test_ranges_for_8_bits_are_measured_on_images(random_model, field, tmp_path, capsys):
    image, out = tmp_path / 'field.png', tmp_path / 'random.openvino.zip'
    cv2.imwrite(str(image), field[..., ::-1])
    args = [*map(str, random_model), '--out', str(out), '--images', str(image), str(image)]
    assert export_openvino.main(args) == 0
    said = capsys.readouterr().out
    assert ' nuclei: boxes differ by up to ' in said
    assert 'PQ of the nuclei in int8 against those in fp32: ' in said
    with zipfile.ZipFile(out) as archive:
        meta = json.loads(archive.read('meta.json'))
    lows, highs = np.array(meta['ranges']).T
    assert (lows <= highs).all()
    assert lows[0] < 0 < highs[0]  # the normalized image
    meta['ranges'] = meta['ranges'][1:]
    networks, _ = openvino_model.read(out)
    openvino_model.write(out, openvino_model.RuntimeModel(networks, meta))
    with pytest.raises(UserError, match='its ranges for int8 are not of its network'):
        Segmenter(checkpoint=out, precision='int8')


@pytest.mark.parametrize('exact', [1, 3])
def test_the_first_convolutions_stay_in_float32(exported, exact):
    networks, _ = openvino_model.read(exported)
    network = networks['features']
    count = sum('Convolution' in node.get_type_name() for node in network.get_ordered_ops())
    openvino_int8.quantize(network, [(-1.0, 1.0)] * count, exact)
    rounded = [
        node.input_value(0).get_node().get_type_name() == 'FakeQuantize'
        for node in network.get_ordered_ops()
        if 'Convolution' in node.get_type_name()
    ]
    assert rounded.count(False) == exact
    assert not any(rounded[:exact])


def test_a_signal_after_models_that_are_gone():
    """OpenVINO's runtimes, one a model, left the stack of signals where it was no more."""
    body = """
        import faulthandler, signal, subprocess
        from nucseg_mmdet import Segmenter

        faulthandler.enable()  # sets a stack for signals, as pytest does
        signal.signal(signal.SIGCHLD, lambda *_: None)
        first = Segmenter(backend='openvino')
        second = Segmenter(backend='openvino')
        del first
        del second
        subprocess.run(['true'])
    """
    ended = subprocess.run([sys.executable, '-c', textwrap.dedent(body)], capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b'')


def test_where_nothing_is_found_nothing_is_said_to_be_equal(random_model, tmp_path, capsys):
    image, out = tmp_path / 'glass.png', tmp_path / 'random.openvino.zip'
    cv2.imwrite(str(image), np.full((64, 64, 3), 255, np.uint8))
    config = tmp_path / 'sure.py'
    config.write_text(
        f'_base_ = {str(random_model[0])!r}\ntest_evaluator = dict(score_thr=0.999)\n'
    )
    args = [str(config), str(random_model[1]), '--out', str(out), '--images', str(image)]
    assert export_openvino.main(args) == 0
    said = capsys.readouterr().out
    assert 'no nuclei in the image, so nothing was compared' in said
    assert 'int8' not in said
    with pytest.raises(UserError, match='has no ranges for int8'):  # glass would give wrong ones
        Segmenter(checkpoint=out, precision='int8')


@pytest.mark.parametrize('level', [243, 255])
def test_plain_glass_has_no_nuclei(level):
    """The default model is so sure of it that there is not one proposal."""
    assert len(Segmenter(device='cpu')(np.full((256, 256, 3), level, np.uint8))) == 0


def test_tiles_of_many_sizes_do_not_mix(random_model, exported, field):
    """The network stays compiled for a few sizes; each tile gets what was compiled for its own."""
    options = ModelOptions(random_model[0], exported, score_thr=0.0)
    predictor = load_predictor(options, 'openvino')
    tiles = [field[:128, :width] for width in (128, 120, 112, 104, 128, 120)]
    found = [predictor.predict([predictor.prepare(tile)])[0] for tile in tiles]
    for again, first in ((4, 0), (5, 1)):
        np.testing.assert_array_equal(found[again].boxes, found[first].boxes)
        np.testing.assert_array_equal(found[again].scores, found[first].scores)
    assert len(found[0].boxes)


def test_threads_that_share_a_model_do_not_mix(random_model, exported, field):
    """As on a Dask worker of several threads."""
    options = ModelOptions(random_model[0], exported, score_thr=0.0, threads=1)
    predictor = load_predictor(options, 'openvino')
    tiles = [predictor.prepare(field[:128, :width]) for width in (128, 120, 128, 120)]
    tiles[2:] = [tile._replace(image=255 - tile.image) for tile in tiles[2:]]  # other nuclei
    alone = [predictor.predict([tile])[0] for tile in tiles]
    with ThreadPoolExecutor(len(tiles)) as pool:
        found = pool.map(lambda index: predictor.predict([tiles[index]])[0], [0, 1, 2, 3] * 6)
        for index, prediction in zip([0, 1, 2, 3] * 6, found, strict=True):
            np.testing.assert_array_equal(prediction.boxes, alone[index].boxes)
            np.testing.assert_array_equal(prediction.scores, alone[index].scores)
    assert all(len(prediction.boxes) for prediction in alone)


def test_the_file_is_of_the_published_weights():
    _, checkpoint = model_files()
    with zipfile.ZipFile(DEFAULT) as archive:
        meta = json.loads(archive.read('meta.json'))
    assert meta['weights'] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert DEFAULT.stat().st_size + checkpoint.stat().st_size < 16e6


def test_segments_without_torch_and_mm(exported, tmp_path):
    path = tmp_path / 'field.png'
    cv2.imwrite(str(path), synthesize(4, 80, 90, 20)[0][..., ::-1])
    code = (
        'import sys\n'
        'for name in ("torch", "mmcv", "mmengine", "mmdet"): sys.modules[name] = None\n'
        'from nucseg_mmdet.commands import segment\n'
        f'args = [{str(path)!r}, "--out", {str(tmp_path / "out")!r}, "--score-thr", "0"]\n'
        f'args += ["--checkpoint", {str(exported)!r}]\n'
        'assert segment.main(args) == 0\n'
    )
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'out/field.geojson').stat().st_size > 1000


def test_an_old_name_is_told_once(capsys):
    old = 'mask-rcnn_r18-c4_fpn_crop112to176-s320-reinhard-a16to384-ema-4k-2x2k_nuclei'
    assert load_predictor(ModelOptions(old)).device == 'cpu'
    assert capsys.readouterr().err.count(f'{old}: is configs/dense/') == 1


class TestRefused:
    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            (dict(precision='fp16'), "precision is 'fp16', expected one of fp32, bf16, int8"),
            (dict(device='cuda:1'), "device is 'cuda:1', expected cpu with backend openvino"),
            (dict(score_thr=1.5), 'score threshold is 1.5'),
        ],
    )
    def test_impossible_values(self, exported, options, message):
        with pytest.raises(UserError, match=message):
            Segmenter(checkpoint=exported, backend='openvino', **options)

    def test_a_file_without_ranges_for_int8(self, exported):
        with pytest.raises(UserError, match=r'zip: has no ranges for int8; tools/.* --images'):
            Segmenter(checkpoint=exported, precision='int8')

    def test_no_such_backend(self):
        with pytest.raises(UserError, match="backend is 'tpu', expected one of mmdet, openvino"):
            Segmenter(backend='tpu')

    def test_model_without_a_file(self, random_model):
        with pytest.raises(UserError, match=r'random\.openvino\.zip: not there'):
            Segmenter(*random_model, backend='openvino')

    def test_a_file_of_other_weights_than_those_beside_it(self, exported, random_model, tmp_path):
        config, weights = random_model
        shutil.copy(exported, tmp_path / 'iter_9.openvino.zip')
        shutil.copy(weights, tmp_path / 'iter_9.pth')
        checkpoint = tmp_path / 'iter_9.pth'
        assert Segmenter(config, checkpoint, backend='openvino')
        _, other = model_files()
        shutil.copy(other, checkpoint)  # as a training does that is run again
        with pytest.raises(
            UserError, match=r'9\.openvino\.zip: is of other weights than .*_9\.pth'
        ):
            Segmenter(config, checkpoint)

    @pytest.mark.parametrize('beside', [True, False])
    def test_a_file_of_another_config_than_the_one_given(self, beside):
        _, weights = model_files()
        with pytest.raises(UserError, match="c4_fpn_dense_nuclei', expected mask-rcnn_lite0_fpn_"):
            Segmenter('dense-lite0', weights if beside else DEFAULT, backend='openvino')

    @pytest.mark.parametrize('size', [0, 1000])
    def test_damaged_file(self, exported, tmp_path, size):
        path = tmp_path / 'damaged.openvino.zip'
        path.write_bytes(exported.read_bytes()[:size])
        with pytest.raises(UserError, match=r'damaged\.openvino\.zip: no model for OpenVINO'):
            Segmenter(checkpoint=path, backend='openvino')

    def test_pipe_is_not_waited_for(self, tmp_path):
        path = tmp_path / 'pipe.openvino.zip'
        os.mkfifo(path)
        with pytest.raises(UserError, match=r'pipe\.openvino\.zip: is a pipe, expected a file'):
            openvino_model.read(path)

    def test_packed_bytes_that_are_damaged(self, tmp_path):
        path = tmp_path / 'damaged.openvino.zip'
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr('meta.json', '{"format": 1}' * 99)
        data = bytearray(path.read_bytes())
        data[39] ^= 6  # the kind of the first packed block, after the name
        path.write_bytes(data)
        with pytest.raises(UserError, match=r'damaged\.openvino\.zip: no model for OpenVINO'):
            openvino_model.read(path)

    def test_gigabytes_in_few_bytes(self, tmp_path, monkeypatch):
        monkeypatch.setattr(openvino_model, 'MOST_UNPACKED', 1000)
        path = tmp_path / 'large.openvino.zip'
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr('meta.json', ' ' * 1001)
        with pytest.raises(UserError, match=r'meta\.json has more than 1,000 bytes'):
            openvino_model.read(path)

    def test_heads_of_another_kind(self, exported, tmp_path):
        networks, meta = openvino_model.read(exported)
        path = tmp_path / 'other.openvino.zip'
        parameter = opset15.parameter([-1, 64, 7, 7], openvino.Type.f32, 'rois')
        plain = openvino.Model([opset15.result(parameter)], [parameter], 'plain')
        networks = dict(networks, boxes=plain)
        openvino_model.write(path, openvino_model.RuntimeModel(networks, meta))
        with pytest.raises(UserError, match=r'other\.openvino\.zip: a head has no ReLU, expected'):
            Segmenter(checkpoint=path, backend='openvino')

    def test_model_that_cannot_be_rebuilt(self, random_model, tmp_path, capsys):
        config = tmp_path / 'other.py'
        config.write_text(
            f'_base_ = {str(random_model[0])!r}\n'
            'model = dict(neck=dict(add_extra_convs="on_output"))\n'
        )
        torch.save(MODELS.build(Config.fromfile(config).model).state_dict(), tmp_path / 'other.pth')
        assert export_openvino.main([str(config), str(tmp_path / 'other.pth')]) == 2
        assert 'that a plain Mask R-CNN has not' in capsys.readouterr().err
        assert not list(tmp_path.glob('*.zip'))


def test_a_file_that_differs_is_not_kept(exported, field):
    predictor = load_predictor(ModelOptions(checkpoint=exported, score_thr=0.0), 'openvino')
    (found,) = predictor.predict([predictor.prepare(field)])
    with pytest.raises(UserError, match=r'boxes differ by up to 0\.02 px'):
        openvino_export.compare(found, found._replace(boxes=found.boxes + np.float32(0.02)))
    with pytest.raises(UserError, match=r'scores by 0\.001'):
        openvino_export.compare(found, found._replace(scores=found.scores + np.float32(0.001)))
    with pytest.raises(UserError, match='nuclei, expected'):
        openvino_export.compare(found, found._replace(scores=found.scores[1:]))
