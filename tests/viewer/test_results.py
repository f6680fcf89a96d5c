"""Which files a results folder has, and what is refused."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.fingerprint import signs
from nucseg_mmdet.viewer.images import open_image
from nucseg_mmdet.viewer.results import find_results
from tests.viewer.conftest import HEIGHT, MPP, NAME, WIDTH, write_results


def change(folder, **keys):
    path = folder / f'{NAME}.summary.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_slides_by_name(shared_folder):
    results, problems = find_results(shared_folder)
    assert [result.name for result in results] == [NAME, 'second']
    assert not problems
    assert (results[0].width, results[0].height, results[0].mpp) == (WIDTH, HEIGHT, MPP)
    assert results[1].outlines.name == 'second.geojson.gz'


def test_numbers_in_names_go_by_their_size(tmp_path):
    names = ['1', '02', '2', '10', 'more', 'More1', 'more2', 'more2b', 'more10']
    for name in reversed(names):
        write_results(tmp_path, name)
    assert [result.name for result in find_results(tmp_path)[0]] == names


def test_moved_slide_is_found_by_its_folder_or_file(folder):
    moved = folder / 'elsewhere' / f'{NAME}.png'
    moved.parent.mkdir()
    (folder / f'{NAME}.png').rename(moved)
    assert find_results(folder)[0][0].slide is None
    for given in (moved, moved.parent):
        assert find_results(folder, [given])[0][0].slide == moved
    with pytest.raises(UserError, match='name its folder'):
        open_image(find_results(folder)[0][0])


def test_given_slide_goes_before_the_noted_one(folder):
    other = folder / 'other' / f'{NAME}.png'
    other.parent.mkdir()
    other.write_bytes(b'')
    assert find_results(folder, [other.parent])[0][0].slide == other


def test_slides_of_other_results_are_told(folder):
    other = folder / 'other.svs'
    other.write_bytes(b'')
    (folder / 'empty').mkdir()
    results, problems = find_results(folder, [other, folder, folder / 'empty'])
    assert results[0].slide == folder / f'{NAME}.png'
    assert [line.partition(': no slide of ')[0] for line in problems] == [
        str(other),
        str(folder / 'empty'),
    ]


def test_relative_path_is_also_taken_from_the_results(folder):
    change(folder, path=f'{NAME}.png')
    assert find_results(folder)[0][0].slide == folder / f'{NAME}.png'


@pytest.mark.parametrize('gone', ['.csv', '.geojson'])
def test_parquet_stands_in_for_a_file_that_was_deleted(folder, gone):
    write_results(folder, formats=('geojson', 'csv', 'parquet'))
    (whole,), _ = find_results(folder)
    assert (whole.table.suffix, whole.outlines.suffix) == ('.csv', '.geojson')
    (folder / f'{NAME}{gone}').unlink()
    (result,), problems = find_results(folder)
    assert (result.table.suffix, result.outlines.suffix) == ('.parquet', '.parquet')
    assert not problems
    (folder / f'{NAME}.parquet').unlink()
    with pytest.raises(UserError, match='no such file, though'):
        find_results(folder)


def test_slide_of_the_same_name_and_size_but_another_is_refused(folder):
    path = folder / f'{NAME}.png'
    change(folder, identity=dict(slide=signs(path)))
    open_image(find_results(folder)[0][0])
    image = np.asarray(Image.open(path))
    Image.fromarray(image[::-1].copy()).save(path)
    with pytest.raises(UserError, match='another image, expected the one that the results are of'):
        open_image(find_results(folder)[0][0])


def test_slide_of_another_size_is_refused(folder):
    change(folder, width=WIDTH + 1)
    with pytest.raises(UserError, match=f'{WIDTH} x {HEIGHT} px, expected {WIDTH + 1} x'):
        open_image(find_results(folder)[0][0])


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('../secret.csv', 'expected a file of the same folder'),
        ('/etc/secret.csv', 'expected a file of the same folder'),
        ('sub/secret.csv', 'expected a file of the same folder'),
        ('gone.csv', 'no such file'),
        ('link.csv', 'expected a file of the same folder'),
    ],
)
def test_names_stay_in_the_folder(tmp_path, name, message):
    folder = tmp_path / 'results'
    folder.mkdir()
    write_results(folder)
    (tmp_path / 'secret.csv').write_text('id\n')
    (folder / 'link.csv').symlink_to(tmp_path / 'secret.csv')
    change(folder, files=[name, f'{NAME}.geojson'])
    with pytest.raises(UserError, match=message):
        find_results(folder)


def test_one_bad_slide_does_not_stop_the_others(folder):
    (folder / 'bad.summary.json').write_text('[]')
    (folder / 'deep.summary.json').write_text('[' * 100_000)
    results, problems = find_results(folder)
    assert [result.name for result in results] == [NAME]
    assert len(problems) == 2
    assert 'bad.summary.json: no summary' in problems[0]
    assert 'deep.summary.json: JSON nested too deep' in problems[1]


def test_summary_that_is_no_file_is_not_waited_for(folder):
    os.mkfifo(folder / 'pipe.summary.json')
    (folder / 'zeros.summary.json').symlink_to('/dev/zero')
    results, problems = find_results(folder)
    assert [result.name for result in results] == [NAME]
    assert [line.partition('.summary.json: is ')[2] for line in problems] == [
        'a pipe, expected a file',
        'a device, expected a file',
    ]


@pytest.mark.parametrize(
    ('identity', 'region'),
    [
        (dict(region=[100, 200, 300, 400]), (100, 200, 300, 400)),
        (dict(region=[0, 0, WIDTH, HEIGHT]), None),
        ({}, None),
        (None, None),
    ],
)
def test_region_is_what_a_run_has_segmented(folder, identity, region):
    change(folder, identity=identity)
    assert find_results(folder)[0][0].region == region


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        (
            dict(files=[f'{NAME}.geojson']),
            'names no CSV and GeoJSON, and no Parquet, expected',
        ),
        (dict(files=[f'{NAME}.csv']), 'names no CSV and GeoJSON'),
        (dict(width='wide'), 'no summary of a run'),
        (dict(width=0), 'expected a slide'),
        (dict(microns_per_pixel=-1), 'expected a slide'),
        (dict(microns_per_pixel=float('inf')), 'expected a slide'),
        (dict(microns_per_pixel=1e300), 'expected a slide'),
        (dict(width=float('inf')), 'no summary of a run'),
        (dict(name='../x'), 'no summary of a run'),
        (dict(name='x\0'), 'no summary of a run'),
        (dict(nuclei=float('nan')), 'no summary of a run'),
        (dict(tissue_mm2=float('inf')), 'no summary of a run'),
        (dict(classes=5), 'no summary of a run'),
        (dict(classes=[dict(name='a', color=['r', 0, 0])]), 'no summary of a run'),
        (dict(identity='x'), 'no summary of a run'),
        (dict(identity=dict(slide=[1])), 'no summary of a run'),
        (dict(qupath_corner=[1, 2, 3]), 'no summary of a run'),
        (dict(qupath_corner=[None, 0]), 'no summary of a run'),
        (dict(qupath_corner='x'), 'no summary of a run'),
        (dict(width=10**30), 'expected a slide'),
        (dict(files=5), 'no summary of a run'),
        (dict(identity=dict(region='all')), 'region is .*, expected x, y, width'),
        (dict(identity=dict(region=[0, 0, 9])), 'region is .*, expected x, y, width'),
        (dict(identity=dict(region=[0, 0, 9, 0.5])), 'region is .*, expected x, y, width'),
        (dict(identity=dict(region=[2500, 0, 101, 9])), 'region is .*, expected x, y, width'),
        (dict(identity=dict(region=[-1, 0, 9, 9])), 'region is .*, expected x, y, width'),
        (dict(identity=dict(region=[0, 0, 9, 0])), 'region is .*, expected x, y, width'),
    ],
)
def test_odd_summary_is_one_line(folder, keys, message):
    change(folder, **keys)
    with pytest.raises(UserError, match=message) as caught:
        find_results(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_folder_without_results(tmp_path):
    with pytest.raises(UserError, match='an unfinished run has none yet'):
        find_results(tmp_path)
    with pytest.raises(UserError, match='no such folder'):
        find_results(tmp_path / 'none')
    with pytest.raises(UserError, match='expected slides'):
        find_results(tmp_path, [tmp_path / 'none'])
