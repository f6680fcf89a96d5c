"""Detectron2 files of every kind convert; anything else is refused by name."""

import os
import pickle
import subprocess
import sys
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import Resize  # noqa: F401, registers mmdet's transforms
from mmdet.models import MaskRCNN  # noqa: F401, registers mmdet's models
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import CheckpointLoader
from PIL import Image

from nucseg_mmdet.engine.detectron2 import (
    Architecture,
    convert,
    is_detectron2,
    parameter_shapes,
    read,
    without_class_layers,
)
from nucseg_mmdet.utils.errors import UserError
from tools.model_converters import detectron2_to_mmdet

ROOT = Path(__file__).parents[2]
PREFIX = 'backbone.bottom_up.'
ANCHORS = 'proposal_generator.anchor_generator.cell_anchors.'


def detector(depth=101, groups=1, base_width=64, classes=1):
    """Zeros of a single number's storage, so that a model of 250 MB takes none."""
    shapes = parameter_shapes(depth, groups, base_width, classes)
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def stored(weights):
    """The same with a storage of its own for each weight, as a file has them; half of 250 MB."""
    return {
        name: value if value.is_contiguous() else value.half().contiguous()
        for name, value in weights.items()
    }


def caffe2(norm=('gamma', 'beta', 'running_mean', 'running_var'), groups=1, base_width=64):
    """A ResNet-50 of random float16 arrays under Caffe2's names, as R-50.pkl has them."""
    branches = {'conv1': '2a', 'conv2': '2b', 'conv3': '2c', 'shortcut': '1'}
    parts = dict(zip(('weight', 'bias', 'running_mean', 'running_var'), norm, strict=False))
    random = np.random.RandomState(0)
    blobs = {}
    for name, shape in parameter_shapes(50, groups, base_width, None).items():
        *block, conv, part = name.removeprefix(PREFIX).replace('.norm.', '.norm_').split('.')
        place = 'conv1' if block == ['stem'] else f'{"_".join(block)}_branch{branches[conv]}'
        if part.startswith('norm_'):
            if part[5:] not in parts:
                continue
            place = f'res_{place}' if place == 'conv1' else place
            key = f'{place}_bn_{parts[part[5:]]}'
        else:
            key = f'{place}_w'
        blobs[key] = random.rand(*shape).astype(np.float16)
    blobs['fc1000_w'], blobs['fc1000_b'] = np.zeros((10, 2048), 'f4'), np.zeros(10, 'f4')
    blobs['conv1_b'] = np.ones(64, 'f4')
    return blobs


def dump(content, path, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def anchors_of(size):
    """Three boxes around the origin with the area ``size`` squared."""
    half = torch.tensor([0.5, 1, 2]).sqrt().reciprocal() * size / 2
    other = size**2 / 4 / half
    return torch.stack([-half, -other, half, other], 1)


# --- names, shapes, what is told ---


@pytest.mark.parametrize(
    ('name', 'groups', 'base_width'),
    [('mask-rcnn_r101_fpn', 1, 64), ('mask-rcnn_x101-32x8d_fpn', 32, 8)],
)
def test_result_has_every_key_and_shape_of_the_config(name, groups, base_width):
    init_default_scope('mmdet')
    cfg = Config.fromfile(ROOT / 'configs/_base_/models' / f'{name}.py')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    weights = detector(groups=groups, base_width=base_width)
    converted = convert(weights)[1]
    assert {key: value.shape for key, value in converted.items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    assert convert(weights)[0] == Architecture(101, groups, base_width, 1, None)
    assert convert(weights)[0].config == f'configs/_base_/models/{name}.py'


def test_names_worked_by_hand():
    weights = detector()
    pairs = {
        f'{PREFIX}stem.conv1.weight': 'backbone.conv1.weight',
        f'{PREFIX}stem.conv1.norm.running_var': 'backbone.bn1.running_var',
        f'{PREFIX}res2.0.shortcut.weight': 'backbone.layer1.0.downsample.0.weight',
        f'{PREFIX}res2.0.shortcut.norm.bias': 'backbone.layer1.0.downsample.1.bias',
        f'{PREFIX}res4.22.conv2.weight': 'backbone.layer3.22.conv2.weight',
        f'{PREFIX}res5.2.conv3.norm.weight': 'backbone.layer4.2.bn3.weight',
        'backbone.fpn_lateral2.weight': 'neck.lateral_convs.0.conv.weight',
        'backbone.fpn_output5.bias': 'neck.fpn_convs.3.conv.bias',
        'proposal_generator.rpn_head.conv.weight': 'rpn_head.rpn_conv.weight',
        'proposal_generator.rpn_head.objectness_logits.bias': 'rpn_head.rpn_cls.bias',
        'proposal_generator.rpn_head.anchor_deltas.bias': 'rpn_head.rpn_reg.bias',
        'roi_heads.box_head.fc1.bias': 'roi_head.bbox_head.shared_fcs.0.bias',
        'roi_heads.box_head.fc2.bias': 'roi_head.bbox_head.shared_fcs.1.bias',
        'roi_heads.box_predictor.cls_score.bias': 'roi_head.bbox_head.fc_cls.bias',
        'roi_heads.box_predictor.bbox_pred.bias': 'roi_head.bbox_head.fc_reg.bias',
        'roi_heads.mask_head.mask_fcn4.bias': 'roi_head.mask_head.convs.3.conv.bias',
        'roi_heads.mask_head.deconv.bias': 'roi_head.mask_head.upsample.bias',
        'roi_heads.mask_head.predictor.bias': 'roi_head.mask_head.conv_logits.bias',
    }
    for number, name in enumerate(pairs, 1):
        weights[name] = torch.full_like(weights[name], number, dtype=torch.float16)
    converted = convert(weights)[1]
    for number, name in enumerate(pairs.values(), 1):
        assert converted[name].dtype == torch.float32
        assert (converted[name] == number).all()
    touched = [key for key, value in converted.items() if value.any()]
    assert sorted(touched) == sorted(pairs.values())


def test_class_layers_kept_or_dropped():
    weights = detector(classes=80)
    kept = convert(weights)[1]
    dropped = without_class_layers(kept)
    assert convert(weights)[0].classes == 80
    assert kept['roi_head.bbox_head.fc_cls.weight'].shape == (81, 1024)
    assert {key for key in kept if key not in dropped} == {
        f'roi_head.{layer}.{part}'
        for layer in ('bbox_head.fc_cls', 'bbox_head.fc_reg', 'mask_head.conv_logits')
        for part in ('weight', 'bias')
    }


def test_settings_in_old_files_are_read_and_left_out():
    weights = detector()
    weights['pixel_mean'] = torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
    weights['pixel_std'] = torch.ones(3, 1, 1)
    for level in range(5):
        weights[f'{ANCHORS}{level}'] = anchors_of(8 << level)
    assert convert(weights)[0].anchors == (8, 128)
    assert convert(weights)[1].keys() == convert(detector())[1].keys()


# --- what is refused ---


def without(name):
    weights = detector()
    del weights[name]
    return weights


@pytest.mark.parametrize(
    ('weights', 'message'),
    [
        (without('roi_heads.mask_head.deconv.bias'), 'missing key roi_heads.mask_head.deconv.bias'),
        (
            without('roi_heads.box_predictor.cls_score.weight'),
            r'cls_score.weight is missing, found',
        ),
        (without(f'{PREFIX}res2.0.conv2.weight'), r'res2.0.conv2.weight is missing'),
        (detector() | {'surplus': torch.zeros(1)}, 'unknown key surplus'),
        (detector() | {f'{PREFIX}res4.23.conv1.weight': torch.zeros(1)}, 'found 24 blocks in res4'),
        (
            detector() | {'backbone.fpn_output2.norm.weight': torch.zeros(256)},
            'unknown key backbone.fpn_output2.norm.weight',
        ),
        (
            detector() | {'roi_heads.keypoint_head.conv_fcn1.weight': torch.zeros(1)},
            'roi_heads.keypoint_head.conv_fcn1.weight belongs to a keypoint head',
        ),
        (
            detector() | {'roi_heads.box_head.0.fc1.weight': torch.zeros(1)},
            'roi_heads.box_head.0.fc1.weight belongs to a cascade',
        ),
        ({'backbone.res4.0.conv1.weight': torch.zeros(1)}, r'res2.0.conv2.weight is missing'),
        ({'head.cls_score.weight': torch.zeros(1)}, 'head.cls_score.weight belongs to RetinaNet'),
        (
            detector() | {'roi_heads.box_head.fc1.weight': torch.zeros(1024, 256)},
            r'roi_heads.box_head.fc1.weight has shape \(1024, 256\), expected \(1024, 12544\)',
        ),
        (
            detector(classes=80) | {'roi_heads.box_predictor.bbox_pred.weight': torch.zeros(4, 1)},
            r'bbox_pred.weight has shape \(4, 1\), expected \(320, 1024\)',
        ),
        (
            detector() | {'pixel_mean': torch.tensor([123.675, 116.28, 103.53])},
            r'pixel_mean is \[123.675, 116.28, 103.53\], expected \[103.53, 116.28, 123.675\]',
        ),
        (detector() | {'pixel_std': torch.full((3,), 58.0)}, 'pixel_std is'),
        ({'conv1_w': torch.zeros(1), 'res2_0_branch3_w': torch.zeros(1)}, 'res2_0_branch3_w'),
        ({'conv1_w': torch.zeros(1), 'res_conv1_gn_s': torch.zeros(1)}, 'res_conv1_gn_s'),
    ],
)
def test_refused_by_name(weights, message):
    with pytest.raises(UserError, match=message) as error:
        convert(weights)
    assert '\n' not in str(error.value)


def test_many_missing_keys_are_counted():
    weights = {name: value for name, value in detector().items() if 'mask_head' not in name}
    with pytest.raises(UserError, match=r'missing keys roi_heads.mask_head.* and 9 more'):
        convert(weights)  # 4 convolutions, deconv, predictor: 12 keys


# --- files ---


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
def test_caffe2_pickle_of_protocol(tmp_path, protocol):
    blobs = caffe2()
    blobs['res5_2_branch2c_w'] = np.asfortranarray(blobs['res5_2_branch2c_w'])
    blobs['res_conv1_bn_beta'] = blobs['res_conv1_bn_beta'].astype('>f4')
    weights = read(dump({'blobs': blobs, 'cfg': 'text'}, tmp_path / 'R-50.pkl', protocol))
    converted = convert(weights)[1]
    assert convert(weights)[0] == Architecture(50, 1, 64, None, None)
    for key, name in {
        'conv1_w': 'conv1.weight',
        'res_conv1_bn_gamma': 'bn1.weight',
        'res_conv1_bn_beta': 'bn1.bias',
        'res3_0_branch1_bn_running_var': 'layer2.0.downsample.1.running_var',
        'res4_5_branch2a_bn_running_mean': 'layer3.5.bn1.running_mean',
        'res5_2_branch2c_w': 'layer4.2.conv3.weight',
    }.items():
        assert np.array_equal(converted[name].numpy(), blobs[key].astype('f4'))


def test_caffe2_fused_norms_and_momentum(tmp_path):
    blobs = caffe2(norm=('s', 'b'))
    blobs['conv1_w_momentum'] = np.zeros(1)
    converted = convert(read(dump(blobs, tmp_path / 'R-50.pkl')))[1]
    assert np.array_equal(converted['bn1.weight'].numpy(), blobs['res_conv1_bn_s'].astype('f4'))
    assert (converted['bn1.running_mean'] == 0).all()
    assert (converted['bn1.running_var'] == 1).all()


def test_caffe2_grouped_convolutions():
    blobs = caffe2(norm=('s', 'b', 'rm', 'riv'), groups=32, base_width=8)
    weights = {name: torch.from_numpy(value) for name, value in blobs.items()}
    assert convert(weights)[0] == Architecture(50, 32, 8, None, None)
    variance = blobs['res2_1_branch2b_bn_riv'].astype('f4')
    assert np.array_equal(convert(weights)[1]['layer1.1.bn2.running_var'].numpy(), variance)


def test_model_zoo_pickle(tmp_path):
    model = {'proposal_generator.x': np.arange(6, dtype='f4').reshape(2, 3), 'n': np.int64(3)}
    path = dump({'model': OrderedDict(model), '__author__': 'zoo'}, tmp_path / 'model.pkl', 4)
    weights = read(path)
    assert weights['proposal_generator.x'].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert weights['n'].item() == 3


def test_pickle_of_python_2(tmp_path):
    """Text opcodes and a raw string of bytes above 127, as Python 2 and NumPy 1 wrote them."""
    values = np.array([1.5, -2.25], '<f4')
    raw = ''.join(f'\\x{byte:02x}' for byte in values.tobytes())
    text = (
        "(dp0\nS'x'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\n"
        "S'b'\np5\ntp6\nRp7\n(I1\n(I2\ntp8\ncnumpy\ndtype\np9\n(S'f4'\np10\nI0\nI1\ntp11\nRp12\n"
        "(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\n"
        f"S'{raw}'\np15\ntp16\nbs."
    )
    path = tmp_path / 'old.pkl'
    path.write_bytes(text.encode())
    assert read(path)['x'].tolist() == [1.5, -2.25]


@pytest.mark.parametrize('made', [b')R', b')\x81'])  # by a call, and by the class itself
def test_array_without_content_is_empty(tmp_path, made):
    content = b'\x80\x02}X\x01\x00\x00\x00xcnumpy\nndarray\n' + made + b's.'
    (tmp_path / 'x.pkl').write_bytes(content)
    assert read(tmp_path / 'x.pkl')['x'].shape == (0,)


@pytest.mark.parametrize('legacy', [False, True])
def test_trainer_checkpoint(tmp_path, legacy):
    path = tmp_path / 'model_final.pth'
    content = {
        'model': OrderedDict(stored(detector())),
        'optimizer': {'state': {0: {'momentum_buffer': torch.zeros(2)}}, 'param_groups': []},
        'scheduler': {'last_epoch': 4999, 'best': np.float64(0.5), 'lrs': np.array([0.1])},
        'iteration': 4999,
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    if legacy:  # written with NumPy 1, too
        data = path.read_bytes()
        assert b'numpy._core.multiarray\n' in data
        path.write_bytes(data.replace(b'numpy._core.multiarray\n', b'numpy.core.multiarray\n'))
    assert convert(read(path))[0].classes == 1
    assert is_detectron2(content)


def test_bare_checkpoint(tmp_path):
    torch.save(stored(detector()), tmp_path / 'model.pth')
    assert convert(read(tmp_path / 'model.pth'))[0].depth == 101


def test_own_checkpoint_is_not_detectron2():
    assert not is_detectron2({'state_dict': convert(detector())[1], 'meta': {}})
    assert is_detectron2({'blobs': caffe2()})


# --- files that are not run ---


class Malicious:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def forged_dtype():
    """A call of ``numpy.dtype`` and then a state that turns numbers into Python objects."""
    return (
        b'\x80\x02}X\x01\x00\x00\x00xcnumpy\ndtype\nX\x02\x00\x00\x00f8K\x00K\x01\x87R'
        b'(K\x03X\x01\x00\x00\x00|NX\x01\x00\x00\x00a\x85NK\xffK\xffK?tbs.'
    )


def test_pickle_is_not_run(tmp_path):
    marker = tmp_path / 'ran'
    for content, name in [
        ({'model': {'x': Malicious(os.system, f'touch {marker}')}}, 'system'),
        (Malicious(eval, f'open({str(marker)!r}, "w")'), 'eval'),
        ({'x': Malicious(getattr, OrderedDict, 'mro')}, 'getattr'),
        ({'x': Malicious(np.load, str(marker))}, 'load'),
    ]:
        path = dump(content, tmp_path / 'bad.pkl')
        with pytest.raises(UserError, match=rf'bad.pkl: .*{name} is not admitted'):
            read(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    'content',
    [
        pickle.dumps({'x': np.array([{}], dtype=object)}),
        pickle.dumps({'x': np.zeros(1, dtype=[('a', 'f4')])}),
        forged_dtype(),
        # protocol 4 may ask for an attribute of an admitted class by a dotted name
        b'\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.',
        # numbers that do not fill their shape
        pickle.dumps({'x': np.arange(4.0)}, 2).replace(b'K\x04\x85', b'K\x05\x85'),
        pickle.dumps({'x': 1})[:-3],
        b'\x80\x02J\x01',  # half of a number
        b'not a pickle',
        b'',
    ],
)
def test_unfit_pickle_is_refused(tmp_path, content):
    (tmp_path / 'bad.pkl').write_bytes(content)
    with pytest.raises(UserError, match=r'bad.pkl: not read, expected a pickle'):
        read(tmp_path / 'bad.pkl')


def test_a_number_in_a_pickle_takes_no_memory(tmp_path):
    """Python's reader in C keeps a list as long as the number under which an object is kept."""
    (tmp_path / 'a.pkl').write_bytes(b'\x80\x02}r\x00\x00\x00\x01.')
    tracemalloc.start()
    with pytest.raises(UserError, match=r'a\.pkl: found no weights, expected some'):
        read(tmp_path / 'a.pkl')
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


@pytest.mark.parametrize(
    'content',
    [
        b'})' + b'\x85' * 400_000 + b'Ns.',  # of a dictionary that is filled,
        b'()' + b'\x85' * 400_000 + b'Nd.',  # or made,
        b'\x8f()' + b'\x85' * 400_000 + b'\x90.',  # in a set,
        b'ccollections\nOrderedDict\n(])' + b'\x85' * 400_000 + b'N\x86atR.',  # in pairs
    ],
    ids=['filled', 'made', 'set', 'pairs'],
)
def test_a_tuple_of_any_depth_is_no_key(tmp_path, content):
    """Its hash would end the process, by the end of its stack."""
    (tmp_path / 'a.pkl').write_bytes(b'\x80\x04' + content)
    code = 'import sys; from pathlib import Path; from nucseg_mmdet.engine import safe_pickle; '
    code += 'safe_pickle.load(Path(sys.argv[1]))'
    command = [sys.executable, '-c', code, tmp_path / 'a.pkl']
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, 'not read, expected a pickle' in done.stderr) == (1, True)


def test_an_array_of_many_names_is_copied_once(tmp_path):
    array = np.ones(2, 'f4')
    weights = read(dump(dict(x=array, y=array), tmp_path / 'a.pkl'))
    assert weights['x'].data_ptr() == weights['y'].data_ptr()


def test_attributes_of_a_dictionary_are_left(tmp_path):
    weights = OrderedDict(x=np.ones(2, 'f4'))
    weights.names = 1
    content = pickle.dumps(weights, 2).replace(b'names', b'items')  # a method's name
    (tmp_path / 'a.pkl').write_bytes(content)
    assert read(tmp_path / 'a.pkl')['x'].tolist() == [1, 1]


def test_torch_file_is_not_run(tmp_path):
    marker, path = tmp_path / 'ran', tmp_path / 'bad.pth'
    torch.save({'model': {}, 'hook': Malicious(os.system, f'touch {marker}')}, path)
    with pytest.raises(
        UserError, match=r'torch.save with tensors only \(\w+.system is not admitted'
    ):
        read(path)
    assert not marker.exists()


def test_damaged_torch_file_is_refused(tmp_path):
    path = tmp_path / 'cut.pth'
    torch.save({'model': {'x': torch.zeros(100)}}, path)
    for content in (path.read_bytes()[:-200], b'no checkpoint', b''):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r'cut.pth: not read, expected a file of torch.save'):
            read(path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [([1], 'found list'), ({'x': 'text'}, "'x' is a str"), ({}, 'found no weights')],
)
def test_other_content_is_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(dump(content, tmp_path / 'x.pkl'))


# --- in configs and on the command line ---


def test_init_cfg_takes_a_caffe2_pickle(tmp_path):
    blobs = caffe2()
    path = dump(blobs, tmp_path / 'R-50.pkl')
    init_default_scope('mmdet')
    for checkpoint in (str(path), f'detectron2://{path}'):
        model = MODELS.build(
            dict(type='ResNet', depth=50, init_cfg=dict(type='Pretrained', checkpoint=checkpoint))
        )
        model.init_weights()
        state = model.state_dict()
        expected = convert(read(path))[1]
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], value) for key, value in expected.items())


@pytest.mark.parametrize('side', [800, 1200])
def test_resize_as_detectron2_does(side):
    """The pipeline option is PIL's bilinear; OpenCV's, the default, differs where it shrinks."""
    init_default_scope('mmdet')
    img = np.random.RandomState(0).randint(0, 256, (1000, 1000, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(img).resize((side, side), Image.Resampling.BILINEAR))
    step = dict(type='Resize', scale=(1500, side), keep_ratio=True)
    found = TRANSFORMS.build(step | dict(backend='pillow'))(dict(img=img))['img']
    assert np.array_equal(found, expected)
    opencv = TRANSFORMS.build(step)(dict(img=img))['img'].astype(int)
    worst = np.abs(opencv - expected).max()
    assert worst > 10 if side < 1000 else worst <= 1


def test_loader_drops_the_layers_of_other_classes(tmp_path):
    path = tmp_path / 'coco.pth'
    torch.save({'model': stored(detector(classes=80))}, path)
    checkpoint = CheckpointLoader.load_checkpoint(f'detectron2://{path}')
    dropped = checkpoint['meta']['dropped']
    assert 'roi_head.mask_head.conv_logits.bias' in dropped
    assert len(dropped) == 6
    assert not set(dropped) & set(checkpoint['state_dict'])
    torch.save({'model': stored(detector())}, path)
    checkpoint = CheckpointLoader.load_checkpoint(f'detectron2://{path}')
    assert checkpoint['meta']['dropped'] == []
    assert checkpoint['state_dict'].keys() == convert(detector())[1].keys()


def test_loader_names_the_file(tmp_path):
    torch.save({'model': {'x': torch.zeros(1)}}, tmp_path / 'x.pth')
    with pytest.raises(UserError, match=r'x\.pth: key .* is missing, found x'):
        CheckpointLoader.load_checkpoint(f'detectron2://{tmp_path}/x.pth')
    with pytest.raises(UserError, match=r'MSRA/R-101.pkl: no such file'):
        CheckpointLoader.load_checkpoint('detectron2://ImageNetPretrained/MSRA/R-101.pkl')


def test_tool_converts_and_reports(tmp_path, capsys):
    source, out = tmp_path / 'model_final.pth', tmp_path / 'new' / 'converted.pth'
    weights = detector(groups=32, base_width=8, classes=80)
    for level in range(5):
        weights[f'{ANCHORS}{level}'] = anchors_of(32 << level)
    torch.save({'model': stored(weights)}, source)
    assert detectron2_to_mmdet.main([str(source), str(out), '--drop-class-layers']) == 0
    report = capsys.readouterr().out
    assert 'ResNeXt, depth 101, 32 groups of 8 channels' in report
    assert 'classes: 80' in report
    assert 'anchors: 32 to 512 px, anchor_generator.scales=[8]' in report
    assert 'fits: configs/_base_/models/mask-rcnn_x101-32x8d_fpn.py' in report
    written = torch.load(out, weights_only=True)['state_dict']
    assert written.keys() == without_class_layers(convert(weights)[1]).keys()


def test_tool_refuses_in_one_line(tmp_path, capsys):
    source, out = tmp_path / 'other.pth', tmp_path / 'out.pth'
    torch.save({'model': stored(without('backbone.fpn_output3.bias'))}, source)
    assert detectron2_to_mmdet.main([str(source), str(out)]) == 2
    error = capsys.readouterr().err
    assert error == f'detectron2_to_mmdet: {source}: missing key backbone.fpn_output3.bias\n'
    assert list(tmp_path.iterdir()) == [source]
