"""The formats that nuclei are written in, several at a time."""

from collections.abc import Sequence
from pathlib import Path

from nucseg_mmdet.export.coco_results import CocoResults
from nucseg_mmdet.export.dicom_ann import DicomAnn
from nucseg_mmdet.export.geojson import GeoJson
from nucseg_mmdet.export.label_image import LabelImage
from nucseg_mmdet.export.ome_zarr import OmeZarr
from nucseg_mmdet.export.overlay import Overlay
from nucseg_mmdet.export.spatialdata import SpatialData
from nucseg_mmdet.export.tables import Csv, Parquet
from nucseg_mmdet.export.writer import Options, Target, Writer
from nucseg_mmdet.structures.nuclei import Nuclei
from nucseg_mmdet.utils.errors import UserError

FORMATS: dict[str, type[Writer]] = {
    'geojson': GeoJson,
    'csv': Csv,
    'parquet': Parquet,
    'label': LabelImage,
    'coco': CocoResults,
    'overlay': Overlay,
    'spatialdata': SpatialData,
    'ome-zarr': OmeZarr,
    'dicom-ann': DicomAnn,
}


class Writers:
    """Several writers as one. As a context manager it closes them, or aborts at an exception.

    Attributes:
        paths: the files that ``close`` leaves.
    """

    def __init__(self, writers: Sequence[Writer]) -> None:
        self._writers, self._finished = writers, False
        self.paths = [writer.path for writer in writers]

    def write(self, nuclei: Nuclei) -> None:
        """Add nuclei to every file; they are numbered from 1 in the order of all calls.

        Raises:
            UserError: a file cannot be written, such as on a full disk.
        """
        for writer in self._writers:
            writer.write(nuclei)

    def finish(self) -> dict[str, Path]:
        """Complete all files, beside their places.

        Returns:
            Where they are until ``close``, by the names that they will have.

        Raises:
            UserError: a file cannot be written.
        """
        for writer in self._writers:
            writer.finish()
        self._finished = True
        return {writer.path.name: writer.partial for writer in self._writers}

    def close(self) -> None:
        """Complete all files, then move all into place; none if one of them fails.

        Raises:
            UserError: a file cannot be written.
        """
        try:
            if not self._finished:
                self.finish()
            for writer in self._writers:
                writer.publish()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Leave nothing of what is not in place yet."""
        for writer in self._writers:
            writer.abort()

    def __enter__(self) -> 'Writers':
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def obstacles(formats: Sequence[str], target: Target) -> dict[str, str]:
    """Which formats cannot be written for a target, and why."""
    reasons = {name: FORMATS[name].obstacle(target) for name in formats}
    return {name: reason for name, reason in reasons.items() if reason}


def open_writers(
    formats: Sequence[str], out_dir: Path, target: Target, options: Options | None = None
) -> Writers:
    """Open ``<out_dir>/<target.name><suffix>`` for each format that has no obstacle.

    Args:
        formats: keys of ``FORMATS``.
        out_dir: made if it is not there.
        target: what the nuclei belong to.
        options: how to write.

    Raises:
        UserError: a format is unknown, a package for it is missing, or a file cannot be
            written. No file is left then.
    """
    options = options or Options()
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UserError(f'format {unknown[0]}: unknown, expected one of {", ".join(FORMATS)}')
    possible = [name for name in formats if name not in obstacles(formats, target)]
    writers = []
    try:
        for name in dict.fromkeys(possible):
            writers.append(FORMATS[name](out_dir, target, options))
    except BaseException:
        Writers(writers).abort()
        raise
    return Writers(writers)
