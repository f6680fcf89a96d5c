"""What names of images from The Cancer Genome Atlas tell: the patient, and for MoNuSeg the organ.

A barcode begins with ``TCGA-<tissue source site>-<patient>-``, two and four letters or digits.
"""

import re

# Organs of the MoNuSeg training images, by tissue source site and patient of the
# TCGA barcode. Kumar et al., IEEE Trans. Med. Imaging 36 (2017), and monuseg.grand-challenge.org.
ORGANS = {
    'breast': 'A7-A13E A7-A13F AR-A1AK AR-A1AS E2-A1B5 E2-A14V',
    'kidney': 'B0-5711 HE-7128 HE-7129 HE-7130 B0-5710 B0-5698',
    'liver': '18-5592 38-6178 49-4488 50-5931 21-5784 21-5786',
    'prostate': 'G9-6336 G9-6348 G9-6356 G9-6363 CH-5767 G9-6362',
    'bladder': 'DK-A2I6 G2-A2EK',
    'colon': 'AY-A8YK NH-A8F7',
    'stomach': 'KB-A93J RD-A8N9',
}
ORGAN_OF_PATIENT = {one: organ for organ, patients in ORGANS.items() for one in patients.split()}
BARCODE = re.compile(r'TCGA-([0-9A-Z]{2}-[0-9A-Z]{4})-')


def patient_of(name: str) -> str | None:
    """Site and patient of an image by its file name, 'A7-A13E'; None for other names."""
    barcode = BARCODE.match(name)
    return barcode[1] if barcode else None


def organ_of(name: str) -> str | None:
    """The organ of an image of MoNuSeg by its file name; None for other names."""
    return ORGAN_OF_PATIENT.get(patient_of(name) or '')
