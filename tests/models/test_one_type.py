"""Nuclei of several types: one type each, in torch and in OpenVINO, from a model of one class."""

import json
import math

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from nucseg_mmdet.commands.test import main
from nucseg_mmdet.engine import model_zoo, types_of_nuclei
from nucseg_mmdet.engine.checkpoint import load_weights_only, publish
from nucseg_mmdet.inference import openvino_export
from nucseg_mmdet.inference.backends import load_predictor
from nucseg_mmdet.inference.predictor import ModelOptions
from nucseg_mmdet.models.mask_tta import fuse_boxes
from nucseg_mmdet.models.one_type_bbox_head import one_type
from nucseg_mmdet.synthetic.fields import synthesize
from nucseg_mmdet.utils.errors import UserError
from tools.model_converters import export_openvino

TYPES = ('connective', 'epithelial', 'inflammatory')


def test_the_likeliest_type_gets_all_that_types_have():
    # Probabilities .3, .2, .5 and .1, .6, .3; the last is for none.
    logits = torch.tensor([[0.3, 0.2, 0.5], [0.1, 0.6, 0.3]]).log() + 3
    found = one_type(logits).softmax(1)
    expected = torch.tensor([[0.5, 0, 0.5], [0, 0.7, 0.3]])
    torch.testing.assert_close(found, expected)


def test_views_vote_for_the_type():
    """One nucleus that two views call type 1 and the surest view calls type 0."""
    box = torch.tensor([[10.0, 10, 30, 30]])
    views = [(0.8, 0), (0.6, 1), (0.7, 1)]
    boxes, scores, labels = fuse_boxes(
        [box] * 3,
        [torch.tensor([score]) for score, _ in views],
        [torch.tensor([label]) for _, label in views],
        0.5,
        class_agnostic=True,
    )
    torch.testing.assert_close(boxes, box)
    assert scores.tolist() == pytest.approx([0.7])  # (0.8 + 0.6 + 0.7) / 3
    assert labels.tolist() == [1]  # 0.6 + 0.7 against 0.8


def test_a_spread_layer_says_the_same_of_nuclei():
    rng = np.random.default_rng(0)
    weight, bias = (torch.from_numpy(rng.normal(size=shape)) for shape in ((2, 5), (2,)))
    name = types_of_nuclei.CLASS_LAYER
    checkpoint = dict(state_dict={f'{name}.weight': weight, f'{name}.bias': bias})
    types_of_nuclei.spread_class_layer(checkpoint, 3)
    found = checkpoint['state_dict']
    features = torch.from_numpy(rng.normal(size=(4, 5)))
    before = (features @ weight.T + bias).softmax(1)
    after = (features @ found[f'{name}.weight'].T + found[f'{name}.bias']).softmax(1)
    torch.testing.assert_close(after[:, :3], before[:, :1].expand(-1, 3) / 3)
    torch.testing.assert_close(after[:, 3], before[:, 1])
    again = dict(checkpoint['state_dict'])
    types_of_nuclei.spread_class_layer(checkpoint, 3)  # has three already
    assert all(checkpoint['state_dict'][key] is value for key, value in again.items())


@pytest.fixture(scope='module')
def typed_model(tmp_path_factory):
    """The default model, each nucleus of three types alike but for a bias."""
    weights = model_zoo.model_files()[1]
    checkpoint = load_weights_only(str(weights), 'cpu')
    types_of_nuclei.spread_class_layer(checkpoint, 3)
    bias = checkpoint['state_dict'][f'{types_of_nuclei.CLASS_LAYER}.bias']
    # The second gets a little more, what the others lose: 0.4 and twice 0.3 instead of thirds.
    bias[:3] += torch.tensor([math.log(0.9), math.log(1.2), math.log(0.9)])
    checkpoint['meta'] = dict(dataset_meta=dict(classes=TYPES, palette=[(220, 20, 60)]))
    path = tmp_path_factory.mktemp('typed') / 'typed.pth'
    torch.save(checkpoint, path)
    return path


def test_types_leave_nuclei_as_they_were(typed_model, tmp_path):
    """In torch and in OpenVINO: boxes, scores and masks of the default model, and a type."""
    tile = synthesize(3, 96, 128, 30)[0]
    plain = load_predictor(ModelOptions(device='cpu'), 'mmdet')
    options = ModelOptions('finetune', typed_model, 'cpu')
    typed = load_predictor(options, 'mmdet')
    assert [one.name for one in plain.classes] == ['Nucleus']
    assert [one.name for one in typed.classes] == list(TYPES)
    expected, found = (model.predict([model.prepare(tile)])[0] for model in (plain, typed))
    assert len(expected.scores) > 5
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert found.masks == expected.masks
    assert expected.labels.tolist() == [0] * len(expected.labels)
    assert found.labels.tolist() == [1] * len(found.labels)

    out = tmp_path / 'typed.openvino.zip'
    config = str(model_zoo.find_config('finetune'))
    assert export_openvino.main([config, str(typed_model), '--out', str(out)]) == 0
    here = load_predictor(options._replace(checkpoint=out, precision='fp32'), 'openvino')
    assert here.classes == typed.classes
    openvino_export.compare(found, here.predict([here.prepare(tile)])[0])  # raises


def test_names_go_with_published_weights(typed_model, tmp_path):
    out = tmp_path / 'published.pth'
    publish([typed_model], out, dict(data='made up'))
    cfg = Config.fromfile(model_zoo.find_config('finetune'))
    classes = types_of_nuclei.fit_types(cfg, load_weights_only(str(out), 'cpu'), 'x')
    assert tuple(one.name for one in classes) == TYPES
    assert cfg.model.roi_head.bbox_head.num_classes == 3


def test_a_wrong_number_of_names_is_refused(typed_model):
    checkpoint = load_weights_only(str(typed_model), 'cpu')
    checkpoint['meta']['dataset_meta']['classes'] = TYPES[:2]
    cfg = Config.fromfile(model_zoo.find_config('finetune'))
    with pytest.raises(UserError, match='x: names 2 classes, expected 3 as its layers have'):
        types_of_nuclei.fit_types(cfg, checkpoint, 'x')


@pytest.mark.parametrize('classes', ['a b', 'c b a', 'c b'])
def test_classes_other_than_the_first_categories_are_refused(data_root, tmp_path, classes):
    """mmdet and the evaluators number classes by the file: these would get each other's names."""
    truth = json.loads((data_root / 'annotations/train.json').read_text())
    truth['categories'] = [dict(id=1, name='b'), dict(id=2, name='a')]
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    init_default_scope('mmdet')
    cfg = dict(
        type='NucleiDataset', ann_file=str(path), data_prefix=dict(img=str(data_root / 'train')),
        metainfo=dict(classes=tuple(classes.split())), pipeline=[], lazy_init=True,
    )  # fmt: skip
    dataset = DATASETS.build(cfg)
    message = rf'categories are b, a, expected .* in their order: {", ".join(classes.split())}'
    with pytest.raises(UserError, match=message):
        dataset.full_init()
    for right in (('b', 'a'), ('b', 'a', 'c')):  # of the last there is none
        DATASETS.build(cfg | dict(metainfo=dict(classes=right))).full_init()


def test_models_of_other_classes_are_not_averaged(typed_model, data_root, tmp_path, capsys):
    checkpoint = load_weights_only(str(typed_model), 'cpu')
    checkpoint['meta']['dataset_meta']['classes'] = TYPES[::-1]
    torch.save(checkpoint, tmp_path / 'turned.pth')
    for others in (['turned.pth'], ['--with', 'finetune', 'turned.pth']):
        models = [tmp_path / name if name.endswith('.pth') else name for name in others]
        options = ['--data', data_root, '--fold', 1, '--work-dir', tmp_path / 'work']
        assert main([str(one) for one in ['finetune', typed_model, *models, *options]]) == 2
        said = capsys.readouterr().err
        assert 'turned.pth: classes are inflammatory, epithelial, connective, expected con' in said


def test_truth_of_types_is_read_by_the_classes_of_the_checkpoint(typed_model, tmp_path, capsys):
    truth = dict(
        images=[dict(id=1, file_name='a.png', height=9, width=9)],
        annotations=[],
        categories=[dict(id=index, name=name) for index, name in enumerate(TYPES, 1)],
    )
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((9, 9, 3), np.uint8))
    options = ['--annotations', tmp_path / 'truth.json', '--work-dir', tmp_path / 'work']
    assert main([str(one) for one in ['finetune', typed_model, *options]]) == 2
    # The truth as it is, not a copy whose types have become one.
    assert f'test: {tmp_path}/truth.json: has no nuclei' in capsys.readouterr().err
    assert not (tmp_path / 'work').exists()
