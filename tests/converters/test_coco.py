"""COCO files: every kind of segmentation, classes, and names that lead elsewhere."""

import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from nucseg_mmdet.commands import prepare as prepare_data
from nucseg_mmdet.structures.polygons import polygons_to_rle

SIZE = (8, 10)  # height, width, px


def drawn(x, y, width, height):
    mask = np.zeros(SIZE, np.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


RLE = coco_mask.encode(np.asfortranarray(drawn(4, 4, 3, 2)))
# Column-major: four columns and four pixels of 8 before the first, then 2 of each 8.
COUNTS = [36, 2, 6, 2, 6, 2, 26]
RING = drawn(1, 1, 5, 5) - drawn(2, 2, 3, 3)
SEGMENTATIONS = {
    'polygon': ([[4, 4, 7, 4, 7, 6, 4, 6]], drawn(4, 4, 3, 2)),
    'two polygons': (
        [[0, 0, 1, 0, 1, 1, 0, 1], [5, 5, 7, 5, 7, 6, 5, 6]],
        drawn(0, 0, 1, 1) + drawn(5, 5, 2, 1),
    ),
    'compressed': (dict(size=list(SIZE), counts=RLE['counts'].decode()), drawn(4, 4, 3, 2)),
    'counts': (dict(size=list(SIZE), counts=COUNTS), drawn(4, 4, 3, 2)),
    'hole': (
        dict(size=list(SIZE), counts=coco_mask.encode(np.asfortranarray(RING))['counts'].decode()),
        RING,
    ),
}  # fmt: skip


def document(*segmentations, categories=('cell',)):
    return dict(
        images=[dict(id=40, file_name='sub/a.png', height=SIZE[0], width=SIZE[1])],
        annotations=[
            dict(id=index, image_id=40, category_id=3 + index % len(categories), iscrowd=0,
                 segmentation=segmentation)
            for index, segmentation in enumerate(segmentations)
        ],
        categories=[dict(id=3 + index, name=name) for index, name in enumerate(categories)],
    )  # fmt: skip


@pytest.fixture
def raw(tmp_path):
    (tmp_path / 'raw/sub').mkdir(parents=True)
    assert cv2.imwrite(str(tmp_path / 'raw/sub/a.png'), np.zeros((*SIZE, 3), np.uint8))
    return tmp_path / 'raw'


def run(raw, content, *options):
    path = raw / 'any.json'
    path.write_text(json.dumps(content))
    return prepare_data.main(['coco', str(path), str(raw.parent / 'out'), '--workers=1', *options])


def truth_of(raw):
    return json.loads((raw.parent / 'out/annotations/train.json').read_text())


@pytest.mark.parametrize('case', SEGMENTATIONS)
def test_every_segmentation(raw, case):
    segmentation, mask = SEGMENTATIONS[case]
    assert run(raw, document(segmentation)) == 0
    (entry,) = truth_of(raw)['annotations']
    assert (coco_mask.decode(polygons_to_rle(entry['segmentation'], *SIZE)) == mask).all()
    assert entry['area'] == mask.sum()
    assert truth_of(raw)['images'][0]['file_name'] == 'a.png'
    assert entry['type'] == 'cell'


BOXES = [[[x, 1, x + 2, 1, x + 2, 3, x, 3]] for x in (0, 2, 4, 6)]
THREE = ('tumour', 'immune', 'stroma')  # of the nuclei 0 and 3, 1, 2


@pytest.mark.parametrize(
    ('options', 'names', 'category_ids'),
    [
        ([], ['nucleus'], [1, 1, 1, 1]),
        (['--classes'], ['immune', 'stroma', 'tumour'], [3, 1, 2, 3]),
        (['--classes', 'tumour', 'immune'], ['tumour', 'immune'], [1, 2, 1]),
        (['--classes', 'other=immune,stroma', 'tumour'], ['other', 'tumour'], [2, 1, 1, 2]),
        (['--classes', 'nucleus=tumour'], ['nucleus'], [1, 1]),
    ],
)
def test_classes(raw, capsys, options, names, category_ids):
    assert run(raw, document(*BOXES, categories=THREE), *options) == 0
    truth = truth_of(raw)
    assert truth['categories'] == [dict(id=i, name=name) for i, name in enumerate(names, 1)]
    assert [entry['category_id'] for entry in truth['annotations']] == category_ids
    dropped = 4 - len(category_ids)
    said = capsys.readouterr().out
    count = {1: '1 nucleus', 2: '2 nuclei'}.get(dropped, 'none')
    assert (f'note: {count} of types that no class takes in' in said) == (dropped > 0)
    assert truth['annotations'][0]['type'] == 'tumour'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['tumuor'], 'no nucleus of type tumuor, the data read has immune, stroma, tumour'),
        (['a=tumour', 'b=tumour'], '--classes b=tumour: a type stands there twice'),
        (['tumour', 'tumour'], '--classes tumour: expected another NAME'),
        (['=tumour'], 'expected another NAME'),
        (['a=tumour,'], 'expected another NAME, or NAME=TYPE'),
    ],
)
def test_wrong_classes(raw, capsys, options, message):
    assert run(raw, document(*BOXES, categories=THREE), '--classes', *options) == 2
    assert message in capsys.readouterr().err
    assert not (raw.parent / 'out').exists()


def test_classes_without_types(raw, capsys):
    assert run(raw, document(*BOXES, categories=['nucleus']), '--classes') == 2
    assert 'nuclei without a type' in capsys.readouterr().err


def test_one_category_is_a_type(raw):
    assert run(raw, document(*BOXES), '--classes', 'cell') == 0
    assert truth_of(raw)['categories'] == [dict(id=1, name='cell')]


@pytest.mark.parametrize('kinds', ['pppp', 'pqpq', [1, 2, 3, 1]])
def test_a_type_that_is_none_of_nuclei_is_left_out(raw, capsys, kinds):
    content = document(*BOXES, categories=('tumor', 'other'))
    for annotation, kind in zip(content['annotations'], kinds, strict=True):
        annotation['type'] = kind
    if kinds == 'pqpq':  # one of each category would be a type of its own
        content['annotations'][2]['category_id'] = 4
    assert run(raw, content, '--classes') == 0
    names = {entry['id']: entry['name'] for entry in truth_of(raw)['categories']}
    found = [names[entry['category_id']] for entry in truth_of(raw)['annotations']]
    expected = ['tumor', 'other', 'other' if kinds == 'pqpq' else 'tumor', 'other']
    assert found == expected
    assert "4 annotations with a 'type' that is none of nuclei" in capsys.readouterr().out


def test_types_of_this_project_outrank_its_categories(raw):
    """Data that was prepared with --classes can be prepared with others."""
    assert (
        run(raw, document(*BOXES, categories=THREE), '--classes', 'all=tumour,immune,stroma') == 0
    )
    source, again = raw.parent / 'out', raw.parent / 'again'
    argv = ['coco', str(source / 'annotations/train.json'), str(again), '--images']
    assert prepare_data.main([*argv, str(source / 'train'), '--workers=1', '--classes']) == 0
    truth = json.loads((again / 'annotations/train.json').read_text())
    assert [entry['name'] for entry in truth['categories']] == ['immune', 'stroma', 'tumour']


def test_images_in_another_folder(raw, capsys):
    assert run(raw, changed('images', file_name='elsewhere/b.png')) == 2
    error = capsys.readouterr().err
    assert f'{raw}: none of the images of any.json (elsewhere/b.png), expected them' in error
    assert '--images' in error


def test_overlaps_are_kept(raw):
    wider = [[1, 1, 4, 1, 4, 3, 1, 3]]
    assert run(raw, document([[1, 1, 3, 1, 3, 3, 1, 3]], wider)) == 0
    assert [entry['area'] for entry in truth_of(raw)['annotations']] == [4, 6]


@pytest.mark.parametrize(
    'name',
    [
        *('../a.png', '/etc/a.png', 'sub/../../a.png', '', '..', r'..\a.png', 'C:/a.png'),
        *('...png', 'sub/...png', '..png'),  # '..' or '.' without the suffix
    ],
)
def test_file_name_that_leads_elsewhere(raw, capsys, name):
    content = document(BOXES[0])
    content['images'][0]['file_name'] = name
    assert run(raw, content) == 2
    assert 'expected a file in the folder' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('on_disk', 'named'),
    [
        ('my a%2.png', 'my a%2.png'),  # a file that is there is meant as it stands
        ('my \u00e4.png', 'my%20%C3%A4.png'),  # Label Studio
        ('a\u0308.png', '\u00e4.png'),  # a file from macOS
        ('\u00e4.png', 'a\u0308.png'),
        ('a\u0308 b.png', '%C3%A4%20b.png'),
    ],
)
def test_file_name_that_is_spelled_otherwise(raw, capsys, on_disk, named):
    (raw / 'sub/a.png').rename(raw / 'sub' / on_disk)
    content = document(BOXES[0])
    content['images'][0].update(file_name=f'sub/{named}', width=None, height=None)
    assert run(raw, content) == 0
    assert [image['file_name'] for image in truth_of(raw)['images']] == [on_disk]
    assert ('1 file names in percent signs' in capsys.readouterr().out) == (on_disk != named)


@pytest.mark.parametrize('name', ['%2e%2e/a.png', 'sub%00.png', 'sub/%2e%2e/%2e%2e/a.png'])
def test_percent_signs_lead_nowhere_else(raw, capsys, name):
    (raw / 'sub/a.png').rename(raw.parent / 'a.png')
    content = document(BOXES[0])
    content['images'][0]['file_name'] = name
    assert run(raw, content) == 2
    assert f'none of the images of any.json ({name})' in capsys.readouterr().err


def with_annotation(**changes):
    content = document(BOXES[0], BOXES[1])
    content['annotations'][1].update(changes)
    return content


BAD_ANNOTATIONS = {
    'crowd': (dict(iscrowd=1), 'is a crowd'),
    'no segmentation': (dict(segmentation=None), 'segmentation is None'),
    'no polygon': (dict(segmentation=[]), 'found no polygons'),
    'two points': (dict(segmentation=[[1, 1, 2, 2]]), 'expected 6 or more coordinates'),
    'far away': (dict(segmentation=[[1, 1, 1e9, 1, 1, 5]]), 'expected 6 or more coordinates'),
    'outside': (dict(segmentation=[[11, 1, 14, 1, 14, 4]]), 'no pixel inside'),
    'another size': (dict(segmentation=dict(size=[9, 9], counts=[81])), 'size [9, 9]'),
}


@pytest.mark.parametrize('case', BAD_ANNOTATIONS)
def test_bad_annotation_is_named(raw, capsys, case):
    changes, message = BAD_ANNOTATIONS[case]
    assert run(raw, with_annotation(**changes)) == 2
    error = capsys.readouterr().err
    assert 'any.json: a.png, annotation id 1' in error
    assert message in error
    assert run(raw, with_annotation(**changes), '--skip-bad') == 0
    assert len(truth_of(raw)['annotations']) == 1


def without(key):
    content = document(BOXES[0])
    del content[key]
    return content


def changed(part, **changes):
    content = document(BOXES[0])
    content[part][0].update(changes)
    return content


def doubled(part):
    content = document(BOXES[0])
    content[part] *= 2
    return content


BAD_FILES = {
    'a list': ([], 'found list, expected an object'),
    'no annotations': (without('annotations'), 'found no annotations, expected one'),
    'no category name': (changed('categories', name=None), 'category 0: name is None'),
    'category twice': (doubled('categories'), '2 categories, 1 ids'),
    'image twice': (doubled('images'), 'image 1: id 40 is taken'),
    'unknown image': (changed('annotations', image_id=41), 'image_id 41'),
    'unknown category': (changed('annotations', category_id=9), 'category_id 9'),
    'organ of a number': (changed('images', organ=5), 'image 0: organ is 5, expected str'),
    'slide of a number': (changed('images', slide=5), 'image 0: slide is 5, expected str'),
    'image of another size': (changed('images', width=11), 'expected 11 x 8 px as in any.json'),
    'no image file': (
        changed('images', file_name='b.png'),
        'none of the images of any.json (b.png)',
    ),
}


@pytest.mark.parametrize('case', BAD_FILES)
def test_bad_file_is_named(raw, capsys, case):
    content, message = BAD_FILES[case]
    assert run(raw, content) == 2
    assert message in capsys.readouterr().err


def test_two_folders_with_one_name(raw, capsys):
    assert cv2.imwrite(str(raw / 'a.png'), np.zeros((*SIZE, 3), np.uint8))
    content = document(BOXES[0])
    content['images'].append(dict(content['images'][0], id=41, file_name='a.png'))
    assert run(raw, content) == 2
    assert 'would become a.png as' in capsys.readouterr().err
    assert run(raw, content, '--skip-bad') == 2


def test_a_nucleus_that_stands_there_twice(raw, capsys):
    box, other = [[4, 4, 7, 4, 7, 6, 4, 6]], [[0, 0, 1, 0, 1, 1, 0, 1]]
    polygon = dict(size=list(SIZE), counts=COUNTS)  # the pixels of the box
    assert run(raw, document(box, other, polygon)) == 0
    assert [entry['area'] for entry in truth_of(raw)['annotations']] == [6, 1]
    assert 'sub/a.png: 1 nucleus there twice, taken once' in capsys.readouterr().out
    typed = document(box, polygon, categories=('a', 'b'))
    assert run(raw, typed, '--overwrite') == 0
    assert [entry['type'] for entry in truth_of(raw)['annotations']] == ['a', 'b']


def test_crowds_are_nuclei_where_the_user_says_so(raw, capsys):
    content = document(BOXES[0], BOXES[1])
    content['annotations'][1]['iscrowd'] = 1  # as CVAT marks what was drawn with a brush
    assert run(raw, content) == 2
    assert (
        'is a crowd, expected one nucleus, with iscrowd 0, or --crowds' in capsys.readouterr().err
    )
    assert run(raw, content, '--crowds', 'all') == 2
    assert "--crowds all: expected 'nuclei'" in capsys.readouterr().err
    assert run(raw, content, '--crowds', 'nuclei') == 0
    assert '1 annotations with iscrowd 1, each taken for a nucleus' in capsys.readouterr().out
    assert len(truth_of(raw)['annotations']) == 2
