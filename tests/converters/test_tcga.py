"""What the names of images from TCGA tell."""

from collections import Counter

import pytest

from nucseg_mmdet.converters.tcga import ORGAN_OF_PATIENT, organ_of, patient_of


def test_barcodes():
    assert organ_of('TCGA-AY-A8YK-01A-01-TS1.png') == 'colon'
    assert patient_of('TCGA-AY-A8YK-01A-01-TS1.png') == 'AY-A8YK'
    assert organ_of('TCGA-ZZ-0000-01A-01-TS1.png') is None
    assert patient_of('TCGA-ZZ-0000-01A-01-TS1.png') == 'ZZ-0000'
    assert patient_of('x-TCGA-ZZ-0000-01A.png') is None


@pytest.mark.parametrize(
    'begin', ['A-A8YK-', 'AYA-A8YK-', 'AY-A8Y-', 'AY-A8YKA-', 'AY-A8YK.', 'ay-a8yk-']
)
def test_names_that_only_look_like_barcodes(begin):
    assert patient_of(f'TCGA-{begin}01A-01-TS1.png') is None


def test_organs_of_the_training_images_of_monuseg():
    # Kumar et al., IEEE Trans. Med. Imaging 36 (2017): 30 images, each of a patient of its own.
    images = dict(breast=6, kidney=6, liver=6, prostate=6, bladder=2, colon=2, stomach=2)
    assert Counter(ORGAN_OF_PATIENT.values()) == images
