"""Classes of nuclei in every format, read back by other libraries."""

import csv
import json
from dataclasses import replace

import cv2
import highdicom as hd
import numpy as np
import pytest

from nucseg_mmdet.export.formats import FORMATS
from nucseg_mmdet.structures.classes import ONE_CLASS, NucleusClass, make_classes
from nucseg_mmdet.utils.errors import UserError
from tests.export.helpers import PLAIN, WRITABLE, nuclei_of, ovals, strict_json, write

# The first is what a spreadsheet would split, the second begins like an undefined number.
CLASSES = (
    NucleusClass('tumor, "high" grade', (200, 30, 40)),
    NucleusClass('nano', (10, 20, 30)),
    NucleusClass('Plasmazelle é', (0, 255, 0)),
)
LABELS = np.array([1, 0, 1, 0, 0, 1, 1], np.uint8)  # no nucleus of the third
NAMES = [CLASSES[label].name for label in LABELS]


@pytest.fixture(scope='module')
def nuclei():
    made = nuclei_of(ovals(len(LABELS), 70, 90, seed=3, radii=(4, 8)))
    made.measurements[:, -1] = np.nan  # the last before the score
    return replace(made, labels=LABELS)


def test_csv(tmp_path, nuclei):
    (path,) = write(tmp_path, ['csv'], PLAIN, nuclei, classes=CLASSES)
    rows = list(csv.DictReader(path.read_text(encoding='utf-8').splitlines()))
    assert [row['class'] for row in rows] == NAMES
    assert [row['eosin_od_mean'] for row in rows] == [''] * len(LABELS)
    assert [float(row['score']) for row in rows] == pytest.approx(nuclei.scores.tolist(), rel=1e-5)


def test_geojson(tmp_path, nuclei):
    (path,) = write(tmp_path, ['geojson'], PLAIN, nuclei, classes=CLASSES)
    kinds = [
        feature['properties']['classification']
        for feature in strict_json(path.read_text())['features']
    ]
    assert [kind['name'] for kind in kinds] == NAMES
    assert [tuple(kind['color']) for kind in kinds] == [CLASSES[label].color for label in LABELS]


def test_parquet(tmp_path, nuclei):
    geopandas = pytest.importorskip('geopandas')
    (path,) = write(tmp_path, ['parquet'], PLAIN, nuclei, classes=CLASSES)
    assert geopandas.read_parquet(path)['class'].tolist() == NAMES


def test_coco(tmp_path, nuclei):
    (path,) = write(tmp_path, ['coco'], PLAIN, nuclei, classes=CLASSES)
    results = json.loads(path.read_text())
    assert [result['category_id'] for result in results] == (LABELS + 1).tolist()


def test_dicom_has_a_group_for_each_class(tmp_path, nuclei):
    (path,) = write(
        tmp_path, ['dicom-ann'], PLAIN, nuclei.take(np.arange(3)), nuclei.take(np.arange(3, 7)),
        classes=CLASSES,
    )  # fmt: skip
    groups = hd.ann.annread(path).get_annotation_groups()
    assert [group.label for group in groups] == [CLASSES[0].name, CLASSES[1].name]
    rings = np.split(nuclei.points, np.cumsum(nuclei.sizes)[:-1])
    for label, group in enumerate(groups):
        chosen = np.flatnonzero(label == LABELS)
        found = group.get_graphic_data(coordinate_type='2D')
        assert [ring.tolist() for ring in found] == [rings[index].tolist() for index in chosen]
        names, values, _ = group.get_measurements()
        score = [name.meaning for name in names].index('score')
        np.testing.assert_array_equal(values[:, score], nuclei.scores[chosen])


@pytest.mark.skipif('ome-zarr' not in WRITABLE, reason='zarr 3 is for Python 3.11 and later')
def test_ome_zarr_has_labels_of_classes(tmp_path, nuclei):
    zarr = pytest.importorskip('zarr')
    (path,) = write(tmp_path, ['ome-zarr'], PLAIN, nuclei, classes=CLASSES)
    from ome_zarr_models.v05 import ImageLabel

    labels = zarr.open(path)['labels']
    ImageLabel.from_zarr(labels['classes'])  # raises
    assert labels.attrs['ome']['labels'] == ['nuclei', 'classes']
    numbers, classes = labels['nuclei/0'][:], labels['classes/0'][:]
    np.testing.assert_array_equal(classes, np.append(0, LABELS + 1)[numbers])
    about = labels['classes'].attrs['ome']['image-label']
    assert about['colors'][1] == {'label-value': 2, 'rgba': [10, 20, 30, 255]}
    assert [one['class'] for one in about['properties']] == [one.name for one in CLASSES]


@pytest.mark.skipif('spatialdata' not in WRITABLE, reason='zarr 3 is for Python 3.11 and later')
def test_spatialdata_has_a_column_of_classes(tmp_path, nuclei):
    """tests/export/test_spatialdata.py reads it with spatialdata itself."""
    import zarr

    (path,) = write(tmp_path, ['spatialdata'], PLAIN, nuclei, classes=CLASSES)
    table = zarr.open(path)['tables/table']
    categories = table['obs/class/categories'][:]
    assert [categories[code] for code in table['obs/class/codes'][:]] == NAMES
    assert table['uns/class_colors'][:].tolist() == ['#c81e28', '#0a141e', '#00ff00']


def test_overlay_has_the_colors_and_their_names(tmp_path, nuclei):
    image = np.full((300, 600, 3), 128, np.uint8)
    target = PLAIN._replace(width=600, height=300)
    options = dict(image=lambda: image, classes=CLASSES)
    (path,) = write(tmp_path, ['overlay'], target, nuclei.moved(300, 150), **options)
    drawn = cv2.imread(str(path))[..., ::-1].reshape(-1, 3)
    for one, used in zip(CLASSES, (True, True, False), strict=True):
        away = np.abs(drawn - np.array(one.color)).max(axis=1).reshape(600, 1200)
        assert not away[:100].all()  # in the key
        assert (away[300:].min() < 60) == used  # where the nuclei are, with soft edges


@pytest.mark.parametrize('form', WRITABLE)
def test_one_class_leaves_the_files_as_they_were(tmp_path, nuclei, form):
    """No column, group or key of a class where there is nothing to tell apart."""
    one = replace(nuclei, labels=np.zeros(len(nuclei), np.uint8))
    image = np.full((70, 90, 3), 128, np.uint8)
    (path,) = write(tmp_path, [form], PLAIN, one, image=lambda: image)
    files = [path] if path.is_file() else [file for file in path.rglob('*') if file.is_file()]
    assert FORMATS[form].suffix in path.name
    assert not any('class' in file.relative_to(tmp_path).as_posix() for file in files)
    if form == 'geojson':
        assert b'"classification":{"name":"Nucleus","color":[220,20,60]}' in path.read_bytes()
    if form == 'csv':
        assert path.read_text().partition('\n')[0].endswith(',score')


def test_names_of_classes_are_checked():
    assert make_classes(('nucleus',), [(1, 2, 3)], 'x') == ONE_CLASS
    assert make_classes(['a', 'b'], [(1, 2, 3)], 'x')[0] == ('a', (255, 225, 0))  # too few colors
    assert make_classes(['a', 'b'], [(1, 2, 3), [4, 5, 6]], 'x')[1] == ('b', (4, 5, 6))
    for names, message in [
        ('ab', "x: classes are 'ab', expected 1 to 255 names"),
        ([], 'expected 1 to 255 names'),
        (['a', 'a'], 'expected different names'),
        (['a', 'b\n'], 'expected up to 64 letters'),
        (['a' * 65], 'expected up to 64 letters'),
        ([3], 'expected up to 64 letters'),
    ]:
        with pytest.raises(UserError, match=message):
            make_classes(names, None, 'x')
