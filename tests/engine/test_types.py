"""Types of nuclei from annotated fields to the files of a slide, and back from QuPath."""

import csv
import gzip
import json

import cv2
import pytest
from mmengine.config import Config

from nucseg_mmdet.commands import prepare, report, score, segment, test, train
from nucseg_mmdet.engine import config_edits, finetune, model_zoo, types_of_nuclei
from nucseg_mmdet.synthetic import fields
from nucseg_mmdet.utils.errors import UserError
from tools.analysis_tools import browse_data

NAMES = ['connective', 'epithelial', 'inflammatory']
LOADERS = [
    *('train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False'),
    *('test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False'),
]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Twelve made-up fields, prepared with classes."""
    raw, out = (tmp_path_factory.mktemp('types') / name for name in ('raw', 'data'))
    fields.write_typed_dataset(raw, num=12, size=160, seed=5)
    assert prepare.main(['label-map', str(raw), str(out), '--classes', '--workers', '1']) == 0
    return out


def test_the_config_takes_the_types_of_the_data(data):
    cfg = Config.fromfile(model_zoo.find_config('finetune'))
    config_edits.set_data_root(cfg, data)
    recipe = finetune.fit_to_data(cfg)
    assert list(recipe.types) == NAMES
    assert 'types connective, epithelial, inflammatory' in finetune.describe(recipe)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert list(loader.dataset.metainfo.classes) == NAMES
    head = cfg.model.roi_head
    assert head.bbox_head.num_classes == head.mask_head.num_classes == 3
    rates = cfg.optim_wrapper.paramwise_cfg
    assert rates.custom_keys[types_of_nuclei.CLASS_LAYER].lr_mult == 10
    assert rates.norm_decay_mult == 0


def test_types_leave_other_rates_as_they_are():
    cfg = Config.fromfile('configs/dense/ablations/lite2-sharpness_stage2.py')
    types_of_nuclei.set_types(cfg, ['a', 'b'])
    rates = cfg.optim_wrapper.paramwise_cfg.custom_keys
    assert {key: rate.lr_mult for key, rate in rates.items()} == {
        'backbone': 0.5,
        types_of_nuclei.CLASS_LAYER: 10,
    }


def test_data_of_types_is_looked_at_as_it_is_trained_on(data, tmp_path):
    arguments = ['finetune', '--data-root', str(data), '--out', str(tmp_path)]
    assert browse_data.main([*arguments, '--stats']) == 0
    assert (tmp_path / 'stats.png').is_file()
    assert browse_data.main([*arguments, '--number', '1']) == 0


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """The default model, trained on for a minute or two; fold 1 is held out."""
    out = tmp_path_factory.mktemp('trained') / 'run'
    command = ['finetune', '--data', str(data), '--fold', '1', '--work-dir', str(out)]
    shorter = ['finetune.iterations=40', 'finetune.lr=1e-3', 'train_dataloader.batch_size=2']
    assert train.main([*command, '--cfg-options', *shorter, *LOADERS]) == 0
    return out


@pytest.mark.slow
def test_most_types_are_right(trained, data, capsys):
    command = ['finetune', str(trained / 'iter_40.pth'), '--data', str(data), '--fold', '1']
    command += ['--work-dir', str(trained), '--show-dir', str(trained / 'shown')]
    assert test.main([*command, '--cfg-options', *LOADERS[2:]]) == 0
    card = json.loads((trained / 'run_card.json').read_text())['scores']['fold1_val.json']
    assert {f'nuclei/F_c_{name}' for name in NAMES} <= set(card)
    capsys.readouterr()

    results, out = trained / 'fold1_val_results.json', trained / 'scores.json'
    truth = data / 'annotations/fold1_val.json'
    assert score.main([str(truth), str(results), '--json', str(out)]) == 0
    types = json.loads(out.read_text())['types']
    assert types['mPQ+'] == pytest.approx(card['nuclei/mPQ+'])
    paired = sum(map(sum, types['pairs']))
    right = sum(types['pairs'][index][index] for index in range(3))
    nuclei = [one['nuclei'] for one in types['classes']]
    assert paired > 0.9 * sum(nuclei)
    # Calling all of them the commonest type would get max(nuclei) right.
    assert right > max(0.6 * paired, 1.2 * max(nuclei)), types['pairs']
    assert len(list((trained / 'shown').glob('*.png'))) == 3

    assert report.main([str(trained)]) == 0
    page = (trained / 'report.html').read_text()
    assert '"name":"inflammatory","nuclei":' in page
    assert '"wrong":' in page


@pytest.mark.slow
def test_types_reach_the_files_of_a_slide(trained, tmp_path):
    """Four tiles by two ways of running, and the GeoJSON as training data again."""
    image = fields.synthesize(77, 160, 200)[0]
    cv2.imwrite(str(tmp_path / 'slide.png'), image[..., ::-1])
    checkpoint = str(trained / 'iter_40.pth')
    options = ['--config', 'finetune', '--checkpoint', checkpoint, '--device', 'cpu']
    options += ['--tile', '128', '--overlap', '64', '--gzip', '--backend', 'mmdet']
    options += ['--format', 'geojson', 'csv']
    command = [str(tmp_path / 'slide.png'), '--out', str(tmp_path / 'out'), *options]
    assert segment.main(command) == 0
    rows = list(csv.DictReader((tmp_path / 'out/slide.csv').read_text().splitlines()))
    summary = json.loads((tmp_path / 'out/slide.summary.json').read_text())
    counts = {name: sum(row['class'] == name for row in rows) for name in NAMES}
    assert {one['name']: one['nuclei'] for one in summary['classes']} == counts
    assert sum(count > 0 for count in counts.values()) > 1
    with gzip.open(tmp_path / 'out/slide.geojson.gz') as file:
        kinds = [one['properties']['classification'] for one in json.load(file)['features']]
    assert [kind['name'] for kind in kinds] == [row['class'] for row in rows]
    assert len({tuple(kind['color']) for kind in kinds}) == sum(map(bool, counts.values()))
    assert segment.main(command) == 0  # finished before

    back = ['qupath', str(tmp_path / 'out'), str(tmp_path / 'data'), '--images', str(tmp_path)]
    assert prepare.main([*back, '--regions', 'all', '--classes', '--workers', '1']) == 0
    truth = json.loads((tmp_path / 'data/annotations/train.json').read_text())
    names = {one['id']: one['name'] for one in truth['categories']}
    again = [names[one['category_id']] for one in truth['annotations']]
    assert {name: again.count(name) for name in NAMES} == counts


def test_the_competition_refuses_several_classes(data, tmp_path, capsys):
    weights = str(model_zoo.model_files('dense-r18')[1])
    command = ['mask-rcnn_r18_fpn_types_pannuke', weights, '--format-only']
    command += ['--data', str(data), '--fold', '1']
    assert test.main([*command, '--work-dir', str(tmp_path / 'out')]) == 2
    error = capsys.readouterr().err
    assert 'has 5 classes, expected one: answer.json has category 1 for all nuclei' in error
    assert error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_types_without_names_are_refused():
    cfg = Config.fromfile(model_zoo.find_config('finetune'))
    for classes in ([''], ['a', 'a'], 7):
        checkpoint = dict(meta=dict(dataset_meta=dict(classes=classes)))
        with pytest.raises(UserError, match='x: '):
            types_of_nuclei.classes_of(checkpoint, cfg, 'x')
