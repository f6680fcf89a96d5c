"""Tables with a row for each nucleus."""

import numpy as np

from nucseg_mmdet.export.geoparquet import GeoParquet
from nucseg_mmdet.export.outlines import polygons
from nucseg_mmdet.export.writer import Target, Writer
from nucseg_mmdet.structures.nuclei import MEASUREMENTS, Nuclei

CENTROIDS = ('centroid_x_px', 'centroid_y_px', 'centroid_x_um', 'centroid_y_um')
COLUMNS = ('id', *CENTROIDS, *MEASUREMENTS, 'score')
ROW = ','.join(['%d', '%.2f', '%.2f', '%.3f', '%.3f', *['%.6g'] * (len(MEASUREMENTS) + 1)]) + '\n'


def columns(nuclei: Nuclei, ids: np.ndarray, target: Target) -> dict[str, np.ndarray]:
    """The table's columns: centroids from the slide's corner, in full-resolution px and microns."""
    centroids = target.to_slide(nuclei.centroids)
    centroids = np.hstack([centroids, centroids * target.slide_mpp])
    values = [ids, *centroids.T, *nuclei.measurements.T, nuclei.scores]
    return dict(zip(COLUMNS, values, strict=True))


class Csv(Writer):
    """Comma-separated text with a header line; what is undefined is left empty."""

    suffix = '.csv'

    def _start(self) -> None:
        self._file.write((','.join(COLUMNS) + '\n').encode())

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        table = columns(nuclei, ids, self.target)
        rows = zip(*[column.tolist() for column in table.values()], strict=True)
        text = ''.join([ROW % row for row in rows])
        self._file.write(text.replace(',nan', ',').encode())


class Parquet(Writer):
    """GeoParquet: the columns of the CSV and the outline; what is undefined is null."""

    suffix = '.parquet'

    def _start(self) -> None:
        kinds = ['int64', *['float64'] * len(CENTROIDS), *['float32'] * (len(MEASUREMENTS) + 1)]
        kinds = dict(zip(COLUMNS, kinds, strict=True))
        self._rows = self._held.enter_context(GeoParquet(self._file, kinds))

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        self._rows.write(columns(nuclei, ids, self.target), polygons(nuclei, self.target))
