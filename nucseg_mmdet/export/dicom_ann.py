"""Nuclei as DICOM annotations."""

import os
import shutil
import uuid
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from nucseg_mmdet.export.writer import Writer
from nucseg_mmdet.structures.nuclei import Nuclei
from nucseg_mmdet.utils import ragged
from nucseg_mmdet.utils.errors import UserError

if TYPE_CHECKING:
    from highdicom.ann import AnnotationGroup
    from pydicom import Dataset

WHOLE_SLIDE = '1.2.840.10008.5.1.4.1.1.77.1.6'  # SOP class of a slide's image
MAX_BYTES = (1 << 32) - 2  # of an element's value
# By the end of a measurement's name.
UNITS = {
    '_um2': ('um2', 'square micrometer'),
    '_per_mm2': ('/mm2', 'per square millimeter'),
    '_um': ('um', 'micrometer'),
    '': ('1', 'no units'),
}
# What highdicom asks an image for; an anonymized one may lack some.
IDENTITY = (
    'PatientID',
    'PatientName',
    'PatientBirthDate',
    'PatientSex',
    'AccessionNumber',
    'StudyID',
    'StudyDate',
    'StudyTime',
)
UTF_8 = 'ISO_IR 192'  # as Specific Character Set
SCHEME = '99NUCSEG'  # of the measurements' codes, which no public scheme has all of


class DicomAnn(Writer):
    """Microscopy Bulk Simple Annotations: polygons in pixels of the slide, and all measurements.

    It refers to the slide's image and takes patient, study and specimen from there. For a slide
    that is no DICOM file they are made up, the same in every run: patient and container have the
    slide's name, and the image that is referred to does not exist.

    A nucleus that touches itself around a bay is one ring here: DICOM's polygons have no holes.
    What is undefined is left out of a measurement's values. Each class that has nuclei is a group,
    labeled with its name.

    Source:
        DICOM PS3.3, A.87 and C.37.1; coordinates as in C.18.6, where the top left corner of the
        top left pixel is 0, 0.
    """

    suffix = '.ann.dcm'
    nucleus_bytes = 300

    @classmethod
    def check(cls) -> None:
        try:
            import highdicom  # noqa: F401
        except ImportError:
            raise UserError('format dicom-ann needs highdicom: pip install highdicom') from None

    def _start(self) -> None:
        self.check()
        self._source = self._made_up()
        found = _read_source(self.options.source, self.target.width, self.target.height)
        if found is not None:  # an anonymized one may lack any of what is asked for
            missing = [item for item in self._source if not found.get(item.keyword)]
            found.update({item.tag: item for item in missing if item.keyword not in IDENTITY})
            self._source = found
        # Coordinates are most of it; they wait in a file.
        self._coordinates = [self._open_scratch() for _ in self.options.classes]
        self._sizes: list[list[np.ndarray]] = [[] for _ in self.options.classes]
        self._values: list[list[np.ndarray]] = [[] for _ in self.options.classes]

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        for label in np.unique(nuclei.labels).tolist():
            part = nuclei.take(nuclei.labels == label)
            points = self.target.to_slide(part.points).astype('<f4')
            self._coordinates[label].write(points.tobytes())
            self._sizes[label].append(part.sizes)
            self._values[label].append(np.column_stack([part.measurements, part.scores]))

    def _finish(self) -> None:
        import highdicom as hd

        labels = [label for label, sizes in enumerate(self._sizes) if sizes]
        files = [self._coordinates[label] for label in labels]
        size = max([0, *(file.tell() for file in files)])
        if size > MAX_BYTES:
            raise UserError(f'{self.path}: {size / 1e9:.1f} GB of vertices, DICOM takes 4.2')
        groups = [self._group(number, label) for number, label in enumerate(labels, start=1)]
        annotations = hd.ann.MicroscopyBulkSimpleAnnotations(
            source_images=[self._source],
            annotation_coordinate_type='2D',
            annotation_groups=groups,
            series_instance_uid=self._uid('series'),
            series_number=1,
            sop_instance_uid=self._uid('annotations'),
            instance_number=1,
            manufacturer='nucseg-mmdet',
            manufacturer_model_name='nucseg-mmdet',
            software_versions=_version(),
            device_serial_number='1',
            content_label='NUCLEI',
            content_description=_short_text(self.target.name),
        )
        annotations.SpecificCharacterSet = UTF_8
        _save(annotations, files, self._file)

    def _group(self, number: int, label: int) -> 'AnnotationGroup':
        """Nuclei of a class as a group whose coordinates are a mark, 16 bytes, to be replaced."""
        import highdicom as hd
        from pydicom.sr.codedict import codes

        sizes, values = np.concatenate(self._sizes[label]), np.concatenate(self._values[label])
        name, color = self.options.classes[label]
        algorithm = hd.AlgorithmIdentificationSequence(
            name='nucseg-mmdet', family=codes.DCM.ArtificialIntelligence, version=_version()
        )
        measurements = [
            _measurement(measure, column)
            for measure, column in zip((*self.names, 'score'), values.T, strict=True)
            if not np.isnan(column).all()  # without a value it can't be read
        ]
        group = hd.ann.AnnotationGroup(
            number=number,
            uid=self._uid(f'group of {name}' if self.classes else 'group'),
            label=_short_text(name) if self.classes else 'Nuclei',
            annotated_property_category=codes.SCT.AnatomicalStructure,
            annotated_property_type=hd.sr.CodedConcept('84640000', 'SCT', 'Nucleus'),
            graphic_type='POLYGON',
            graphic_data=[np.array([[0, 0], [1, 0], [1, 1]], np.float32)],
            algorithm_type='AUTOMATIC',
            algorithm_identification=algorithm,
            display_color=hd.color.CIELabColor.from_rgb(*color) if self.classes else None,
        )
        group.NumberOfAnnotations = len(sizes)
        group.PointCoordinatesData = uuid.uuid4().bytes
        # From 1, counted in numbers and not in points.
        group.LongPrimitivePointIndexList = (2 * ragged.starts(sizes) + 1).astype('<i4').tobytes()
        group.MeasurementsSequence = measurements
        return group

    def _uid(self, what: str) -> str:
        """A UID that is the same in every run for the same image and region."""
        name = f'nucseg-mmdet:{self.target.text}/{self.target.box}/{what}'
        return f'2.25.{uuid.uuid5(uuid.NAMESPACE_URL, name).int}'

    def _made_up(self) -> 'Dataset':
        """What the annotations take from an image, for a slide that is none of DICOM's."""
        from pydicom import Dataset

        image = Dataset()
        image.SOPClassUID = WHOLE_SLIDE
        image.SOPInstanceUID = self._uid('image')
        image.SeriesInstanceUID = self._uid('images')
        image.StudyInstanceUID = self._uid('study')
        image.FrameOfReferenceUID = self._uid('frame')
        image.Modality = 'SM'
        for keyword in IDENTITY:
            setattr(image, keyword, '')
        image.PatientID = image.ContainerIdentifier = _short_text(self.target.name)
        image.IssuerOfTheContainerIdentifierSequence = []
        image.ContainerTypeCodeSequence = []
        specimen = Dataset()
        specimen.SpecimenIdentifier = image.PatientID
        specimen.SpecimenUID = self._uid('specimen')
        specimen.IssuerOfTheSpecimenIdentifierSequence = []
        specimen.SpecimenPreparationSequence = []
        image.SpecimenDescriptionSequence = [specimen]
        return image


def _short_text(name: str) -> str:
    """A name as DICOM's Long String takes it: 64 characters, no control ones, no backslash."""
    return ''.join(one if one.isprintable() and one != '\\' else '_' for one in name[:64])


def _version() -> str:
    try:
        return version('nucseg-mmdet')
    except PackageNotFoundError:  # in a checkout
        return 'checkout'


def _measurement(name: str, values: np.ndarray) -> 'Dataset':
    import highdicom as hd

    ending = next(ending for ending in UNITS if name.endswith(ending))
    unit = hd.sr.CodedConcept(UNITS[ending][0], 'UCUM', UNITS[ending][1])
    # A code may have 16 characters.
    code = hd.sr.CodedConcept(name.replace('_', '').upper()[:16], SCHEME, name)
    return hd.ann.Measurements(code, values.astype(np.float32), unit)


def _read_source(path: Path | None, width: int, height: int) -> 'Dataset | None':
    """The header of a slide's full-resolution image, if the slide is DICOM.

    Args:
        path: of any file of the slide.
        width: of the full resolution, px.
        height: likewise.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    if path is None or path.suffix.lower() != '.dcm':
        return None
    series = None
    for other in [path, *sorted(path.parent.glob('*'))]:
        if other.suffix.lower() != '.dcm':
            continue
        try:
            image = pydicom.dcmread(other, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        series = series or image.get('SeriesInstanceUID')  # of the path, which comes first
        size = image.get('TotalPixelMatrixColumns'), image.get('TotalPixelMatrixRows')
        if image.get('SeriesInstanceUID') == series and size == (width, height):
            for keyword in IDENTITY:
                image.setdefault(keyword, '')
            image.setdefault('FrameOfReferenceUID', series)
            return image
    raise UserError(f'{path}: none of its series has {width} x {height} px, expected one')


def _save(annotations: 'Dataset', coordinates: Sequence[BinaryIO], file: BinaryIO) -> None:
    """Write annotations whose coordinates are in a file: they are never in memory together.

    Args:
        annotations: with 16 bytes in place of the coordinates of each group.
        coordinates: a file for each group.
        file: to write to.
    """
    # Of undefined length, so that no length around the coordinates has to be known.
    annotations['AnnotationGroupSequence'].is_undefined_length = bool(coordinates)
    for group in annotations.AnnotationGroupSequence:
        group.is_undefined_length_sequence_item = True
    buffer = BytesIO()
    annotations.save_as(buffer, enforce_file_format=True)
    rest = buffer.getvalue()
    for group, points in zip(annotations.AnnotationGroupSequence, coordinates, strict=True):
        before, rest = rest.split(group.PointCoordinatesData)
        file.write(before[:-4])
        file.write(np.array(points.tell(), '<u4').tobytes())
        points.seek(os.SEEK_SET)
        shutil.copyfileobj(points, file)
    file.write(rest)
