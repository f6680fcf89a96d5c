"""Tables with a row for each nucleus."""

import numpy as np

from nucseg_mmdet.export.writer import Target, Writer
from nucseg_mmdet.structures.nuclei import MEASUREMENTS, Nuclei
from nucseg_mmdet.utils.errors import UserError

CENTROIDS = ('centroid_x_px', 'centroid_y_px', 'centroid_x_um', 'centroid_y_um')
COLUMNS = ('id', *CENTROIDS, *MEASUREMENTS, 'score')
ROW = ','.join(['%d', '%.2f', '%.2f', '%.3f', '%.3f', *['%.6g'] * (len(MEASUREMENTS) + 1)]) + '\n'
ROW_GROUP = 1 << 16  # rows that a Parquet reader has to take at once


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
    """Apache Parquet with the columns of the CSV; what is undefined is null."""

    suffix = '.parquet'

    def _start(self) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise UserError('format parquet needs pyarrow: pip install pyarrow') from None
        kinds = ['int64', *['float64'] * len(CENTROIDS), *['float32'] * (len(MEASUREMENTS) + 1)]
        self._schema = pyarrow.schema(list(zip(COLUMNS, kinds, strict=True)))
        self._pyarrow = pyarrow
        writer = pyarrow.parquet.ParquetWriter(self._file, self._schema, compression='zstd')
        self._writer = self._held.enter_context(writer)
        self._waiting: list[dict[str, np.ndarray]] = []

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        self._waiting.append(columns(nuclei, ids, self.target))
        if sum(len(table['id']) for table in self._waiting) >= ROW_GROUP:
            self._write_waiting()

    def _write_waiting(self) -> None:
        arrays = [
            self._pyarrow.array(
                np.concatenate([table[field.name] for table in self._waiting]),
                field.type,
                from_pandas=True,  # NaN is null
            )
            for field in self._schema
        ]
        self._writer.write_table(self._pyarrow.Table.from_arrays(arrays, schema=self._schema))
        self._waiting = []

    def _finish(self) -> None:
        if self._waiting:
            self._write_waiting()
