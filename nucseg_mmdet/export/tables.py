"""Tables with a row for each nucleus."""

import csv
import io
from collections.abc import Sequence

import numpy as np

from nucseg_mmdet.export.geoparquet import GeoParquet, import_pyarrow
from nucseg_mmdet.export.outlines import polygons
from nucseg_mmdet.export.writer import Target, Writer
from nucseg_mmdet.structures.nuclei import Nuclei

CLASS = 'class'  # column of the class' name
CENTROIDS = ('centroid_x_px', 'centroid_y_px', 'centroid_x_um', 'centroid_y_um')


def columns(
    nuclei: Nuclei, ids: np.ndarray, target: Target, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """The table's columns: centroids from the slide's corner, in full-resolution px and microns.

    Args:
        nuclei: of the rows.
        ids: their numbers.
        target: what they belong to.
        names: of their measurements.
    """
    centroids = target.to_slide(nuclei.centroids)
    centroids = np.hstack([centroids, centroids * target.slide_mpp])
    values = [ids, *centroids.T, *nuclei.measurements.T, nuclei.scores]
    return dict(zip(('id', *CENTROIDS, *names, 'score'), values, strict=True))


class Csv(Writer):
    """Comma-separated text with a header line; what is undefined is left empty.

    Of several classes the last column has the name.
    """

    suffix = '.csv'
    nucleus_bytes = 180

    def _start(self) -> None:
        self._ends = [f',{_cell(name)}\n' for name in self.classes] or ['\n']
        names = ['id', *CENTROIDS, *self.names, 'score', *([CLASS] if self.classes else [])]
        self._file.write((','.join(names) + '\n').encode())
        numbers = ['%d', '%.2f', '%.2f', '%.3f', '%.3f', *['%.6g'] * (len(self.names) + 1)]
        self._row = ','.join(numbers)

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        table = columns(nuclei, ids, self.target, self.names)
        rows = zip(*[column.tolist() for column in table.values()], strict=True)
        # No name of a class starts in what is searched for undefined numbers.
        lines = [(self._row % row).replace(',nan', ',') for row in rows]
        ends = [self._ends[label] for label in nuclei.labels.tolist()]
        parts = [part for line in zip(lines, ends, strict=True) for part in line]
        self._file.write(''.join(parts).encode())


def _cell(text: str) -> str:
    """A text as a cell of CSV, in quotes where it has to be."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator='').writerow([text])
    return buffer.getvalue()


class Parquet(Writer):
    """GeoParquet: the columns of the CSV and the outline; what is undefined is null."""

    suffix = '.parquet'
    nucleus_bytes = 300

    @classmethod
    def check(cls) -> None:
        import_pyarrow()

    def _start(self) -> None:
        kinds = {'id': 'int64', **dict.fromkeys(CENTROIDS, 'float64')}
        kinds |= dict.fromkeys([*self.names, 'score'], 'float32')
        if self.classes:
            kinds[CLASS] = 'string'
        self._rows = self._held.enter_context(GeoParquet(self._file, kinds))

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        table = columns(nuclei, ids, self.target, self.names)
        if self.classes:
            table[CLASS] = np.array(self.classes, object)[nuclei.labels]
        self._rows.write(table, polygons(nuclei, self.target))
