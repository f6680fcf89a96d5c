"""Slides of several files: a change of any of them is one of the slide."""

import gc
import os
import warnings

import numpy as np
import pytest
import tifffile
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from nucseg_mmdet.slides import open as opening
from nucseg_mmdet.slides.base import ArraySlide
from nucseg_mmdet.slides.parts import further_files, slide_signs
from nucseg_mmdet.utils.fingerprint import signs


def write_dicom(path, series, content=b'1234'):
    """A file of a series."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = '1.2.840.10008.5.1.4.1.1.77.1.6', f'1.2.3.{series}'
    data.StudyInstanceUID, data.SeriesInstanceUID = '1.2.3', f'1.2.3.{series}'
    data.add_new('PixelData', 'OB', content)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


@pytest.fixture(params=['dicom', 'mrxs'])
def slide(request, tmp_path):
    """The path of a slide, and its second file."""
    if request.param == 'dicom':
        write_dicom(tmp_path / 'a.dcm', 1)
        write_dicom(tmp_path / 'b', 1)
        return tmp_path / 'a.dcm', tmp_path / 'b'
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a.mrxs').write_text('label')
    (tmp_path / 'a/Data0001.dat').write_text('1234')
    return tmp_path / 'a.mrxs', tmp_path / 'a/Data0001.dat'


def change(path):
    """Another content of the same size and time."""
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(content.replace(b'1234', b'1243'))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_all_files_are_signed(slide):
    path, other = slide
    assert further_files(path) == [other]
    before = slide_signs(path)
    assert slide_signs(path) == before
    assert before.items() > signs(path).items()
    change(other)
    after = slide_signs(path)
    assert signs(path).items() < after.items()
    assert after != before
    other.unlink()
    assert slide_signs(path) == signs(path)


def test_files_of_other_slides_are_not(tmp_path):
    write_dicom(tmp_path / 'a.dcm', 1)
    write_dicom(tmp_path / 'b.dcm', 20)
    (tmp_path / 'c.svs').touch()
    (tmp_path / 'd.svs').touch()
    os.mkfifo(tmp_path / 'pipe')
    assert further_files(tmp_path / 'a.dcm') == further_files(tmp_path / 'c.svs') == []


def test_a_shared_slide_is_opened_anew_when_another_file_of_it_changes(slide, monkeypatch):
    path, other = slide
    pixel = np.zeros((1, 1, 3), np.uint8)
    monkeypatch.setattr(opening, 'open_slide', lambda *_: ArraySlide(pixel))
    before = opening.open_shared(path)
    assert opening.open_shared(path) is before
    os.utime(other, (1, 1))
    assert opening.open_shared(path) is not before


def test_a_shared_slide_is_closed_when_its_last_reader_has_dropped_it(tmp_path):
    """Not before, though others have taken its place among those that stay open."""
    image = np.zeros((32, 32, 3), np.uint8)
    paths = [tmp_path / f'{number}.tif' for number in range(opening.SHARED + 1)]
    for path in paths:
        tifffile.imwrite(path, image, tile=(16, 16), compression='zlib', photometric='rgb')
    first = opening.open_shared(paths[0])
    for path in paths[1:]:
        opening.open_shared(path)
    np.testing.assert_array_equal(first.read(0, 0, 32, 32), image)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        del first
        gc.collect()
    assert [str(warning.message) for warning in told if '0.tif' in str(warning.message)] == []
