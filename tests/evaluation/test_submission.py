"""What the competition takes, and what must never be written."""

import copy
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nucseg_mmdet.evaluation import submission
from nucseg_mmdet.utils.errors import UserError

IMAGES = {3: (2, 2), 1: (2, 2)}  # height, width by id; the order is the file's
GOOD = dict(
    image_id=1,
    bbox=[0.0, 0.0, 2.0, 1.0],
    score=0.5,
    category_id=1,
    # Column-major: 1 background, 1 foreground, 2 background pixels.
    segmentation=dict(size=[2, 2], counts='112'),
)


def changed(**changes):
    return {**copy.deepcopy(GOOD), **changes}


def test_good_result():
    assert submission.find_problems([GOOD], IMAGES) == []


BAD = [
    (dict(image_id=2), 'image_id 2'),
    (dict(image_id=[1]), r'image_id \[1\]'),
    (dict(image_id=True), 'image_id True'),
    (dict(category_id=0), 'category_id 0'),
    (dict(category_id=True), 'category_id True'),
    (dict(category_id=1.0), 'category_id 1.0'),
    (dict(segmentation=dict(size=[2, 2.0], counts='112')), r'not an RLE of size \[2, 2\]'),
    (dict(score=float('nan')), 'score nan'),
    (dict(score=1.5), 'score 1.5'),
    (dict(score=-0.1), 'score -0.1'),
    (dict(score=True), 'score True'),
    (dict(score=None), 'score None'),
    (dict(score=10**400), 'score 1000'),
    (dict(bbox=[0, 0, 3, 1]), 'expected inside the image'),
    (dict(bbox=[-1, 0, 1, 1]), 'expected inside the image'),
    (dict(bbox=[0, -0.02, 1, 1]), 'expected inside the image'),
    (dict(bbox=[0, 1, 1, 1.02]), 'expected inside the image'),
    (dict(bbox=[1, 0, -1, 1]), 'expected inside the image'),
    (dict(bbox=[0, 0, 1, -1]), 'expected inside the image'),
    (dict(bbox=[0, 0, 2.02, 1]), 'expected inside the image'),
    (dict(segmentation=[[0, 0, 1, 0, 1, 1]]), r'not an RLE of size \[2, 2\]'),
    (dict(bbox=[0, 0, float('inf'), 1]), 'four finite numbers'),
    (dict(bbox=[10**400, 0, 0.5, 1]), 'four finite numbers'),
    (dict(bbox=[0, 0, 1]), 'four finite numbers'),
    (dict(bbox=[0, 0, 1, 1, 1]), 'four finite numbers'),
    (dict(bbox=None), 'four finite numbers'),
    (dict(segmentation=dict(size=[2, 3], counts='112')), r'not an RLE of size \[2, 2\]'),
    (dict(segmentation=dict(size=2, counts='112')), r'not an RLE of size \[2, 2\]'),
    (dict(segmentation=dict(size=[2, 2], counts=[1, 1, 2])), 'counts are no text'),
    (dict(segmentation=dict(size=[2, 2], counts='113')), 'RLE'),  # 5 pixels
    (dict(segmentation=dict(size=[2, 2], counts='\x7f')), 'RLE'),
    (dict(extra=1), 'keys'),
]


@pytest.mark.parametrize(('changes', 'message'), BAD)
def test_bad_result_is_found(tmp_path, changes, message):
    problems = submission.find_problems([GOOD, changed(**changes)], IMAGES)
    assert len(problems) == 1
    with pytest.raises(UserError, match=message):
        submission.write([changed(**changes)], {**IMAGES}, tmp_path / 'answer.json')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('key', GOOD)
def test_result_that_lacks_a_key(key):
    result = changed()
    del result[key]
    (problem,) = submission.find_problems([GOOD, result], IMAGES)
    assert problem.startswith(f'result 1: keys {sorted(result)}, expected')


@pytest.mark.parametrize(
    'changes', [dict(score=0), dict(score=1), dict(bbox=[-0.005, 0, 2.01, 2.005])]
)
def test_result_at_the_limits(changes):
    assert submission.find_problems([changed(**changes)], IMAGES) == []


def test_image_that_is_higher_than_wide():
    images = {1: (3, 2)}
    segmentation = dict(size=[3, 2], counts='114')
    high = changed(bbox=[0, 0, 2, 3], segmentation=segmentation)
    assert submission.find_problems([high], images) == []
    (problem,) = submission.find_problems([high | dict(bbox=[0, 0, 3, 2])], images)
    assert problem == 'result 0: bbox [0, 0, 3, 2], expected inside the image of 2 x 3 px'
    wide = high | dict(segmentation=dict(size=[2, 3], counts='114'))
    (problem,) = submission.find_problems([wide], images)
    assert problem == 'result 0: segmentation not an RLE of size [3, 2]'


@pytest.mark.parametrize(
    ('result', 'message'), [(1, 'int, expected an object'), (None, 'NoneType'), ([], 'list')]
)
def test_result_that_is_no_object(result, message):
    (problem,) = submission.find_problems([result], IMAGES)
    assert problem.startswith(f'result 0: {message}')


@pytest.mark.parametrize(
    'images',
    [
        [],
        [dict(id=1, height=2, width=2)] * 2,
        [dict(id=1, height=0, width=2)],
        [dict(id=1, height=-2, width=-2)],
    ],
)
def test_images_that_are_none(tmp_path, images):
    (tmp_path / 'test.json').write_text(json.dumps(images))
    with pytest.raises(UserError, match=r'test\.json: no images, two of one id'):
        submission.read_images(tmp_path / 'test.json')


@pytest.mark.parametrize(
    'images',
    [
        *(dict(), 1, [1], [dict(id=1, height=2)]),
        *([dict(id=key, height=2, width=2)] for key in (1.0, True)),
    ],
)
def test_no_list_of_images(tmp_path, images):
    (tmp_path / 'test.json').write_text(json.dumps(images))
    with pytest.raises(UserError, match=r'test\.json: no list of images with id, height, width'):
        submission.read_images(tmp_path / 'test.json')


def test_images_of_a_coco_file(tmp_path):
    content = dict(images=[dict(id=7, height=3, width=2), dict(id=5, height=1, width=1)])
    (tmp_path / 'test.json').write_text(json.dumps(content))
    assert list(submission.read_images(tmp_path / 'test.json').items()) == [
        (7, (3, 2)),
        (5, (1, 1)),
    ]


def test_order_by_image_then_score():
    low, high, first = changed(score=0.1), changed(score=0.9), changed(image_id=3, score=0.2)
    assert submission.ordered([low, high, first], IMAGES) == [first, high, low]
    assert submission.find_disorder([first, high, low], IMAGES) == []
    assert 'out of order' in submission.find_disorder([low, high], IMAGES)[0]
    assert 'out of order' in submission.find_disorder([high, first], IMAGES)[0]


def test_written_files(tmp_path):
    path = tmp_path / 'new' / 'mine.json'
    submission.write([GOOD, changed(image_id=3)], IMAGES, path)
    assert [result['image_id'] for result in json.loads(path.read_text())] == [3, 1]
    with zipfile.ZipFile(path.with_suffix('.zip')) as archive:
        assert archive.namelist() == ['answer.json']
        assert archive.read('answer.json').decode() == path.read_text()
    assert sorted(file.name for file in path.parent.iterdir()) == ['mine.json', 'mine.zip']


KILLED = """
import os, sys
from pathlib import Path
from nucseg_mmdet.evaluation import submission

left = int(sys.argv[2])

def watch(event, arguments):
    global left
    if event in ('os.rename', 'os.remove'):
        left -= 1
        if left < 0:
            os._exit(9)

good = dict(image_id=1, bbox=[0, 0, 2, 1], score=0.9, category_id=1,
            segmentation=dict(size=[2, 2], counts='112'))
sys.addaudithook(watch)
submission.write([good], {1: (2, 2)}, Path(sys.argv[1]))
"""


@pytest.mark.parametrize('steps', [0, 1, 2, 9])
def test_killed_between_its_files(tmp_path, steps):
    """At no time an older answer.zip stands beside a newer answer.json."""
    path = tmp_path / 'answer.json'
    submission.write([GOOD], IMAGES, path)
    before = path.read_text()
    command = [sys.executable, '-c', KILLED, str(path), str(steps)]
    env = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
    ended = subprocess.run(command, env=env, check=False)
    assert ended.returncode == (0 if steps == 9 else 9)  # one removal and two renamings
    content = path.read_text()
    assert (content == before) == (steps < 2)
    assert json.loads(content)[0]['score'] == (0.5 if steps < 2 else 0.9)
    zipped = path.with_suffix('.zip')
    assert zipped.exists() == (steps in (0, 9))
    if zipped.exists():
        assert zipfile.ZipFile(zipped).read('answer.json').decode() == content


def test_no_place_to_write(tmp_path):
    (tmp_path / 'answer.json').mkdir()
    with pytest.raises(UserError, match=r'answer\.json: cannot be written'):
        submission.write([GOOD], IMAGES, tmp_path / 'answer.json')
    assert [file.name for file in tmp_path.iterdir()] == ['answer.json']
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='file: no folder for results'):
        submission.write([GOOD], IMAGES, tmp_path / 'file' / 'answer.json')


def test_command_checks_a_file(tmp_path, capsys):
    listing = tmp_path / 'test_img_ids.json'
    listing.write_text(json.dumps([dict(id=i, height=h, width=w) for i, (h, w) in IMAGES.items()]))
    submission.write([GOOD], IMAGES, tmp_path / 'answer.json')
    assert submission.main([str(tmp_path / 'answer.zip'), str(listing)]) == 0
    assert 'no result for image 3' in capsys.readouterr().out
    (tmp_path / 'answer.json').write_text(json.dumps([changed(score=2)]))
    assert submission.main([str(tmp_path / 'answer.json'), str(listing)]) == 2
    assert capsys.readouterr().err.endswith('answer.json: result 0: score 2, expected 0 to 1\n')
    (tmp_path / 'answer.json').write_text(json.dumps([changed(score=2)] * 3))
    assert submission.main([str(tmp_path / 'answer.json'), str(listing)]) == 2
    assert capsys.readouterr().err.endswith('expected 0 to 1, and 2 more\n')
    (tmp_path / 'answer.json').write_text(json.dumps([GOOD, changed(image_id=3)]))
    assert submission.main([str(tmp_path / 'answer.json'), str(listing)]) == 2
    assert 'answer.json: results out of order' in capsys.readouterr().err
    submission.write([changed(image_id=3), GOOD], IMAGES, tmp_path / 'answer.json')
    assert submission.main([str(tmp_path / 'answer.json'), str(listing)]) == 0
    assert capsys.readouterr().out.endswith('2 results for 2 images, all good\n')


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('a.json', '{}', 'dict, expected a list'),
        ('a.json', 'x', 'no valid JSON'),
        ('a.zip', 'x', 'damaged archive'),
    ],
)
def test_not_a_result_file(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        submission.read_results(path)
