"""Written nuclei, read back by other programs' readers."""

import csv
import gzip
import json
import os
import resource
import sys
import uuid
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile
from pycocotools import mask as coco_mask
from scipy import ndimage

from nucseg_mmdet.export import writer
from nucseg_mmdet.export.formats import obstacles, open_writers
from nucseg_mmdet.export.outlines import touching
from nucseg_mmdet.export.writer import Options, Target
from nucseg_mmdet.structures.coco import parse_truth, read_results
from nucseg_mmdet.structures.nuclei import EMPTY, MEASUREMENTS
from nucseg_mmdet.structures.polygons import ring_runs
from nucseg_mmdet.utils.errors import UserError
from tests.export.helpers import (
    BAY,
    ONE,
    PLAIN,
    REGION,
    WRITABLE,
    halves,
    nuclei_of,
    ovals,
    painted,
    strict_json,
    write,
)


def test_geojson_feature_by_hand(tmp_path):
    (path,) = write(tmp_path, ['geojson'], REGION, ONE)
    assert path == tmp_path / 'slide 1.geojson'
    collection = strict_json(path.read_text())
    # QuPath makes ids with java.util.UUID.fromString.
    name = str(uuid.uuid5(uuid.NAMESPACE_URL, 'nucseg-mmdet:slide 1/100,40,30,20/1'))
    x0, y0, x1, y1 = 100 + 2 / 2, 40 + 1 / 2, 100 + 5 / 2, 40 + 3 / 2
    assert collection == {
        'type': 'FeatureCollection',
        'features': [
            {
                'type': 'Feature',
                'id': name,
                'geometry': {
                    'type': 'Polygon',
                    'coordinates': [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]],
                },
                'properties': {
                    'objectType': 'detection',
                    'classification': {'name': 'Nucleus', 'color': [220, 20, 60]},
                    'measurements': {  # the circularity is undefined
                        'area_um2': 6,
                        'perimeter_um': 10,
                        'major_axis_um': 3,
                        'minor_axis_um': 2,
                        'eccentricity': 0.5,
                        'solidity': 1,
                        'hematoxylin_od_mean': 0.25,
                        'eosin_od_mean': -0.125,
                        'score': 0.75,
                    },
                },
            }
        ],
    }


def fit_for_qupath(geometry):
    """The polygon, if QuPath 0.4 to 0.6 takes it and keeps its shape.

    From 0.6 on it brings what it reads to a grid of 0.01 px by JTS, and stops at the first ring
    that is not valid. GEOS, under shapely, is the port of JTS to C++, with the same reducer.
    """
    polygon = shapely.geometry.shape(geometry)
    assert polygon.geom_type == 'Polygon'
    assert polygon.is_valid
    for number, ring in enumerate(geometry['coordinates']):
        assert len(ring) >= 4
        assert ring[0] == ring[-1]
        assert all(first != second for first, second in pairwise(ring))
        assert shapely.LinearRing(ring).is_ccw == (number == 0)  # RFC 7946, section 3.1.6
    reduced = shapely.set_precision(polygon, 0.01)
    assert reduced.geom_type == 'Polygon'
    # Slivers narrower than the grid, which simplified outlines may have, do go.
    assert abs(reduced.area - polygon.area) <= 0.005 * polygon.length
    return polygon


@pytest.mark.parametrize('simplify', [0, 1.5])
@pytest.mark.parametrize('scale', [1, 1.37, 0.5])
def test_geojson_polygons_are_valid_and_lie_on_the_nuclei(tmp_path, scale, simplify):
    masks = ovals(60, 70, 90)
    nuclei = nuclei_of(masks)
    target = PLAIN._replace(scale=scale)
    (path,) = write(tmp_path, ['geojson'], target, *halves(nuclei), simplify=simplify)
    features = strict_json(path.read_text())['features']
    assert len({feature['id'] for feature in features}) == len(masks)
    vertices = 0
    for feature, mask in zip(features, masks, strict=True):
        polygon = fit_for_qupath(feature['geometry'])
        vertices += sum(len(ring) - 1 for ring in feature['geometry']['coordinates'])
        pixels = [shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(mask)]
        truth = shapely.affinity.scale(shapely.union_all(pixels), scale, scale, origin=(0, 0))
        # Coordinates are written to 0.01 px.
        assert shapely.hausdorff_distance(polygon, truth) <= simplify + 0.01
    if simplify:
        assert vertices < 0.7 * len(nuclei.points)
    else:
        assert vertices == len(nuclei.points)


@pytest.mark.parametrize('simplify', [0, 0.7])
@pytest.mark.parametrize('scale', [1, 0.9886, 0.4343])
def test_geojson_of_ragged_nuclei_is_fit_for_qupath(tmp_path, scale, simplify):
    """Nuclei as noise makes them, with bays that close diagonally."""
    rng = np.random.default_rng(7)
    masks = []
    for noise in rng.random((60, 24, 24)) < 0.62:
        parts, _ = ndimage.label(noise)
        largest = parts == np.bincount(parts[parts > 0]).argmax()
        masks.append(ndimage.binary_fill_holes(largest, np.ones((3, 3))))
    target = Target('image', 24, 24, scale, mpp=0.25)
    nuclei = nuclei_of(masks)
    assert len(touching(nuclei)) > 30
    (path,) = write(tmp_path, ['geojson'], target, nuclei, simplify=simplify)
    features = strict_json(path.read_text())['features']
    polygons = [fit_for_qupath(feature['geometry']) for feature in features]
    if not simplify:
        areas = [polygon.area / scale**2 for polygon in polygons]
        # An edge moves by at most 0.005 px of the slide.
        bound = [0.005 / scale * polygon.length / scale for polygon in polygons]
        assert (np.abs(np.subtract(areas, [mask.sum() for mask in masks])) <= bound).all()


@pytest.mark.parametrize('simplify', [0, 0.5])
def test_geojson_of_a_ring_that_meets_itself_is_valid(tmp_path, simplify):
    square = np.ones((3, 3), bool)
    nuclei = nuclei_of([square, BAY, square])
    (path,) = write(tmp_path, ['geojson'], PLAIN, nuclei, simplify=simplify)
    polygons = [
        fit_for_qupath(feature['geometry']) for feature in strict_json(path.read_text())['features']
    ]
    assert [polygon.area for polygon in polygons] == [9, BAY.sum(), 9]
    assert [len(polygon.interiors) for polygon in polygons] == [0, 1, 0]


def test_geojson_counts_from_where_qupath_counts(tmp_path):
    target = REGION._replace(qupath_corner=(90, 30))
    geojson, parquet = write(tmp_path, ['geojson', 'parquet'], target, ONE)
    (feature,) = strict_json(geojson.read_text())['features']
    outline = shapely.box(100 + 2 / 2, 40 + 1 / 2, 100 + 5 / 2, 40 + 3 / 2)
    moved = shapely.affinity.translate(outline, -90, -30)
    assert shapely.geometry.shape(feature['geometry']).equals(moved)
    (row,) = pq.read_table(parquet).to_pylist()
    assert shapely.from_wkb(row['geometry']).equals(outline)


def test_geojson_far_from_the_corner_of_a_slide_is_as_exact(tmp_path):
    target = Target('a', 200_000, 200_000, 0.37, mpp=0.25, region=(123_456, 123_456, 30, 20))
    (path,) = write(tmp_path, ['geojson'], target, ONE)
    (feature,) = strict_json(path.read_text())['features']
    # 2, 1 and 5, 3 times 0.37.
    outline = shapely.box(123_456.74, 123_456.37, 123_457.85, 123_457.11)
    assert shapely.geometry.shape(feature['geometry']).equals(outline)


def test_geojson_of_batches_of_one(tmp_path):
    (path,) = write(tmp_path, ['geojson'], REGION, ONE, EMPTY, ONE, ONE)
    features = strict_json(path.read_text())['features']
    assert len({feature['id'] for feature in features}) == 3
    assert [feature['geometry'] for feature in features] == [features[0]['geometry']] * 3


def test_a_chunk_is_no_border_of_the_files(tmp_path, monkeypatch):
    """Of 25 nuclei in two batches, chunks of 5 and of 7, which do not go into them evenly."""
    nuclei = nuclei_of(ovals(25, 70, 90))
    formats = ['geojson', 'csv', 'coco', 'label']
    whole = write(tmp_path / 'whole', formats, PLAIN, *halves(nuclei))
    for chunk in (5, 7):
        monkeypatch.setattr(writer, 'CHUNK', chunk)
        parts = write(tmp_path / f'{chunk}', formats, PLAIN, *halves(nuclei))
        for path, other in zip(parts, whole, strict=True):
            assert path.read_bytes() == other.read_bytes(), path.name


def test_geojson_without_nuclei(tmp_path):
    (path,) = write(tmp_path, ['geojson'], PLAIN, EMPTY)
    assert strict_json(path.read_text()) == {'type': 'FeatureCollection', 'features': []}


def test_compressed_geojson_has_the_same_bytes_in_every_run(tmp_path):
    nuclei = nuclei_of(ovals(20, 70, 90))
    (plain,) = write(tmp_path / 'a', ['geojson'], PLAIN, nuclei)
    (packed,) = write(tmp_path / 'b', ['geojson'], PLAIN, *halves(nuclei), compress=True)
    (again,) = write(tmp_path / 'c', ['geojson'], PLAIN, nuclei, compress=True)
    assert packed.name == 'image.geojson.gz'
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert gzip.decompress(again.read_bytes()) == plain.read_bytes()
    (other,) = write(tmp_path / 'd', ['geojson'], PLAIN, nuclei, compress=True)
    assert other.read_bytes() == again.read_bytes()


def test_tables_by_hand(tmp_path):
    csv_path, parquet_path = write(tmp_path, ['csv', 'parquet'], REGION, ONE, ONE)
    rows = list(csv.reader(csv_path.read_text().splitlines()))
    x, y = 100 + 3.5 / 2, 40 + 2 / 2  # and 0.5 microns per full-resolution px
    assert rows[0] == [
        'id', 'centroid_x_px', 'centroid_y_px', 'centroid_x_um', 'centroid_y_um',
        *MEASUREMENTS, 'score',
    ]  # fmt: skip
    values = [x, y, x / 2, y / 2, 6, 10, None, 3, 2, 0.5, 1, 0.25, -0.125, 0.75]
    for number, row in enumerate(rows[1:], start=1):
        assert [float(cell) if cell else None for cell in row] == [number, *values]
    table = pq.read_table(parquet_path)
    assert table.column_names == [*rows[0], 'geometry']
    outline = shapely.box(100 + 2 / 2, 40 + 1 / 2, 100 + 5 / 2, 40 + 3 / 2)
    for number, row in enumerate(table.to_pylist(), start=1):
        assert shapely.from_wkb(row.pop('geometry')).equals(outline)
        assert list(row.values()) == [number, *values]


def test_tables_agree(tmp_path):
    nuclei = nuclei_of(ovals(50, 70, 90))
    csv_path, parquet_path = write(tmp_path, ['csv', 'parquet'], PLAIN, *halves(nuclei))
    rows = np.array(list(csv.reader(csv_path.read_text().splitlines()))[1:], float)
    table = pq.read_table(parquet_path).drop_columns('geometry')
    table = np.stack([column.to_numpy() for column in table.columns], 1)
    np.testing.assert_allclose(rows[:, :5], table[:, :5], rtol=0, atol=0.0051)  # 2 decimals
    np.testing.assert_allclose(rows[:, 5:], table[:, 5:], rtol=1e-5)  # 6 digits
    assert rows[:, 0].tolist() == list(range(1, 51))


def test_geopandas_reads_parquet(tmp_path):
    geopandas = pytest.importorskip('geopandas', reason='geopandas is for Python 3.11 and later')
    masks = [*ovals(20, 70, 90), np.pad(BAY, 3)]
    nuclei = nuclei_of(masks)
    geojson, parquet = write(tmp_path, ['geojson', 'parquet'], PLAIN, *halves(nuclei))
    frame = geopandas.read_parquet(parquet)
    assert frame.crs is None
    assert frame.geometry.is_valid.all()
    assert frame.area.tolist() == [mask.sum() for mask in masks]
    np.testing.assert_array_equal(frame['score'], nuclei.scores)
    features = strict_json(geojson.read_text())['features']
    shapes = [shapely.geometry.shape(feature['geometry']) for feature in features]
    assert frame.geometry.geom_equals(geopandas.GeoSeries(shapes)).all()
    geo = json.loads(pq.read_schema(parquet).metadata[b'geo'])
    assert geo['columns']['geometry']['orientation'] == 'counterclockwise'
    assert all(polygon.exterior.is_ccw for polygon in frame.geometry)


def test_parquet_says_how_to_get_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(UserError, match='pip install pyarrow'):
        open_writers(['csv', 'parquet'], tmp_path, PLAIN)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('size', [(70, 90), (256, 512), (600, 300)])
def test_label_image(tmp_path, size):
    height, width = size
    masks = ovals(80, height, width, seed=1, radii=(4, 60))
    nuclei = nuclei_of(masks)
    nuclei.scores[:] = nuclei.scores.round(1)  # with ties
    target = Target('image', width, height, scale=1.0, mpp=0.25)
    (path,) = write(tmp_path, ['label'], target, *halves(nuclei))
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert tiff.is_bigtiff
        assert page.is_tiled
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.tags['ResolutionUnit'].value == tifffile.RESUNIT.CENTIMETER
        numerator, denominator = page.tags['XResolution'].value
        assert 1e4 / (numerator / denominator) == pytest.approx(0.25)
        labels = page.asarray()
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, painted(masks, nuclei.scores, height, width))


@pytest.mark.parametrize('scale', [0.3701, 0.8303, 1.3707, 2])
def test_label_image_has_full_resolution(tmp_path, scale):
    """A pixel belongs to a nucleus if its center is inside; none lies on an edge here."""
    masks = ovals(12, 100, 100, seed=2)
    nuclei = nuclei_of(masks)
    side = round(100 * scale)
    (path,) = write(tmp_path, ['label'], Target('image', side, side, scale, mpp=0.25), nuclei)
    y, x = (np.indices((side, side)) + 0.5) / scale  # in px of the nuclei
    rings = np.split(nuclei.points, np.cumsum(nuclei.sizes)[:-1])
    inside = [shapely.contains_xy(shapely.Polygon(ring), x, y) for ring in rings]
    labels = tifffile.imread(path)
    np.testing.assert_array_equal(labels, painted(inside, nuclei.scores, side, side))
    assert labels.any()


def test_label_image_of_a_region_has_its_size_and_place(tmp_path):
    (path,) = write(tmp_path, ['label'], REGION, ONE)
    # x from 1 to 2.5 and y from 0.5 to 1.5, full-resolution px of the region. Pixel 2 has its
    # center at 2.5 and that of row 0 is at 0.5: an edge belongs to the pixels after it.
    expected = np.zeros((20, 30), np.int32)
    expected[0, 1] = 1
    with tifffile.TiffFile(path) as tiff:
        np.testing.assert_array_equal(tiff.asarray(), expected)
        assert tiff.shaped_metadata[0] == dict(shape=[20, 30], mpp=0.5, origin=[100, 40])


def test_a_frame_that_does_not_start_with_its_region(tmp_path):
    # 2 px of the slide a px of the nuclei: the frame starts at 10, 8, the region 1 px later.
    target = Target('image', 60, 50, 2.0, 0.25, region=(11, 9, 20, 20), corner=(10, 8))
    gray = np.full((20, 20, 3), 128, np.uint8)
    paths = write(tmp_path, ['label', 'coco', 'csv', 'overlay'], target, ONE, image=lambda: gray)
    # x from 2 to 5 and y from 1 to 3 are 14 to 20 and 10 to 14 on the slide.
    expected = np.zeros((20, 20), np.int32)
    expected[1:5, 3:9] = 1
    np.testing.assert_array_equal(tifffile.imread(paths[0]), expected)
    assert strict_json(paths[1].read_text())[0]['bbox'] == [14, 10, 6, 4]
    row = next(csv.DictReader(paths[2].read_text().splitlines()))
    assert (float(row['centroid_x_px']), float(row['centroid_y_px'])) == (17, 12)
    y, x = np.nonzero((cv2.imread(str(paths[3])) != 128).any(2))
    # The lines, on twice the image, are blurred by 1 px to both sides.
    assert (x.min(), x.max() + 1) == pytest.approx((2 * 3 - 1, 2 * 9 + 1), abs=1)
    assert (y.min(), y.max() + 1) == pytest.approx((2 * 1 - 1, 2 * 5 + 1), abs=1)


def test_what_reaches_beyond_the_region_is_cut_off(tmp_path):
    # x from 10 to 32 and y from 8 to 30 on the slide, the region from 11 to 31 and 9 to 26.
    target = Target('image', 60, 50, 2.0, 0.25, region=(11, 9, 20, 17), corner=(10, 8))
    nuclei = replace(ONE, points=np.array([[0, 0], [11, 0], [11, 11], [0, 11]], np.int32))
    edges = target.to_pixels(nuclei.points)
    assert edges.tolist() == [[11, 9], [31, 9], [31, 26], [11, 26]]
    (path,) = write(tmp_path, ['label'], target, nuclei)
    assert tifffile.imread(path).tolist() == [[1] * 20] * 17


def test_label_image_takes_nuclei_in_any_order(tmp_path):
    masks = ovals(40, 700, 90, seed=3, radii=(4, 90))
    nuclei = nuclei_of(masks)
    order = np.random.default_rng(4).permutation(40)
    target = Target('image', 90, 700, scale=1.0, mpp=0.25)
    (path,) = write(tmp_path, ['label'], target, *halves(nuclei.take(order)))
    shuffled = [masks[index] for index in order]
    expected = painted(shuffled, nuclei.scores[order], 700, 90)
    np.testing.assert_array_equal(tifffile.imread(path), expected)


@pytest.mark.parametrize('axis', [0, 1])
def test_ring_runs_are_the_runs_of_the_mask(axis):
    masks = [*ovals(30, 50, 60, seed=5), np.pad(BAY, 2)]
    nuclei = nuclei_of(masks)
    owner, line, start, end = ring_runs(nuclei.points, nuclei.sizes, axis)
    found = [np.zeros(mask.shape, int) for mask in masks]
    for index, row, low, high in zip(owner, line, start, end, strict=True):
        lines = found[index] if axis == 0 else found[index].T
        lines[row, low:high] += 1
    for got, mask in zip(found, masks, strict=True):
        np.testing.assert_array_equal(got, mask)


@pytest.mark.parametrize('axis', [0, 1])
def test_ring_runs_move_with_the_rings(axis):
    """Also beyond the corner of the image, and by more than rings may be apart."""
    nuclei = nuclei_of(ovals(30, 50, 60, seed=5))
    owner, line, start, end = ring_runs(nuclei.points, nuclei.sizes, axis)
    x, y = -70, 1 << 21
    moved = ring_runs(nuclei.points + np.array([x, y], np.int32), nuclei.sizes, axis)
    across, along = (y, x) if axis == 0 else (x, y)
    expected = owner, line + across, start + along, end + along
    for got, one in zip(moved, expected, strict=True):
        np.testing.assert_array_equal(got, one)
    assert all(part.size == 0 for part in ring_runs(EMPTY.points, EMPTY.sizes, axis))


def test_coco_results_are_those_of_pycocotools(tmp_path):
    masks = ovals(40, 70, 90, seed=6)
    nuclei = nuclei_of(masks)
    target = PLAIN._replace(image_id=7)
    (path,) = write(tmp_path, ['coco'], target, *halves(nuclei))
    results = strict_json(path.read_text())
    for result, mask, score in zip(results, masks, nuclei.scores, strict=True):
        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert result['segmentation'] == dict(size=[70, 90], counts=encoded['counts'].decode())
        assert result['bbox'] == coco_mask.toBbox(encoded).tolist()
        assert result['score'] == pytest.approx(score, rel=1e-5)
        assert (result['image_id'], result['category_id']) == (7, 1)

    image = dict(id=7, height=70, width=90, file_name='image.png')
    truth = parse_truth(dict(images=[image], annotations=[], categories=[dict(id=1)]), 'truth')
    detections = read_results(path, truth)[7]  # as tools/score.py does
    assert detections.areas.tolist() == [mask.sum() for mask in masks]


def test_coco_results_lie_in_the_whole_slide(tmp_path):
    small = replace(ONE, points=np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.int32))
    (path,) = write(tmp_path, ['coco'], REGION, small, ONE)
    (result,) = strict_json(path.read_text())  # the other one has no pixel at this resolution
    mask = coco_mask.decode(result['segmentation'])
    assert mask.shape == (300, 400)
    assert np.argwhere(mask).tolist() == [[40, 101]]
    assert result['bbox'] == [101, 40, 1, 1]


def test_coco_results_without_nuclei(tmp_path):
    (path,) = write(tmp_path, ['coco'], PLAIN, EMPTY)
    assert strict_json(path.read_text()) == []


def test_coco_results_of_more_pixels_than_pycocotools_counts_are_skipped(tmp_path):
    # 2^32 px; a region of such a slide has run lengths of the whole slide, too.
    target = Target('slide', 1 << 16, 1 << 16, scale=1.0, mpp=0.25, region=(0, 0, 9, 9))
    reason = '65536 x 65536 px are more than pycocotools can count'
    assert obstacles(['csv', 'coco'], target) == dict(coco=reason)
    with open_writers(['csv', 'coco'], tmp_path, target):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ['slide.csv']
    largest = target._replace(height=(1 << 16) - 1)
    with open_writers(['coco'], tmp_path, largest) as writers:
        writers.write(ONE)
    (result,) = strict_json((tmp_path / 'slide.coco.json').read_text())
    assert coco_mask.area(result['segmentation']) == 6


def test_overlay_has_outlines_on_the_image(tmp_path):
    mask = np.zeros((20, 30), bool)
    mask[5:15, 10:20] = True
    gray = np.full((20, 30, 3), (90, 100, 110), np.uint8)
    target = Target('image', 30, 20, scale=1.0, mpp=0.25)
    (path,) = write(tmp_path, ['overlay'], target, nuclei_of([mask]), image=lambda: gray)
    drawn = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert drawn.shape == (40, 60, 3)  # twice the image
    changed = (drawn != (90, 100, 110)).any(2)
    # The square is at 20 to 40 and 10 to 30 there; the line is blurred by 1 px to both sides.
    assert changed[20, 19:21].all()
    assert not changed[12:28, 22:38].any()
    changed[8:32, 18:42] = False
    assert not changed.any()


def test_overlay_of_a_large_image_is_skipped(tmp_path):
    target = Target('slide', 5000, 4000, scale=1.0, mpp=0.25)
    reason = '5000 x 4000 px are more than 17 million'
    assert obstacles(['csv', 'overlay'], target) == dict(overlay=reason)
    with open_writers(['csv', 'overlay'], tmp_path, target):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ['slide.csv']


def gray_image():
    return np.full((70, 90, 3), 128, np.uint8)


@pytest.mark.parametrize('compress', [False, True])
def test_files_appear_when_all_are_complete(tmp_path, compress):
    nuclei = nuclei_of(ovals(10, 70, 90))
    options = Options(compress=compress, image=gray_image)
    writers = open_writers(WRITABLE, tmp_path, PLAIN, options)
    writers.write(nuclei)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith('.')]
    writers.close()
    assert sorted(tmp_path.iterdir()) == sorted(writers.paths)


@pytest.mark.parametrize('compress', [False, True])
def test_an_exception_leaves_nothing(tmp_path, compress):
    nuclei = nuclei_of(ovals(10, 70, 90))
    options = Options(compress=compress, image=gray_image)

    def stop():
        with open_writers(WRITABLE, tmp_path, PLAIN, options) as writers:
            writers.write(nuclei)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_completed_leaves_no_other(tmp_path):
    def image():
        raise OSError('gone')

    writers = open_writers(['csv', 'overlay', 'geojson'], tmp_path, PLAIN, Options(image=image))
    writers.write(ONE)
    with pytest.raises(UserError, match=r'image\.overlay\.png: cannot be written \(gone\)'):
        writers.close()
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_begun_leaves_nothing(tmp_path):
    class Headed(writer.Writer):
        suffix = '.txt'

        def _start(self):
            self._file.write(b'head')
            raise OSError('gone')

    with pytest.raises(UserError, match=r'image\.txt: cannot be written \(gone\)'):
        Headed(tmp_path, PLAIN, Options())
    assert not list(tmp_path.iterdir())


@pytest.fixture
def full_disk():
    """No file may grow beyond 20,000 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize('name', [name for name in WRITABLE if name != 'overlay'])
@pytest.mark.usefixtures('full_disk')
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, name):
    nuclei = nuclei_of(ovals(200, 70, 90))
    with pytest.raises(UserError, match=r'cannot be written \(File too large\)'):
        write(tmp_path, [name], PLAIN, *[nuclei] * 5)
    assert not list(tmp_path.iterdir())


def test_names_that_are_no_text_stay_apart(tmp_path):
    """Of two that differ in a byte only, too, QuPath gets other ids."""
    found = set()
    for name in (b'gr\xfcn', b'gr\xf6n'):
        (path,) = write(tmp_path, ['geojson'], PLAIN._replace(name=os.fsdecode(name)), ONE)
        found.add(strict_json(path.read_text())['features'][0]['id'])
    assert len(found) == 2


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'file: no folder for results'):
        open_writers(['csv'], tmp_path / 'file', PLAIN)


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(UserError, match='format xml: unknown, expected one of geojson, csv'):
        open_writers(['csv', 'xml'], tmp_path, PLAIN)
    assert not list(tmp_path.iterdir())
