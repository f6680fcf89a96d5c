"""ImageScope outlines: which pixels they hold, and what is refused."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from nucseg_mmdet.commands import prepare as prepare_data
from nucseg_mmdet.converters import monuseg_xml
from nucseg_mmdet.converters.raw_images import Pair
from nucseg_mmdet.structures.polygons import polygons_to_rle

# Moved by -0.5 px: x from 2.7 to 5.7, y from 0.7 to 4.7. Pixel centers inside: columns 3, 4, 5
# (3.5, 4.5, 5.5) and rows 1 to 4.
BOX = [(3.2, 1.2), (6.2, 1.2), (6.2, 5.2), (3.2, 5.2)]


def region(points, **attributes):
    text = ' '.join(f'{key}="{value}"' for key, value in attributes.items())
    vertices = ''.join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points)
    return f'<Region Id="9" {text}><Attributes/><Vertices>{vertices}</Vertices></Region>'


def layer(*regions, name='Description'):
    attribute = f'<Attributes><Attribute Name="{name}" Id="0" Value=""/></Attributes>'
    return (
        f'<Annotation Id="1" Name="">{attribute}<Regions>{"".join(regions)}</Regions></Annotation>'
    )


def document(*layers):
    return f'<Annotations MicronsPerPixel="0.25">{"".join(layers)}</Annotations>'


@pytest.fixture
def raw(tmp_path):
    """The folders of the challenge, one image of 20 x 12 px."""
    folder = tmp_path / 'raw'
    (folder / 'Tissue Images').mkdir(parents=True)
    (folder / 'Annotations').mkdir()
    pixels = np.arange(20 * 12 * 3, dtype=np.uint8).reshape(12, 20, 3)
    assert cv2.imwrite(str(folder / 'Tissue Images/a.tif'), pixels)
    return folder


def run(raw, text, *options):
    (raw / 'Annotations/a.xml').write_text(text)
    out = str(raw.parent / 'out')
    return prepare_data.main(['monuseg-xml', str(raw), out, '--workers=1', *options])


def annotations(raw):
    return json.loads((raw.parent / 'out/annotations/train.json').read_text())['annotations']


def masks(raw):
    return [
        coco_mask.decode(polygons_to_rle(entry['segmentation'], 12, 20)).astype(bool)
        for entry in annotations(raw)
    ]


def test_pixels_of_a_region(raw):
    assert run(raw, document(layer(region(BOX)))) == 0
    (entry,) = annotations(raw)
    assert entry['segmentation'] == [[3, 1, 6, 1, 6, 5, 3, 5]]
    assert (entry['area'], entry['bbox']) == (12, [3, 1, 3, 4])
    assert 'type' not in entry
    written = cv2.imread(str(raw.parent / 'out/train/a.png'))
    assert (written == cv2.imread(str(raw / 'Tissue Images/a.tif'))).all()


def test_what_lies_outside_is_cut_off(raw):
    points = [(-4.8, -2.8), (3.2, -2.8), (3.2, 2.2), (-4.8, 2.2)]  # to x 2.7, y 1.7
    assert run(raw, document(layer(region(points)))) == 0
    assert annotations(raw)[0]['bbox'] == [0, 0, 3, 2]


def test_crossing_outline_is_even_odd(raw):
    # A bow tie over columns 2 to 9: two triangles that meet at (5.5, 5.5).
    points = [(2, 2), (10, 10), (10, 2), (2, 10)]
    assert run(raw, document(layer(region(points)))) == 0
    (mask,) = masks(raw)
    assert mask[5, 2]
    assert mask[5, 8]
    assert not mask[2, 5]
    assert not mask[8, 5]


def test_first_region_keeps_shared_pixels(raw, capsys):
    shifted = [(x + 2, y) for x, y in BOX]  # columns 5 to 7, of which 5 is taken
    assert run(raw, document(layer(region(BOX), region(shifted)))) == 0
    assert [entry['bbox'] for entry in annotations(raw)] == [[3, 1, 3, 4], [6, 1, 2, 4]]
    assert 'a.xml: 4 px lie in two regions' in capsys.readouterr().out


def test_names_tell_organ_and_patient(raw):
    """In any case of the suffix: images of a patient of MoNuSAC are held out together."""
    (raw / 'Tissue Images/a.tif').unlink()
    patients = ('B0-5710', 'AA-0001', 'BB-0002', 'CC-0003')
    for patient in patients:
        for number in (1, 2):
            name = f'TCGA-{patient}-01Z-00-DX1_{number}'
            write = raw / 'Tissue Images' / f'{name}.TIF'
            write.write_bytes(cv2.imencode('.tif', np.zeros((12, 20, 3), np.uint8))[1].tobytes())
            (raw / 'Annotations' / f'{name}.XML').write_text(document(layer(region(BOX))))
    out = raw.parent / 'out'
    assert prepare_data.main(['monuseg-xml', str(raw), str(out), '--workers=1']) == 0
    images = json.loads((out / 'annotations/train.json').read_text())['images']
    assert [image.get('organ') for image in images] == [None, None, 'kidney', 'kidney'] + [None] * 4
    for number in (1, 2, 3, 4):
        held_out = json.loads((out / f'annotations/fold{number}_val.json').read_text())['images']
        assert len({image['file_name'][5:12] for image in held_out}) == 1
        assert len(held_out) == 2


def test_layers_give_types(raw):
    far = [(x + 8, y) for x, y in BOX]
    text = document(layer(region(BOX), name='Epithelial'), layer(region(far), name='Lymphocyte'))
    assert run(raw, text, '--classes') == 0
    assert [(entry['type'], entry['category_id']) for entry in annotations(raw)] == [
        ('Epithelial', 1),
        ('Lymphocyte', 2),
    ]


BAD_REGIONS = {
    'two vertices': (region(BOX[:2]), '2 vertices, expected at least 3'),
    'no vertex': (region([]), '0 vertices'),
    'no number': (region([('x', 1), *BOX]), 'a vertex without numbers X and Y'),
    'not finite': (region([('nan', 1), *BOX]), 'vertices up to nan'),
    'another magnification': (region([(4_000, 1), *BOX]), 'vertices up to 4000'),
    'outside': (region([(30, 1), (35, 1), (35, 5)]), 'no pixel of the image inside'),
    'twice': (region(BOX), 'all its pixels are in earlier regions'),
    'negative': (region(BOX, Type='0', NegativeROA='1'), 'Type 0, NegativeROA 1'),
    'ellipse': (region(BOX, Type='2'), 'Type 2'),
    'zigzag': (region([(0, 0), (40, 39)] * 60_000), 'polygon of 4,800,000 px around'),
}


@pytest.mark.parametrize('case', BAD_REGIONS)
def test_bad_region_is_named(raw, capsys, case):
    bad, message = BAD_REGIONS[case]
    text = document(layer(region(BOX), bad))
    assert run(raw, text) == 2
    assert f'a.xml: region 2 (Id 9): {message}' in capsys.readouterr().err.replace(
        'Type None, ', ''
    )
    assert not (raw.parent / 'out').exists()
    assert run(raw, text, '--skip-bad') == 0
    assert len(annotations(raw)) == 1


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]>'
FILE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize('head', [BOMB, FILE, '<!DOCTYPE Annotations>'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16'])
def test_document_types_are_refused(raw, capsys, head, encoding):
    path = raw / 'Annotations/a.xml'
    path.write_bytes((head + document(layer(region(BOX)))).encode(encoding))
    assert prepare_data.main(['monuseg-xml', str(raw), str(raw.parent / 'out')]) == 2
    assert 'a.xml: has a document type declaration' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('text', 'message'),
    [('<Annotations>', 'a.xml: no valid XML'), (document(layer()), 'a.xml: no region')],
)
def test_broken_or_empty_file(raw, capsys, text, message):
    assert run(raw, text) == 2
    assert message in capsys.readouterr().err


def test_files_without_partner(raw, capsys):
    (raw / 'Annotations/b.xml').write_text(document(layer(region(BOX))))
    (raw / 'Tissue Images/a.tif').rename(raw / 'Tissue Images/c.tif')
    assert run(raw, document(layer(region(BOX)))) == 2
    errors = capsys.readouterr().err
    assert 'a.xml: no image named a' in errors
    assert 'b.xml: no image named b' in errors
    assert 'c.tif: no truth file of this name' in errors


@pytest.mark.slow
@pytest.mark.parametrize('case', ['TCGA-B0-5698-01Z-00-DX1', 'TCGA-B0-5710-01Z-00-DX1'])
def test_class_masks_come_back_exactly(class_data, case):
    """The class masks were made of these outlines by the challenge's MATLAB code."""
    folder = Path(__file__).parents[2] / os.environ['NUCSEG_SHARED'] / 'data/monuseg_xml'
    image = class_data / f'train/{case}/images/{case}.png'
    annotated = monuseg_xml.read_image(Pair(case, image, folder / f'{case}.xml'))
    assert annotated.problems == []
    paths = sorted((class_data / f'train/{case}/masks').iterdir())
    for nucleus, path in zip(annotated.nuclei, paths, strict=True):
        mask = cv2.imread(str(path), 0) > 0
        assert (coco_mask.decode(polygons_to_rle(nucleus.polygons, *mask.shape)) == mask).all()
