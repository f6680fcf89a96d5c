"""DICOM annotations, read back by highdicom."""

import sys

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from nucseg_mmdet.export import dicom_ann
from nucseg_mmdet.export.writer import Target
from nucseg_mmdet.structures.nuclei import EMPTY, MEASUREMENTS
from nucseg_mmdet.utils.errors import UserError
from tests.export.helpers import BAY, ONE, PLAIN, REGION, halves, nuclei_of, ovals, write


def read(path):
    annotations = hd.ann.annread(path)
    assert annotations.SOPClassUID == '1.2.840.10008.5.1.4.1.1.91.1'
    return annotations


def test_one_nucleus_by_hand(tmp_path):
    (path,) = write(tmp_path, ['dicom-ann'], REGION, ONE)
    assert path == tmp_path / 'slide 1.ann.dcm'
    annotations = read(path)
    assert annotations.AnnotationCoordinateType == '2D'
    assert annotations.PixelOriginInterpretation == 'VOLUME'
    assert annotations.PatientID == annotations.ContainerIdentifier == 'slide 1'
    (group,) = annotations.get_annotation_groups()
    assert group.label == 'Nuclei'
    assert group.graphic_type == hd.ann.GraphicTypeValues.POLYGON
    assert group.annotated_property_type.meaning == 'Nucleus'
    assert group.algorithm_type == hd.ann.AnnotationGroupGenerationTypeValues.AUTOMATIC
    (ring,) = group.get_graphic_data(coordinate_type='2D')
    x0, y0, x1, y1 = 100 + 2 / 2, 40 + 1 / 2, 100 + 5 / 2, 40 + 3 / 2
    assert ring.tolist() == [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    names, values, units = group.get_measurements()
    defined = [name for name in MEASUREMENTS if name != 'circularity']
    assert [name.meaning for name in names] == [*defined, 'score']
    assert [unit.value for unit in units] == ['um2', 'um', 'um', 'um', '1', '1', '1', '1', '1']
    expected = [6, 10, 3, 2, 0.5, 1, 0.25, -0.125, 0.75]
    np.testing.assert_array_equal(values, [expected])


def test_many_nuclei(tmp_path):
    masks = [*ovals(50, 70, 90), np.pad(BAY, 3)]
    nuclei = nuclei_of(masks)
    nuclei.measurements[::3, 2] = np.nan
    target = PLAIN._replace(scale=1.37)
    (path,) = write(tmp_path, ['dicom-ann'], target, *halves(nuclei))
    (group,) = read(path).get_annotation_groups()
    assert group.number_of_annotations == 51
    rings = group.get_graphic_data(coordinate_type='2D')
    expected = np.split(nuclei.points * 1.37, np.cumsum(nuclei.sizes)[:-1])
    for ring, points in zip(rings, expected, strict=True):
        np.testing.assert_allclose(ring, points, rtol=1e-7)  # float32
    _, values, _ = group.get_measurements()
    np.testing.assert_array_equal(values, np.column_stack([nuclei.measurements, nuclei.scores]))


def test_highdicom_would_write_the_same(tmp_path):
    """The file is made in parts; highdicom's own writing of the same group is the reference."""
    nuclei = nuclei_of(ovals(9, 70, 90))
    (path,) = write(tmp_path, ['dicom-ann'], PLAIN, nuclei)
    (group,) = read(path).get_annotation_groups()
    names, values, units = group.get_measurements()
    reference = hd.ann.AnnotationGroup(
        number=1,
        uid=group.uid,
        label=group.label,
        annotated_property_category=group.annotated_property_category,
        annotated_property_type=group.annotated_property_type,
        graphic_type=group.graphic_type,
        graphic_data=np.split(nuclei.points.astype(np.float32), np.cumsum(nuclei.sizes)[:-1]),
        algorithm_type=group.algorithm_type,
        algorithm_identification=group.AnnotationGroupAlgorithmIdentificationSequence,
        measurements=[
            hd.ann.Measurements(name, column, unit)
            for name, column, unit in zip(names, values.T, units, strict=True)
        ],
    )
    assert {element.tag: element.value for element in group} == {
        element.tag: element.value for element in reference
    }


def slide_image(width, height, series):
    image = pydicom.Dataset()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = dicom_ann.WHOLE_SLIDE, generate_uid()
    image.SeriesInstanceUID, image.StudyInstanceUID = series, generate_uid()
    image.FrameOfReferenceUID = generate_uid()
    image.Modality, image.PatientID, image.PatientName = 'SM', 'P7', 'Doe^Jane'
    image.PatientBirthDate, image.PatientSex = '19700102', 'F'
    image.AccessionNumber, image.StudyID = 'A1', 'S1'
    image.StudyDate, image.StudyTime = '20260101', '120000'
    image.ContainerIdentifier = 'C1'
    image.IssuerOfTheContainerIdentifierSequence = []
    image.ContainerTypeCodeSequence = []
    specimen = pydicom.Dataset()
    specimen.SpecimenIdentifier, specimen.SpecimenUID = 'B1', generate_uid()
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    specimen.SpecimenPreparationSequence = []
    image.SpecimenDescriptionSequence = [specimen]
    image.TotalPixelMatrixColumns, image.TotalPixelMatrixRows = width, height
    return image


def test_a_dicom_slide_lends_its_identity(tmp_path):
    series = generate_uid()
    images = {
        'a_small': slide_image(45, 35, series),
        'b_full': slide_image(90, 70, series),
        'c_other': slide_image(90, 70, generate_uid()),
    }
    for name, image in images.items():
        image.save_as(tmp_path / f'{name}.dcm', enforce_file_format=True)
    (tmp_path / 'a_damaged.dcm').write_bytes(b'no DICOM')
    out = tmp_path / 'out'
    (path,) = write(out, ['dicom-ann'], PLAIN, ONE, source=tmp_path / 'a_small.dcm')
    annotations = read(path)
    (reference,) = annotations.ReferencedImageSequence
    assert reference.ReferencedSOPInstanceUID == images['b_full'].SOPInstanceUID
    assert annotations.StudyInstanceUID == images['b_full'].StudyInstanceUID
    assert (annotations.PatientID, annotations.PatientName) == ('P7', 'Doe^Jane')
    assert annotations.SpecimenDescriptionSequence[0].SpecimenIdentifier == 'B1'
    wrong = Target('image', 91, 70, scale=1.0, mpp=0.25)
    with pytest.raises(UserError, match='none of its series has 91 x 70 px'):
        write(out / 'b', ['csv', 'dicom-ann'], wrong, ONE, source=tmp_path / 'a_small.dcm')
    assert not list((out / 'b').iterdir())


def test_an_anonymized_slide_may_lack_names(tmp_path):
    image = slide_image(90, 70, generate_uid())
    for keyword in ('PatientName', 'PatientBirthDate', 'StudyID', 'FrameOfReferenceUID'):
        del image[keyword]
    image.save_as(tmp_path / 'a.dcm', enforce_file_format=True)
    (path,) = write(tmp_path / 'out', ['dicom-ann'], PLAIN, ONE, source=tmp_path / 'a.dcm')
    annotations = read(path)
    assert annotations.StudyInstanceUID == image.StudyInstanceUID
    assert annotations.PatientID == 'P7'


@pytest.mark.parametrize(
    'keyword',
    [
        'StudyInstanceUID',
        'FrameOfReferenceUID',
        'ContainerIdentifier',
        'IssuerOfTheContainerIdentifierSequence',
        'ContainerTypeCodeSequence',
        'SpecimenDescriptionSequence',
        'Modality',
    ],
)
@pytest.mark.parametrize('empty', [False, True])
def test_what_a_slide_lacks_is_made_up(tmp_path, keyword, empty):
    image = slide_image(90, 70, generate_uid())
    if empty:
        setattr(image, keyword, [] if keyword.endswith('Sequence') else '')
    else:
        del image[keyword]
    image.save_as(tmp_path / 'a.dcm', enforce_file_format=True)
    (path,) = write(tmp_path / 'out', ['dicom-ann'], PLAIN, ONE, source=tmp_path / 'a.dcm')
    annotations = read(path)
    assert annotations.StudyInstanceUID
    assert annotations.ReferencedImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('back\\slash', 'back_slash'),
        ('lat\udce4in', 'lat_in'),
        ('emoji \U0001f600', 'emoji \U0001f600'),
        ('two\nlines' * 9, ('two_lines' * 9)[:64]),
    ],
)
def test_any_name_of_a_file_will_do(tmp_path, name, text):
    (path,) = write(tmp_path, ['dicom-ann'], PLAIN._replace(name=name), ONE)
    annotations = read(path)
    assert annotations.PatientID == annotations.ContainerIdentifier == text
    assert annotations.SpecimenDescriptionSequence[0].SpecimenIdentifier == text
    assert annotations.ContentDescription == text


def test_uids_are_the_same_in_every_run_and_differ_between_regions(tmp_path):
    paths = [
        write(tmp_path / name, ['dicom-ann'], target, ONE)[0]
        for name, target in (('a', REGION), ('b', REGION), ('c', REGION._replace(region=None)))
    ]
    first, again, other = (read(path).SOPInstanceUID for path in paths)
    assert first == again != other
    assert all(pydicom.uid.UID(uid).is_valid for uid in (first, other))


def test_no_nuclei(tmp_path):
    (path,) = write(tmp_path, ['dicom-ann'], PLAIN, EMPTY)
    assert len(pydicom.dcmread(path).AnnotationGroupSequence) == 0


def test_highdicom_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'highdicom', None)
    with pytest.raises(UserError, match='format dicom-ann needs highdicom'):
        write(tmp_path, ['dicom-ann'], PLAIN, ONE)
    assert not list(tmp_path.iterdir())
