"""Checkpoints are read without running what is in them."""

import functools
import http.server
import pickle
import re
import subprocess
import sys
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import CheckpointLoader

from nucseg_mmdet.engine.checkpoint import load_fit, load_weights_only, publish
from nucseg_mmdet.engine.hooks.fill_stages import FillStagesHook
from nucseg_mmdet.utils.errors import UserError
from tools.model_converters.publish_model import main

ROOT = Path(__file__).parents[2]


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_registered_for_plain_paths():
    assert CheckpointLoader._get_checkpoint_loader('some/file.pth') is load_weights_only


def test_no_loader_of_mmengine_is_left():
    loaders = CheckpointLoader._schemes.values()
    assert {loader.__module__.split('.')[0] for loader in loaders} == {'nucseg_mmdet'}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Torch hub's folder of downloads."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    folder = tmp_path / 'hub/checkpoints'
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ('name', 'file'),
    [
        ('https://example.org/a-0123abcd.pth?raw=1', 'a-0123abcd.pth'),
        ('open-mmlab://detectron2/resnet101_caffe', 'resnet101_msra-6cc46731.pth'),
    ],
)
def test_downloads_are_read_as_files_are(cache, tmp_path, name, file):
    torch.save(dict(state_dict=Malicious(tmp_path / 'made')), cache / file)
    with pytest.raises(UserError, match=f'{file}: not read.*open is not admitted'):
        CheckpointLoader.load_checkpoint(name)
    assert not (tmp_path / 'made').exists()
    torch.save(dict(weight=torch.ones(1)), cache / file)
    assert CheckpointLoader.load_checkpoint(name)['weight'].item() == 1


def test_download(cache, tmp_path):
    served = tmp_path / 'served'
    served.mkdir()
    (served / 'other').mkdir()
    torch.save(dict(weight=torch.ones(1)), served / 'a.pth')
    torch.save(dict(weight=torch.zeros(1)), served / 'other/a.pth')
    whole = (served / 'a.pth').read_bytes()
    (served / 'cut.pth').write_bytes(whole[:-50])
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        assert CheckpointLoader.load_checkpoint(f'{address}/a.pth')['weight'].item() == 1
        assert CheckpointLoader.load_checkpoint(f'{address}/other/a.pth')['weight'].item() == 0
        with pytest.raises(UserError, match=r'/b\.pth: not downloaded .*404'):
            CheckpointLoader.load_checkpoint(f'{address}/b.pth')
        with pytest.raises(UserError, match=r'/cut-[0-9a-f]{8}\.pth: '):
            CheckpointLoader.load_checkpoint(f'{address}/cut.pth')
        (served / 'cut.pth').write_bytes(whole)
        assert CheckpointLoader.load_checkpoint(f'{address}/cut.pth')['weight'].item() == 1
        server.shutdown()
    names = [path.name for path in cache.iterdir()]
    assert sorted(name.partition('-')[0] for name in names) == ['a', 'a', 'cut']


@pytest.mark.parametrize(
    'name', ['torchvision://resnet50', 's3://bucket/a.pth', 'a:s3://b', 'open-mmlab://no_model']
)
def test_other_addresses_are_refused(name):
    with pytest.raises(UserError, match=f'{name}: expected a file, https:// or open-mmlab://'):
        CheckpointLoader.load_checkpoint(name)


def test_own_checkpoint_comes_back(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    saved = dict(
        state_dict=dict(weight=torch.arange(3.0)),
        message_hub=dict(log_scalars=dict(loss=buffer), value=np.float64(2.5)),
        meta=dict(iter=3, seed=1),
    )
    torch.save(saved, tmp_path / 'a.pth')
    loaded = load_weights_only(str(tmp_path / 'a.pth'))
    assert loaded['state_dict']['weight'].tolist() == [0, 1, 2]
    curve = loaded['message_hub']['log_scalars']['loss']
    assert curve.data[0].tolist() == [1, 2]
    assert (type(curve), curve.mean()) == (HistoryBuffer, 1.5)
    assert loaded['meta'] == dict(iter=3, seed=1)


def test_python_in_the_meta_data_is_dropped(tmp_path):
    weights = dict(weight=torch.ones(1))
    content = dict(meta=dict(config='print(1)', iter=1), state_dict=weights)
    torch.save(content, tmp_path / 'a.pth')
    assert load_weights_only(str(tmp_path / 'a.pth'))['meta'] == dict(iter=1)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_weights_that_fit_are_loaded(prefix):
    model = torch.nn.Linear(2, 1)
    weights = {f'{prefix}weight': torch.ones(1, 2), f'{prefix}bias': torch.full((1,), 3.0)}
    load_fit(model, dict(weights, iteration=7), 'a.pth')  # as bare as other tools write them
    assert model(torch.tensor([1.0, 2.0])).item() == 1 + 2 + 3


@pytest.mark.parametrize(
    ('weights', 'dropped', 'message'),
    [
        (dict(weight=torch.ones(1, 2)), [], r'a\.pth: does not fit .* bias is missing'),
        (dict(weight=torch.ones(1, 2)), ['bias'], r'a\.pth: has no class layers .* missing bias'),
    ],
)
def test_weights_that_are_not_all_are_refused(weights, dropped, message):
    checkpoint = dict(state_dict=weights, meta=dict(dropped=dropped))
    with pytest.raises(UserError, match=message):
        load_fit(torch.nn.Linear(2, 1), checkpoint, 'a.pth')


def test_code_is_not_run(tmp_path):
    torch.save(dict(state_dict=Malicious(tmp_path / 'made')), tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r'a\.pth: not read.*open is not admitted'):
        load_weights_only(str(tmp_path / 'a.pth'))
    assert not (tmp_path / 'made').exists()


def test_attributes_are_not_reached(tmp_path):
    class Reach:
        def __reduce__(self):
            return getattr, (HistoryBuffer.__init__, '__globals__')

    torch.save(dict(state_dict=Reach()), tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r'a\.pth: not read'):
        load_weights_only(str(tmp_path / 'a.pth'))


class Pickled:
    """Pickles as a call, and a state that follows."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def pickled_array(kind, shape):
    """An array of 8 bytes as NumPy pickles one, of any type."""
    rebuild = np._core.multiarray._reconstruct
    return Pickled(rebuild, (np.ndarray, (0,), b'b'), (1, shape, kind, False, b'A' * 8))


def pickled_dtype(part):
    """A number type with another type hidden in it."""
    return Pickled(np.dtype, ('i8', False, True), (3, '<', (part, (1,)), None, None, -1, -1, 0))


def test_bytes_of_a_file_are_taken_for_no_address(tmp_path):
    """Of an object, or of an array's numbers."""
    hidden = pickled_array(pickled_dtype(Pickled(np.dtype, ('O',))), (1,))
    called = Pickled(np.ndarray, ((1,), 'O', b'A' * 8))
    elsewhere = dict(version=3, shape=(1,), typestr='|u1', data=(0x4141414141, False))
    placed = Pickled(OrderedDict, ([('a', 1)],), dict(__array_interface__=elsewhere))
    curve = HistoryBuffer([1.0], [1])
    curve._log_history = placed
    forged = dict(
        hidden=Pickled(OrderedDict, (hidden,)),
        called=Pickled(OrderedDict, (called,)),
        placed=Pickled(HistoryBuffer, (placed, [1])),
        curve=curve,
    )
    for name, content in forged.items():
        torch.save(
            dict(state_dict=dict(weight=torch.ones(1)), meta=dict(x=content)), tmp_path / name
        )
    code = (
        'import sys; from nucseg_mmdet.engine.checkpoint import *\n'
        'for name in sys.argv[1:]:\n'
        '  try: print(load_weights_only(name))\n'
        '  except UserError as error: print(error)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, *forged], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr  # and no signal
    lines = done.stdout.splitlines()
    assert [line.split(',')[0] for line in lines] == [f'{name}: not read' for name in forged]


def test_numbers_are_of_the_type_that_a_file_names_first(tmp_path):
    kind = pickled_array(pickled_dtype(np.dtype('i4')), ())
    torch.save(dict(state_dict=dict(weight=torch.ones(1)), kind=kind), tmp_path / 'b.pth')
    assert load_weights_only(str(tmp_path / 'b.pth'))['kind'].dtype == np.int64


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'not read'),
        (b'no checkpoint', 'not read'),
        (pickle.dumps([1], protocol=2), 'not read'),
    ],
)
def test_other_files_are_named(tmp_path, content, message):
    (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(UserError, match=rf'a\.pth: .*{message}'):
        load_weights_only(str(tmp_path / 'a.pth'))


@pytest.mark.parametrize('length', [100, 5_000, 300_000])
def test_truncated_checkpoint_is_named(tmp_path, length):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(100_000))), path)  # some 400,000 bytes
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r'a\.pth: not read'):
        load_weights_only(str(path))


def test_flipped_bit_in_the_weights_is_found(tmp_path):
    path, weight = tmp_path / 'a.pth', torch.arange(1, 100.0)
    torch.save(dict(state_dict=dict(weight=weight)), path)
    data = bytearray(path.read_bytes())
    data[data.index(weight.numpy().tobytes()) + 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r'a\.pth: damaged \(checksum of .*data/0\), expected'):
        load_weights_only(str(path))


def in_pieces(levels):
    """Tuples in each other, of which each 50 are kept and taken again."""
    pieces = b')' + b'\x85' * 50
    for number in range(levels // 50 - 1):
        kept = number.to_bytes(4, 'little')
        pieces += b'r' + kept + b'j' + kept + b'\x85' * 50
    return pieces


@pytest.mark.parametrize(
    ('content', 'legacy'),
    [
        (b'})' + b'\x85' * 300_000 + b'Ns.', False),
        (b'})' + b'\x85' * 300_000 + b'Ns.', True),
        (b'}()' + b'\x85' * 300_000 + b'Nu.', False),
        (b'}(' + in_pieces(300_000) + b'Nu.', False),
    ],
    ids=['one', 'legacy', 'several', 'kept'],
)
def test_a_tuple_of_any_depth_is_no_key(tmp_path, content, legacy):
    """Its hash would end the process, by the end of its stack."""
    path = tmp_path / 'a.pth'
    torch.save({}, path, _use_new_zipfile_serialization=not legacy)
    plain, content = b'\x80\x02}q\x00.', b'\x80\x02' + content
    assert plain in path.read_bytes()
    if legacy:
        path.write_bytes(path.read_bytes().replace(plain, content))
    else:
        with zipfile.ZipFile(path) as source:
            entries = {name: source.read(name) for name in source.namelist()}
        with zipfile.ZipFile(path, 'w') as out:
            for name, data in entries.items():
                out.writestr(name, data.replace(plain, content))
    code = 'import sys; from pathlib import Path; from nucseg_mmdet.engine import safe_pickle; '
    command = [sys.executable, '-c', code + 'safe_pickle.load_torch(Path(sys.argv[1]))', path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, 'a.pth: not read, expected a file of' in done.stderr) == (1, True)


def test_packed_checkpoint_is_refused(tmp_path):
    """It could hold any amount."""
    path, packed = tmp_path / 'a.pth', tmp_path / 'packed.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(100))), path)
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as out:
        for name in plain.namelist():
            out.writestr(name, plain.read(name))
    with pytest.raises(UserError, match=r'packed\.pth: packed, as torch never writes it, expected'):
        load_weights_only(str(packed))


@pytest.mark.parametrize(
    ('weight', 'message'),
    [
        (torch.zeros(()).expand(2), 'is 2 values, expected as many as the file holds'),
        (torch.tensor([1.0, float('inf')]), 'not finite'),
        (torch.tensor([float('nan')]).half(), 'not finite'),
    ],
)
def test_weights_that_are_none_are_refused(tmp_path, weight, message):
    torch.save(dict(state_dict=dict(weight=weight)), tmp_path / 'a.pth')
    with pytest.raises(UserError, match=rf'a\.pth: weight .*{message}'):
        load_weights_only(str(tmp_path / 'a.pth'))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match='No such file'):
        load_weights_only(str(tmp_path / 'a.pth'))


def test_published_weights_are_half_and_nothing_else(tmp_path):
    weights = {
        'conv.weight': torch.tensor([1.0, 1 / 3]),
        'bn.running_var': torch.tensor([1e-12]),  # 0 in float16
        'bn.num_batches_tracked': torch.tensor(7),
    }
    source, out = tmp_path / 'iter_9.pth', tmp_path / 'model.pth'
    classes = dict(classes=('nucleus',))
    # ``ConcatDataset`` puts the last one there.
    meta = dict(iter=9, seed=0, dataset_meta=dict(classes, cumulative_sizes=[4, 6]))
    torch.save(dict(state_dict=weights, optimizer=dict(state=1), meta=meta), source)
    config = tmp_path / 'b_c.py'
    config.touch()
    assert main([str(source), str(out), '--config', str(config), '--license', 'X']) == 0
    found = load_weights_only(str(out))
    assert found.keys() == {'meta', 'state_dict'}
    assert found['meta'] == dict(
        config_name='b_c', data=None, license='X', iteration=9, dataset_meta=classes
    )
    assert found['state_dict']['conv.weight'].dtype == torch.float16
    assert found['state_dict']['conv.weight'].tolist() == [1.0, 1365 / 4096]  # 11 bits of 1/3
    assert found['state_dict']['bn.running_var'].item() == weights['bn.running_var'].item()
    assert found['state_dict']['bn.num_batches_tracked'].item() == 7
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ['b_c.py', 'iter_9.pth', 'model.pth']


@pytest.mark.parametrize(
    ('value', 'message'), [(1e6, 'beyond float16'), (float('nan'), 'that are not finite')]
)
def test_weights_that_half_precision_cannot_hold(value, message, tmp_path):
    torch.save(dict(state_dict=dict(weight=torch.tensor([value]))), tmp_path / 'a.pth')
    with pytest.raises(UserError, match=f'weight has values {message}'):
        publish([tmp_path / 'a.pth'], tmp_path / 'b.pth', {})
    assert not (tmp_path / 'b.pth').exists()


def test_mean_of_several_trainings(tmp_path):
    for name, value, count in (('a', 1.0, 7), ('b', 3.0, 9), ('c', 4.0, 9)):
        weights = {
            'weight': torch.full((2, 3), value),
            'bn.running_var': torch.tensor([value * 1e-12]),
            'bn.num_batches_tracked': torch.tensor(count),
        }
        torch.save(dict(state_dict=weights, meta=dict(iter=5)), tmp_path / f'{name}.pth')
    paths = [str(tmp_path / f'{name}.pth') for name in ('a', 'b', 'c', 'mean')]
    assert main(paths) == 0
    found = load_weights_only(paths[-1])['state_dict']
    assert (found['weight'] == torch.tensor(8 / 3).half()).all()
    assert found['bn.running_var'].item() == pytest.approx(8e-12 / 3)
    assert found['bn.num_batches_tracked'].item() == 7


@pytest.mark.parametrize(
    ('other', 'message'),
    [
        (dict(weight=torch.ones(3)), 'b.pth: weight is (3,), expected (2,) as in'),
        (dict(other=torch.ones(2)), 'b.pth: weight is missing, expected (2,) as in'),
        (dict(weight=torch.ones(2), more=torch.ones(1)), 'more is (1,), expected missing as in'),
    ],
)
def test_mean_of_different_models_is_refused(tmp_path, capsys, other, message):
    torch.save(dict(state_dict=dict(weight=torch.ones(2))), tmp_path / 'a.pth')
    torch.save(dict(state_dict=other), tmp_path / 'b.pth')
    paths = [str(tmp_path / f'{name}.pth') for name in ('a', 'b', 'mean')]
    assert main(paths) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'mean.pth').exists()


def test_a_checkpoint_whose_place_was_meant_for_the_result_stays(tmp_path, capsys):
    paths = [str(tmp_path / name) for name in ('a.pth', 'b.pth')]
    for path in paths:
        torch.save(dict(state_dict=dict(weight=torch.ones(2)), optimizer=dict(lr=1)), path)
    assert main(paths) == 2
    assert 'b.pth: there already, expected a new file behind' in capsys.readouterr().err
    assert 'optimizer' in load_weights_only(paths[1])
    assert main([*paths, '--overwrite']) == 0
    assert 'optimizer' not in load_weights_only(paths[1])


def test_a_config_that_is_none_is_not_kept(tmp_path, capsys):
    torch.save(dict(state_dict=dict(weight=torch.ones(2))), tmp_path / 'a.pth')
    paths = [str(tmp_path / name) for name in ('a.pth', 'b.pth')]
    assert main([*paths, '--config', '/nope.py']) == 2
    assert '/nope.py: no such config, expected a file' in capsys.readouterr().err
    assert main([*paths, '--config', 'dense-r18']) == 0
    meta = load_weights_only(paths[1])['meta']
    assert meta['config_name'] == 'mask-rcnn_r18-c4_fpn_dense_nuclei'


def test_a_mask_rcnn_begins_every_stage_of_a_cascade():
    init_default_scope('mmdet')
    folder = ROOT / 'configs/dense/ablations'
    cascade, plain = (
        MODELS.build(Config.fromfile(folder / f'{name}.py').model)
        for name in ('lite2-cascade', 'lite2')
    )
    weights = plain.state_dict()
    checkpoint = dict(state_dict=dict(weights))
    for _ in range(2):  # those of a cascade are left as they are
        FillStagesHook().after_load_checkpoint(SimpleNamespace(model=cascade), checkpoint)
        filled = checkpoint['state_dict']
        cascade.load_state_dict(filled)  # or raise, if there is one more or less
        assert all(
            torch.equal(value, weights[re.sub(r'(_head)\.\d', r'\1', key)])
            for key, value in filled.items()
        )


def test_first_stage_of_a_cascade_is_a_mask_rcnn(tmp_path, capsys):
    init_default_scope('mmdet')
    folder = ROOT / 'configs/dense/ablations'
    cascade, plain = (
        MODELS.build(Config.fromfile(folder / f'{name}.py').model).state_dict()
        for name in ('lite2-cascade', 'lite2')
    )
    cascade = {
        key: torch.full_like(value, 1 if '_head.1.' in key else 2) for key, value in cascade.items()
    }
    torch.save(dict(state_dict=cascade), tmp_path / 'a.pth')
    torch.save(dict(state_dict=plain), tmp_path / 'b.pth')
    assert main([str(tmp_path / 'a.pth'), str(tmp_path / 'c.pth'), '--first-stage']) == 0
    found = load_weights_only(str(tmp_path / 'c.pth'))['state_dict']
    assert {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in plain.items()
    }
    assert all((value == 2).all() for value in found.values())
    assert main([str(tmp_path / 'b.pth'), str(tmp_path / 'd.pth'), '--first-stage']) == 2
    assert 'b.pth: no cascade, expected weights such as' in capsys.readouterr().err
    assert not (tmp_path / 'd.pth').exists()


def test_a_place_that_cannot_be_written(tmp_path, capsys):
    torch.save(dict(state_dict=dict(weight=torch.ones(1))), tmp_path / 'a.pth')
    assert main([str(tmp_path / 'a.pth'), str(tmp_path / 'missing/b.pth')]) == 2
    assert 'missing/b.pth: cannot be written' in capsys.readouterr().err
    (tmp_path / 'folder').mkdir()
    assert main([str(tmp_path / 'a.pth'), str(tmp_path / 'folder')]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.pth', 'folder']
