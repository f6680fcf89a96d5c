"""What the names of images from TCGA tell."""

from nucseg_mmdet.converters.tcga import organ_of, patient_of


def test_barcodes():
    assert organ_of('TCGA-AY-A8YK-01A-01-TS1.png') == 'colon'
    assert patient_of('TCGA-AY-A8YK-01A-01-TS1.png') == 'AY-A8YK'
    assert organ_of('TCGA-ZZ-0000-01A-01-TS1.png') is None
    assert patient_of('TCGA-ZZ-0000-01A-01-TS1.png') == 'ZZ-0000'
    assert patient_of('x-TCGA-ZZ-0000-01A.png') is None
