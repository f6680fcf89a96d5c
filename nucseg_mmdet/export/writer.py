"""What all writers share: the frame of the slide, and files written beside and renamed."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from nucseg_mmdet.structures.classes import ONE_CLASS, NucleusClass
from nucseg_mmdet.structures.nuclei import MEASUREMENTS, Nuclei
from nucseg_mmdet.utils import files
from nucseg_mmdet.utils.errors import UserError

SUMMARY = '.summary.json'  # end of the name of what a run says of a slide
CHUNK = 20_000  # nuclei written together; bounds the memory for their text


class Target(NamedTuple):
    """What nuclei belong to, and where their pixels lie in it.

    Attributes:
        name: of the slide or image, without suffix; names the files.
        width: of the whole slide at full resolution, px.
        height: likewise.
        scale: full-resolution px per px of the nuclei.
        mpp: microns per px of the nuclei.
        region: x, y, width, height of the part that the nuclei's frame covers,
            full-resolution px; all of the slide if None.
        image_id: in COCO results.
        corner: x, y of the frame's corner, full-resolution px; that of the region if None. It
            may be off the region's by half a px of the nuclei.
        qupath_corner: x, y, from where QuPath counts, full-resolution px: it crops slides to
            their scanned part, where the file tells of one (mrxs).
    """

    name: str
    width: int
    height: int
    scale: float
    mpp: float
    region: tuple[int, int, int, int] | None = None
    image_id: int = 1
    corner: tuple[float, float] | None = None
    qupath_corner: tuple[int, int] = (0, 0)

    @property
    def text(self) -> str:
        """The name as text: of one that is not UTF-8, what Python cannot encode is escaped."""
        return self.name.encode(errors='backslashreplace').decode()

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The region, or all of the slide: x, y, width, height, full-resolution px."""
        return self.region or (0, 0, self.width, self.height)

    @property
    def slide_mpp(self) -> float:
        """Microns per full-resolution px."""
        return self.mpp / self.scale

    def to_slide(self, points: np.ndarray) -> np.ndarray:
        """Coordinates of the nuclei, (P, 2), in full-resolution px of the slide, float64."""
        return points * self.scale + (self.corner or self.box[:2])

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Pixel edges, int64, (P, 2), between which lie the pixels whose centers a ring encloses.

        The sides of a ring are upright or level at every scale, so moving its vertices to the
        edges of full-resolution pixels is the same as asking for each pixel's center.
        """
        edges = np.ceil(self.to_slide(points) - 0.5).astype(np.int64)
        x, y, width, height = self.box
        return np.clip(edges, (x, y), (x + width, y + height))


class Options(NamedTuple):
    """How to write.

    Attributes:
        compress: write GeoJSON as ``.geojson.gz``.
        simplify: how far GeoJSON outlines may move to save vertices (Douglas-Peucker),
            full-resolution px. 0 keeps every pixel edge.
        image: reads the region for the overlay, uint8, (height, width, 3), RGB.
        source: a file of the slide, for what formats take over from it.
        features: names of the measurements that the nuclei have beside ``MEASUREMENTS``, in the
            columns after these.
        classes: of the nuclei, which their labels are indices of.
    """

    compress: bool = False
    simplify: float = 0.0
    image: Callable[[], np.ndarray] | None = None
    source: Path | None = None
    features: tuple[str, ...] = ()
    classes: tuple[NucleusClass, ...] = ONE_CLASS


class Writer:
    """One file of nuclei.

    Attributes:
        suffix: end of its name.
        nucleus_bytes: that a nucleus takes, for the check of the free space.
        path: the file that ``finish`` and ``publish`` leave.
        names: of the measurements.
        classes: names of the classes, where there are several, else empty.
    """

    suffix: str
    nucleus_bytes = 600

    def __init__(self, out_dir: Path, target: Target, options: Options) -> None:
        self.target, self.options = target, options
        self.path = Path(out_dir, self.file_name(target, options))
        self.names = (*MEASUREMENTS, *options.features)
        several = options.classes if len(options.classes) > 1 else ()
        self.classes = tuple(one.name for one in several)
        self._count = 0
        self._held = contextlib.ExitStack()  # what has to be closed beside the file
        files.make_folder(self.path.parent)
        self._part = self._open()
        try:
            with files.cannot_be_written(self.path):
                self._start()
        except BaseException:
            self.abort()
            raise

    @property
    def partial(self) -> Path:
        """Where the file is until ``publish``."""
        return self._part.partial

    @classmethod
    def file_name(cls, target: Target, options: Options) -> str:
        return target.name + cls.suffix

    @classmethod
    def obstacle(cls, target: Target) -> str | None:
        """Why there can be no such file for this target, if so."""
        return None

    @classmethod
    def check(cls) -> None:
        """Make sure that the packages are there which this format needs.

        Raises:
            UserError: one is not.
        """

    def write(self, nuclei: Nuclei) -> None:
        """Add nuclei; they are numbered from 1 in the order of all calls."""
        with files.cannot_be_written(self.path):
            for start in range(0, len(nuclei), CHUNK):
                part = nuclei.take(np.arange(start, min(start + CHUNK, len(nuclei))))
                self._write(part, np.arange(len(part)) + self._count + 1)
                self._count += len(part)

    def finish(self) -> None:
        """Complete the file, still beside its place."""
        with files.cannot_be_written(self.path):
            self._finish()
            self._held.close()
        self._part.finish()

    def publish(self) -> None:
        """Move the finished file into place."""
        self._part.publish()

    def abort(self) -> None:
        """Leave nothing, unless the file is in place already."""
        # What is still in the buffers may find no space.
        with contextlib.suppress(OSError, ValueError):
            self._held.close()
        self._part.abort()

    def _open(self) -> files.PartialFile | files.PartialFolder:
        part = files.PartialFile(self.path)
        self._file = part.file
        return part

    def _open_scratch(self) -> BinaryIO:
        """A file beside, for what has to wait; it is gone with the writer."""
        scratch = files.PartialFile(self.path)  # under a hidden name of its own
        self._held.callback(scratch.abort)
        return scratch.file

    def _start(self) -> None:
        """Write what comes before the first nucleus."""

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        """Write nuclei, at least one and at most ``CHUNK``, and their numbers."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Write what comes after the last nucleus."""


class FolderWriter(Writer):
    """A folder, such as a Zarr group, made beside and renamed like a file.

    Attributes:
        marker: a file of it by which a folder of an earlier run is known and may be replaced.
    """

    marker = 'zarr.json'

    def _open(self) -> files.PartialFolder:
        if self.path.exists() and not (self.path / self.marker).is_file():
            raise UserError(f'{self.path}: is there, but no {self.suffix} of an earlier run')
        part = files.PartialFolder(self.path)
        self._folder = part.partial
        return part
