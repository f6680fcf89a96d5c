"""QuPath's GeoJSON made into a data set, and what tools/segment.py writes, read back."""

import gzip
import json

import cv2
import numpy as np
import pytest
import shapely
from pycocotools import mask as coco_mask
from scipy import ndimage

from nucseg_mmdet.commands import prepare as prepare_data
from nucseg_mmdet.commands import segment
from nucseg_mmdet.converters import base, qupath
from nucseg_mmdet.converters.qupath_geojson import read_objects
from nucseg_mmdet.export.formats import open_writers
from nucseg_mmdet.export.writer import Options, Target
from nucseg_mmdet.slides.base import ArraySlide
from nucseg_mmdet.structures.nuclei import MEASUREMENTS, Nuclei
from nucseg_mmdet.structures.polygons import fill_rings, mask_to_polygons
from nucseg_mmdet.synthetic import fields
from nucseg_mmdet.utils.errors import UserError

SQUARE = [[10, 20], [14, 20], [14, 25], [10, 25], [10, 20]]  # 4 x 5 px
HOLE = [[11, 21], [11, 23], [13, 23], [13, 21], [11, 21]]  # 2 x 2 px of it


def feature(*rings, kind='annotation', name=None, geometry='Polygon', **more):
    coordinates = list(rings) if geometry == 'Polygon' else [list(ring) for ring in rings]
    properties = dict(objectType=kind)
    if name:
        properties['classification'] = dict(name=name, color=[1, 2, 3])
    shape = dict(type=geometry, coordinates=coordinates)
    return dict(type='Feature', geometry=shape, properties=properties, **more)


def rectangle(x, y, width, height):
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]


def region(*corners, name='Region*'):
    return feature(rectangle(*corners), name=name)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 250, (height, width, 3), np.uint8)


def save(folder, features, image=None, name='slide'):
    image = noise(60, 80) if image is None else image
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / f'{name}.png'), image[..., ::-1])
    collection = dict(type='FeatureCollection', features=features)
    (folder / f'{name}.geojson').write_text(json.dumps(collection))
    return folder


def convert(raw, out, **options):
    summary = base.prepare(
        qupath.find_images(raw, **options), qupath.read_image, [], [], out, workers=1
    )
    return summary, json.loads((out / 'annotations/train.json').read_text())


def masks_of(truth, image):
    return [
        coco_mask.decode(
            coco_mask.merge(
                coco_mask.frPyObjects(item['segmentation'], image['height'], image['width'])
            )
        ).astype(bool)
        for item in truth['annotations']
        if item['image_id'] == image['id']
    ]


def rows_of(mask):
    return [''.join('.#'[int(pixel)] for pixel in row) for row in mask]


def test_fill_rings_by_hand():
    # Centers at 0.5, 1.5, ...: of the triangle's row 0 only that of pixel 2 is inside.
    triangle = np.array([[0, 0], [3.6, 0], [3.6, 3.6]])
    assert rows_of(fill_rings([triangle], 4, 5)) == ['####.', '.###.', '..##.', '...#.']
    inner = np.array([[1, 1], [1, 3], [3, 3], [3, 1]])
    outer = np.array([[0, 0], [4, 0], [4, 4], [0, 4]])
    assert rows_of(fill_rings([outer, inner], 4, 4)) == ['####', '#..#', '#..#', '####']


def test_fill_rings_has_centers_on_sides_to_the_left_and_above_only():
    # Centers of pixels 0 and 2 lie on the sides; so do those of pixel 1, 1 in the slanted one.
    square = np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 2.5], [0.5, 2.5]])
    assert rows_of(fill_rings([square], 4, 4)) == ['##..', '##..', '....', '....']
    right = np.array([[0.5, 2.5], [2.5, 0.5], [4, 0.5], [4, 2.5]])
    assert rows_of(fill_rings([right], 4, 4)) == ['..##', '.###', '....', '....']
    left = np.array([[0, 0.5], [2.5, 0.5], [0.5, 2.5], [0, 2.5]])
    assert rows_of(fill_rings([left], 4, 4)) == ['##..', '#...', '....', '....']


def test_fill_rings_asks_for_the_centers_of_pixels():
    rng = np.random.default_rng(1)
    y, x = np.indices((30, 40)) + 0.5
    for _ in range(50):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(3, 25, 9)  # some reach beyond the mask
        ring = np.stack([20 + radii * np.cos(angles), 15 + radii * np.sin(angles)], 1)
        expected = shapely.contains_xy(shapely.Polygon(ring), x, y)
        np.testing.assert_array_equal(fill_rings([ring], 30, 40), expected)


def test_a_field_by_hand(tmp_path):
    features = [
        region(5, 15, 20, 12),
        feature(SQUARE, HOLE, kind='detection', name='Tumor'),
        feature([rectangle(20, 16, 2, 2)], [rectangle(23, 16, 9, 1)], geometry='MultiPolygon'),
        feature(rectangle(40, 40, 3, 3)),  # in no region
    ]
    image = noise(60, 80)
    summary, truth = convert(save(tmp_path / 'raw', features, image), tmp_path / 'out')
    (record,) = truth['images']
    assert record == dict(
        id=1, file_name='slide_x5_y15.png', height=12, width=20, slide='slide.png'
    )
    written = cv2.imread(str(tmp_path / 'out/train/slide_x5_y15.png'))[..., ::-1]
    np.testing.assert_array_equal(written, image[15:27, 5:25])
    first, second = masks_of(truth, record)
    expected = np.zeros((12, 20), bool)
    expected[5:10, 5:9] = True
    expected[6:8, 6:8] = False
    np.testing.assert_array_equal(first, expected)
    expected = np.zeros((12, 20), bool)
    expected[1:3, 15:17] = expected[1, 18:20] = True  # the part beyond the region is cut off
    np.testing.assert_array_equal(second, expected)
    assert [item.get('type') for item in truth['annotations']] == ['Tumor', None]
    assert [note for note in summary.notes if 'region' in note] == [
        f'{tmp_path / "raw/slide.geojson"}: 1 nucleus in no region, or without a pixel in it, '
        'left out'
    ]


def test_what_is_in_no_region_becomes_white(tmp_path):
    brush = feature([[10, 10], [50, 10], [10, 50], [10, 10]], name='annotated')
    raw = save(tmp_path / 'raw', [brush, feature(rectangle(28, 28, 6, 6))])
    _, truth = convert(raw, tmp_path / 'out')
    written = cv2.imread(str(tmp_path / 'out/train/slide_x10_y10.png'))
    y, x = np.indices((40, 40)) + 0.5
    inside = shapely.contains_xy(shapely.Polygon([(0, 0), (40, 0), (0, 40)]), x, y)
    inside |= x + y == 40  # centers on the side: those to the left of it belong, by the rule
    white = (written == 255).all(2)
    assert white[~inside].all()
    assert not white[x + y < 40].any()
    (mask,) = masks_of(truth, truth['images'][0])
    assert not (mask & white).any()
    assert 0 < mask.sum() < 36


def test_large_regions_are_cut_into_fields_of_like_size(tmp_path):
    features = [region(0, 0, 200, 90), feature(rectangle(95, 10, 10, 10))]
    raw = save(tmp_path / 'raw', features, noise(100, 250))
    _, truth = convert(raw, tmp_path / 'out', field='100')
    sizes = [(item['file_name'], item['width'], item['height']) for item in truth['images']]
    assert sizes == [('slide_x0_y0.png', 100, 90), ('slide_x100_y0.png', 100, 90)]
    assert [item['area'] for item in truth['annotations']] == [50, 50]  # cut by the border


@pytest.mark.parametrize('num_slides', [3, 4])
def test_folds_are_of_slides_where_these_are_enough(tmp_path, capsys, num_slides):
    raw, out = tmp_path / 'raw', tmp_path / 'out'
    for name in 'abcd'[:num_slides]:
        save(raw, [region(0, 0, 20, 20), region(50, 0, 20, 20), feature(SQUARE)], name=name)
    assert prepare_data.main(['qupath', str(raw), str(out), '--workers', '1']) == 0
    shared = []
    for number in range(1, 5):
        train, val = (
            json.loads((out / f'annotations/fold{number}_{part}.json').read_text())['images']
            for part in ('train', 'val')
        )
        assert len(train) + len(val) == 2 * num_slides
        slides = [{item['file_name'][0] for item in part} for part in (train, val)]
        assert all(slides)
        shared.append(slides[0] & slides[1])
    # The fields a0, a50, b0, b50, c0, c50 of three slides are dealt in turn: folds 1 and 2 have
    # one of a and c each, folds 3 and 4 one of b.
    assert shared == ([{'a', 'c'}] * 2 + [{'b'}] * 2 if num_slides == 3 else [set()] * 4)
    note = 'note: fewer slides (3) than folds (4): '
    assert (note in capsys.readouterr().out) == (num_slides == 3)

    again = tmp_path / 'again'  # slides are known to the COCO file as well
    argv = ['coco', str(out / 'annotations/train.json'), str(again), '--images', str(out / 'train')]
    assert prepare_data.main([*argv, '--workers', '1']) == 0
    for path in (out / 'annotations').iterdir():
        assert json.loads((again / 'annotations' / path.name).read_text()) == json.loads(
            path.read_text()
        )


def test_a_slide_that_qupath_crops(tmp_path):
    """Coordinates count from the corner of the scanned part, as of mrxs."""
    raw = save(tmp_path, [region(5, 15, 20, 12), feature(SQUARE)])
    slide = ArraySlide(noise(60, 80), 0.25)
    slide.bounds = 30, 20, 40, 30
    path = raw / 'slide.geojson'
    (entry,) = qupath._fields(path, raw / 'slide.png', slide, None, 'Region*', 1000)
    assert entry.field == (35, 35, 20, 12)
    assert entry.name == 'slide_x35_y35.png'
    assert [item.box for item in entry.nuclei] == [(40, 40, 44, 45)]


def test_regions_that_overlap_are_one(tmp_path):
    features = [region(0, 0, 30, 30), region(20, 0, 30, 30), feature(rectangle(22, 5, 4, 4))]
    _, truth = convert(save(tmp_path / 'raw', features), tmp_path / 'out')
    assert [(item['width'], item['height']) for item in truth['images']] == [(50, 30)]
    assert len(truth['annotations']) == 1


@pytest.mark.parametrize('regions', ['all', 'Done'])
def test_regions_are_never_nuclei(tmp_path, regions):
    done = region(0, 0, 60, 60)
    done['properties']['classification'] = dict(name='Done')
    features = [region(5, 5, 20, 20), feature(SQUARE), *([done] if regions == 'Done' else [])]
    summary, truth = convert(save(tmp_path / 'raw', features), tmp_path / 'out', regions=regions)
    assert len(truth['annotations']) == 1
    (note,) = [note for note in summary.notes if 'Region' in note]
    found = '1 annotations of a class Region* or annotated are no nuclei'
    assert f'{found}, and no regions by --regions {regions}; left out' in note


def test_a_whole_image_without_nuclei(tmp_path):
    raw = save(tmp_path / 'raw', [])  # as segment writes where it finds nothing
    _, truth = convert(raw, tmp_path / 'out', regions='all')
    assert (len(truth['images']), truth['annotations']) == (1, [])
    with pytest.raises(UserError, match='--regions all takes whole images'):
        convert(raw, tmp_path / 'other')


def test_whole_images_only_when_asked(tmp_path):
    raw = save(tmp_path / 'raw', [feature(SQUARE)])
    with pytest.raises(UserError, match=r'no annotation of a class named Region\* or annotated'):
        convert(raw, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    _, truth = convert(raw, tmp_path / 'out', regions='all')
    assert [(item['width'], item['height']) for item in truth['images']] == [(80, 60)]
    _, truth = convert(save(tmp_path / 'raw', [region(0, 0, 9, 9, name='Done')]), tmp_path / 'o2',
                       regions='done*')  # fmt: skip
    assert len(truth['images']) == 1
    assert truth['annotations'] == []


@pytest.mark.parametrize('mpp', [0.25, 0.2529, 0.5])
def test_what_segment_writes_comes_back_as_it_was(tmp_path, mpp):
    """Ragged nuclei with bays, in the pixels of 0.25 microns that the models work at."""
    rng = np.random.default_rng(3)
    scale = 0.25 / mpp
    labels, count = ndimage.label(ndimage.zoom(rng.random((60, 60)), 3, order=1)[:160, :170] > 0.62)
    masks = []
    for number in range(1, count + 1):
        mask = ndimage.binary_fill_holes(labels == number, np.ones((3, 3)))
        if mask.sum() > 8 and not any((mask & other).any() for other in masks):
            masks.append(mask)
    rings = [np.array(mask_to_polygons(mask)[0], np.int32).reshape(-1, 2) for mask in masks]
    nuclei = Nuclei(
        np.concatenate(rings),
        np.array([len(ring) for ring in rings], np.int32),
        np.ones(len(rings), np.float32),
        np.zeros((len(rings), 2)),
        np.zeros((len(rings), len(MEASUREMENTS)), np.float32),
        np.zeros(len(rings), np.uint8),
    )
    width, height = round(170 * scale), round(160 * scale)
    raw = tmp_path / 'raw'
    raw.mkdir()
    cv2.imwrite(str(raw / 'slide.png'), noise(height, width))
    target = Target('slide', width, height, scale, 0.25)
    with open_writers(['geojson'], raw, target, Options(compress=mpp == 0.5)) as writers:
        writers.write(nuclei)
    _, truth = convert(raw, tmp_path / 'out', mpp=str(mpp), regions='all')
    (image,) = truth['images']
    assert (image['width'], image['height']) == (round(width / scale), round(height / scale))
    found = masks_of(truth, image)
    assert len(found) == len(masks) > 20
    for got, mask in zip(found, masks, strict=True):
        # At a scale that does not divide the size, the frame may be a pixel smaller.
        np.testing.assert_array_equal(got, mask[: image['height'], : image['width']])
    assert {item['type'] for item in truth['annotations']} == {'Nucleus'}


def test_all_forms_that_qupath_has_written(tmp_path):
    cell = feature(rectangle(0, 0, 9, 9), kind='cell', nucleusGeometry=dict(
        type='Polygon', coordinates=[SQUARE]))  # fmt: skip
    old = dict(feature(SQUARE), id='PathDetectionObject', properties=dict(
        classification=dict(name='Stroma', colorRGB=-3670016),
        measurements=[dict(name='Area', value=3)]))  # fmt: skip
    v03 = dict(feature(SQUARE), properties=dict(object_type='detection', classification='Other'))
    derived = feature(SQUARE)
    derived['properties']['classification'] = dict(names=['Tumor', 'Positive'], color=[1, 2, 3])
    parent = region(0, 0, 30, 30)
    parent['properties']['childObjects'] = [derived]
    tile = feature(SQUARE, kind='tile')
    path = tmp_path / 'a.json.gz'
    text = json.dumps([cell, old, v03, parent, tile])
    path.write_bytes(gzip.compress(text.replace('"value": 3', '"value": NaN').encode()))
    objects, problems = read_objects(path)
    assert problems == []
    assert [(item.kind, item.name) for item in objects] == [
        ('cell', None),
        ('detection', 'Stroma'),
        ('detection', 'Other'),
        ('annotation', 'Tumor: Positive'),
        ('annotation', 'Region*'),
    ]
    assert [item.box for item in objects[:4]] == [(10, 20, 14, 25)] * 4

    single = tmp_path / 'b.geojson'
    single.write_text(json.dumps(feature(SQUARE)))
    assert len(read_objects(single)[0]) == 1


def test_ignored_objects_are_left_out(tmp_path):
    features = [region(0, 0, 50, 50), feature(SQUARE, name='Ignore*'), feature(SQUARE)]
    summary, truth = convert(save(tmp_path / 'raw', features), tmp_path / 'out')
    assert len(truth['annotations']) == 1
    assert any('1 objects of a class Ignore* are left out' in note for note in summary.notes)


@pytest.mark.parametrize(
    ('geometry', 'message'),
    [
        (dict(type='Point', coordinates=[1, 2]), 'geometry is Point, expected a Polygon'),
        (None, 'geometry is None'),
        (dict(type='Polygon', coordinates=[SQUARE], plane=dict(c=-1, z=2, t=0)), 'lies on plane'),
        (dict(type='Polygon', coordinates=[[[0, 0], [1, 1]]]), 'a ring is'),
        (dict(type='Polygon', coordinates=[[['a', 0]] * 4]), 'coordinates are'),
        (dict(type='Polygon', coordinates=5), 'coordinates are'),
        (dict(type='Polygon', coordinates=[]), 'geometry is empty'),
        (dict(type='Polygon', coordinates=[[[0, 0], [1e300, 0], [1, 1], [0, 0]]]), 'too large'),
        (dict(type='Polygon', coordinates=[[[10**400, 0], *SQUARE]]), 'coordinates are'),
        (dict(type='Polygon', coordinates=[SQUARE], plane=5), 'lies on plane 5'),
        (dict(type='Polygon', coordinates=[SQUARE], plane=[1]), 'lies on plane'),
    ],
)
def test_objects_that_are_no_outline_are_problems(tmp_path, geometry, message):
    odd = dict(type='Feature', id='abc', geometry=geometry, properties={})
    raw = save(tmp_path / 'raw', [region(0, 0, 50, 50), odd, feature(SQUARE)])
    with pytest.raises(UserError, match=rf"slide.geojson: object 2, id 'abc': .*{message}"):
        convert(raw, tmp_path / 'out')
    entries = qupath.find_images(raw)
    summary = base.prepare(
        entries, qupath.read_image, [], [], tmp_path / 'out', skip_bad=True, workers=1
    )
    assert summary.nuclei == {'nucleus': 1}
    assert len(summary.left_out) == 1


def test_a_type_that_qupath_does_not_have_is_a_problem(tmp_path):
    raw = save(tmp_path / 'raw', [region(0, 0, 50, 50), feature(SQUARE, kind='foo')])
    with pytest.raises(UserError, match=r"object 2, .*its type is 'foo', expected one of annotat"):
        convert(raw, tmp_path / 'out')


@pytest.mark.parametrize('classification', [dict(names=5), dict(name=[1]), dict(names=[['a']])])
def test_a_class_of_no_text_is_none(tmp_path, classification):
    odd = feature(SQUARE)
    odd['properties']['classification'] = classification
    objects, problems = read_objects(save(tmp_path / 'raw', [odd]) / 'slide.geojson')
    assert [item.name for item in objects] == [None]
    assert problems == []


def test_what_a_region_does_not_show_is_counted(tmp_path):
    # Of the square around the rhombus the corners are no region.
    features = [
        feature([[30, 0], [60, 30], [30, 60], [0, 30], [30, 0]], name='Region*'),
        region(500, 0, 9, 9),  # beyond the image
        feature([[1, 1], [9, 1], [5, 1], [1, 1]], name='Region*'),  # without area
        feature(rectangle(28, 28, 4, 4)),
        feature(rectangle(2, 2, 4, 4)),
        feature(rectangle(30.6, 30.6, 0.3, 0.3)),  # between the centers of pixels
        feature([[20, 30], [40, 30], [30, 30], [20, 30]]),  # a line
    ]
    summary, truth = convert(save(tmp_path / 'raw', features), tmp_path / 'out')
    assert [item['area'] for item in truth['annotations']] == [16]
    start = f'{tmp_path / "raw/slide.geojson"}: '
    assert f'{start}3 nuclei in no region, or without a pixel in it, left out' in summary.notes
    assert f'{start}2 regions beyond the image or flat, left out' in summary.notes


def test_regions_that_are_cut_at_the_border_of_the_image_are_counted(tmp_path):
    # Of 80 x 60 px. The second is off by a px, as one that is drawn along the border.
    regions = [region(60, 40, 40, 40), region(-1, 0, 30, 30), region(40, 0, 20, 20)]
    summary, truth = convert(save(tmp_path / 'raw', regions), tmp_path / 'out')
    sizes = {(image['width'], image['height']) for image in truth['images']}
    assert sizes == {(20, 20), (29, 30)}
    line = '1 region cut at the border of the image'
    assert summary.notes.count(f'{tmp_path / "raw/slide.geojson"}: {line}') == 1


@pytest.mark.parametrize(
    'text', ['', '{', '[]', '{"type": "FeatureCollection"}', '3', '"\xff"', '[' * 99999]
)
def test_files_that_are_no_geojson_are_one_line(tmp_path, text):
    raw = save(tmp_path / 'raw', [])
    (raw / 'slide.geojson').write_bytes(text.encode('latin-1'))
    with pytest.raises(UserError, match='expected GeoJSON of QuPath'):
        convert(raw, tmp_path / 'out')


def test_images_without_geojson_are_said(tmp_path, capsys):
    raw = save(tmp_path / 'raw', [region(0, 0, 40, 40), feature(SQUARE)])
    for name in ('other.svs', 'more.PNG', 'slide.tissue.png', 'notes.txt'):
        (raw / name).touch()
    assert prepare_data.main(['qupath', str(raw), str(tmp_path / 'out')]) == 0
    said = capsys.readouterr().out
    assert f'note: {raw}: no GeoJSON of their names, left out: more.PNG, other.svs\n' in said


def test_images_are_found_by_name(tmp_path):
    raw = save(tmp_path / 'raw', [region(0, 0, 20, 20)], name='slide.1')
    (raw / 'slide.1.geojson').rename(raw / 'slide.1.png.geojson')  # as QuPath proposes
    assert [entry.image.name for entry in qupath.find_images(raw)] == ['slide.1.png']
    (raw / 'slide.1.png.geojson').rename(tmp_path / 'slide.1.geojson')
    assert len(qupath.find_images(tmp_path / 'slide.1.geojson', images=str(raw))) == 1
    (entry,) = qupath.find_images(tmp_path / 'slide.1.geojson')
    with pytest.raises(UserError, match=r'images named slide.1 in .*: none, expected one'):
        qupath.read_image(entry)


@pytest.mark.parametrize(
    ('option', 'value'), [('field', '10'), ('field', 'x'), ('mpp', 'nan'), ('mpp', '-1')]
)
def test_options_that_are_not_possible_are_refused(tmp_path, option, value):
    raw = save(tmp_path / 'raw', [region(0, 0, 20, 20)])
    with pytest.raises(UserError, match=rf'--{option} {value}: expected a number'):
        qupath.find_images(raw, **{option: value})


def test_the_tool(tmp_path, capsys):
    raw = save(tmp_path / 'raw', [region(0, 0, 50, 50), feature(SQUARE, name='Tumor')])
    out = tmp_path / 'out'
    assert prepare_data.main(['qupath', str(raw), str(out), '--classes', '--workers', '1']) == 0
    printed = capsys.readouterr().out
    assert f'{out}: 1 training image with 1 nucleus, 0 test images' in printed
    assert '  Tumor: 1' in printed
    (raw / 'slide.png').unlink()
    assert prepare_data.main(['qupath', str(raw), str(tmp_path / 'o2')]) == 2
    assert 'expected one' in capsys.readouterr().err


def test_segment_and_back(tmp_path, random_model):
    """The masks of COCO results, which are written beside the GeoJSON, in a part of the image."""
    raw, out = tmp_path / 'raw', tmp_path / 'results'
    raw.mkdir()
    cv2.imwrite(str(raw / 'slide.png'), fields.synthesize(5, 120, 140)[0][..., ::-1])
    config, checkpoint = random_model
    command = f'{raw}/slide.png --out {out} --format geojson coco --mpp 0.25 --roi 11,7,103,97'
    command += f' --config {config} --checkpoint {checkpoint} --score-thr 0 --no-tissue-mask'
    assert segment.main(command.split()) == 0
    _, truth = convert(out, tmp_path / 'data', images=str(raw), mpp='0.25', regions='all')
    results = json.loads((out / 'slide.coco.json').read_text())
    found = masks_of(truth, truth['images'][0])
    assert len(found) == len(results) > 3
    for mask, result in zip(found, results, strict=True):
        np.testing.assert_array_equal(mask, coco_mask.decode(result['segmentation']))
