"""Images dealt over the folds: no slide is on both sides of one, where slides are enough."""

from pathlib import Path

import numpy as np
import pytest

from nucseg_mmdet.converters.base import ImageFile
from nucseg_mmdet.converters.folds import NUM_FOLDS, deal_folds, fold_notes

PATIENTS = ('5P-A9K0', 'AA-0001', 'B9-A44B', 'ZZ-1111')


def images_of(sizes):
    """So many images of each slide, ids from 1 on; the names tell nothing of the slide."""
    slides = np.repeat(np.arange(len(sizes)), sizes)
    return [
        ImageFile(Path('x'), 1, 1, id=index, name=f'{index:03}.png', slide=f'{slide}.svs')
        for index, slide in enumerate(slides, start=1)
    ]


def dealt_in_turn(images):
    """Sorted by organ and name, then one to each fold in turn."""
    ordered = sorted(images, key=lambda image: (image.organ or '', image.name))
    return [{image.id for image in ordered[fold::NUM_FOLDS]} for fold in range(NUM_FOLDS)]


def test_images_without_a_slide_by_hand():
    names = ['f', 'b', 'd', 'a', 'c', 'e']
    organs = ['liver', 'liver', None, 'colon', 'colon', 'colon']
    images = [
        ImageFile(Path(name), 1, 1, id=index, organ=organ)
        for index, (name, organ) in enumerate(zip(names, organs, strict=True), start=1)
    ]
    # In order d, then a, c, e of the colon, then b, f of the liver.
    assert deal_folds(images) == [{3, 2}, {4, 1}, {5}, {6}]
    assert fold_notes(images) == []


@pytest.mark.parametrize('own_slides', [False, True])
def test_images_that_are_each_their_own_are_dealt_in_turn(own_slides):
    rng = np.random.default_rng(0)
    for many in range(4, 40):
        images = [
            ImageFile(Path(f'{name}.png'), 1, 1, id=index, organ=rng.choice(['a', 'b', None]))
            for index, name in enumerate(rng.permutation(many), start=1)
        ]
        for image in images:
            image.slide = image.name if own_slides else None
        assert deal_folds(images) == dealt_in_turn(images)
        assert fold_notes(images) == []


def test_slides_by_hand():
    # Slides of ids 1, 2-4, 5-9, 10-13, 14-16: those of 5, 4, 3 and 3 images to a fold each, then
    # that of one image to the first fold of three.
    folds = deal_folds(images_of([1, 3, 5, 4, 3]))
    assert folds == [{5, 6, 7, 8, 9}, {10, 11, 12, 13}, {1, 2, 3, 4}, {14, 15, 16}]


def test_no_slide_is_on_both_sides_of_a_fold():
    rng = np.random.default_rng(0)
    for _ in range(50):
        images = images_of(rng.integers(1, 9, rng.integers(4, 12)))
        slide_of = {image.id: image.slide for image in images}
        folds = deal_folds(images)
        assert len(folds) == NUM_FOLDS
        assert sorted(number for fold in folds for number in fold) == sorted(slide_of)
        for fold in folds:
            assert fold
            held_out = {slide_of[number] for number in fold}
            assert not held_out & {slide_of[number] for number in slide_of.keys() - fold}
        assert fold_notes(images) == []


def test_as_many_images_of_each_slide_make_equal_folds():
    assert [len(fold) for fold in deal_folds(images_of([3] * 8))] == [6] * 4


def test_a_fold_of_most_images_is_not_the_one_held_out_by_default():
    assert deal_folds(images_of([6, 1, 2, 1])) == [{8, 9}, {7}, {10}, {1, 2, 3, 4, 5, 6}]


def test_fewer_slides_than_folds():
    images = images_of([2, 3, 1])
    assert deal_folds(images) == dealt_in_turn(images) == [{1, 5}, {2, 6}, {3}, {4}]
    assert fold_notes(images) == [
        'fewer slides (3) than folds (4): held-out images are of slides that are trained on as '
        'well, so their scores tell nothing of other slides'
    ]


def test_fewer_images_than_folds():
    images = images_of([2, 1])
    assert deal_folds(images) == []
    assert fold_notes(images) == ['no folds: 3 training images, 4 are needed to hold some out']


def test_images_of_a_patient_stay_together():
    """As in MoNuSAC, which has several images of each slide of TCGA."""
    names = [
        f'TCGA-{patient}-01Z-00-DX{number}_{number}.tif'
        for patient in PATIENTS
        for number in (1, 2)
    ]
    images = [ImageFile(Path(name), 1, 1, id=index) for index, name in enumerate(names, start=1)]
    assert deal_folds(images) == [{1, 2}, {3, 4}, {5, 6}, {7, 8}]
    of_slides = [
        ImageFile(Path(name), 1, 1, id=index, slide=name)
        for index, name in enumerate(names, start=1)
    ]
    assert deal_folds(of_slides) == deal_folds(images)


def test_slides_of_few_patients_stay_together():
    names = [f'TCGA-5P-A9K0-01Z-00-DX{slide}_x{x}.png' for slide in range(1, 5) for x in (0, 9)]
    images = [
        ImageFile(Path(name), 1, 1, id=index, slide=name[:23])
        for index, name in enumerate(names, start=1)
    ]
    assert deal_folds(images) == [{1, 2}, {3, 4}, {5, 6}, {7, 8}]
    assert fold_notes(images) == [
        'fewer patients (1) than folds (4): held-out images are of patients that are trained on as '
        'well, so their scores tell nothing of other patients'
    ]
