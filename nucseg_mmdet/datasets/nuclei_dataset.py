"""The nuclei data set."""

import contextlib
from pathlib import Path
from typing import Any, ClassVar

from mmdet.registry import DATASETS
from mmengine.logging import print_log

from nucseg_mmdet.imaging.image_files import read_color, read_size
from nucseg_mmdet.structures.coco import load_shared_json
from nucseg_mmdet.utils.errors import UserError, few

with contextlib.redirect_stdout(None):  # it prints that another product of its makers is missing
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.api_wrappers import COCO


class SharedCOCO(COCO):
    """mmdet's index of a COCO file, of the content that the evaluator reads too."""

    def __init__(self, annotation_file: str) -> None:
        super().__init__()
        shared: Any = load_shared_json(Path(annotation_file))
        # mmdet writes into the images.
        self.dataset = shared | dict(images=[dict(image) for image in shared['images']])
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs


@DATASETS.register_module()
class NucleiDataset(CocoDataset):
    """COCO-format data set of nuclei, by default with the single class ``nucleus``.

    ``CocoDataset`` skips boxes thinner than 1 px without a word. A nucleus cut
    by a tile border can be that thin, so the number of skipped ones is logged.

    Attributes:
        num_skipped: annotations left out of the last load.

    Raises:
        UserError: image files are missing or damaged, a nucleus is of a class that the config does
            not have, or the truth to train on is RLE: with ``poly2mask=False`` mmdet would drop
            its masks silently. In test mode evaluators read the truth themselves, RLE as well.
    """

    COCOAPI = SharedCOCO
    METAINFO: ClassVar[dict] = dict(classes=('nucleus',), palette=[(220, 20, 60)])

    def load_data_list(self) -> list[dict]:
        self.num_skipped = 0
        if self.ann_file is None:
            raise UserError('ann_file is None, expected the path of a COCO file')
        data_list = super().load_data_list()
        self._check_order(Path(self.ann_file))
        self._check_images(data_list)
        if self.num_skipped:
            print_log(f'{self.ann_file}: skipped {self.num_skipped} annotations', 'current')
        return data_list

    def filter_data(self) -> list[dict]:
        kept = super().filter_data()
        if self.data_list and not kept:
            raise UserError(
                f'{self.ann_file}: none of {len(self.data_list)} images has a nucleus, expected '
                'some; --keep-empty trains on images without'
            )
        left_out = len(self.data_list) - len(kept)
        if left_out:
            print_log(
                f'{self.ann_file}: {left_out} of {len(self.data_list)} images are left out of '
                'training, those without nuclei; --keep-empty trains on them too',
                'current',
            )
        return kept

    def _check_order(self, truth: Path) -> None:
        """Refuse other classes than the file's, or in another order.

        mmdet and the evaluators know a class by its place among the categories, and would take
        each for another.
        """
        classes = list(self.metainfo['classes'])
        names = [category['name'] for category in load_shared_json(truth)['categories']]
        if names[: len(classes)] != classes[: len(names)] and set(names) & set(classes):
            raise UserError(
                f'{self.ann_file}: categories are {", ".join(names)}, expected the classes of the '
                f'config, in their order: {", ".join(classes)}'
            )

    def _check_images(self, data_list: list[dict]) -> None:
        problems = []
        for info in data_list:
            try:
                self._check_image(Path(info['img_path']), info['width'], info['height'])
            except UserError as error:
                problems.append(str(error))
        if problems:
            raise UserError(*few(problems))

    def _check_image(self, path: Path, width: int, height: int) -> None:
        if not path.is_file():
            raise UserError(f'{path}: no such image, expected it as listed in {self.ann_file}')
        found = read_size(path)
        if found != (width, height):
            raise UserError(
                f'{path}: {found[0]} x {found[1]} px, expected {width} x {height} px as in '
                f'{self.ann_file}'
            )
        read_color(path)  # here and now: libraries read damaged images, or end in their midst

    def parse_data_info(self, raw_data_info: dict) -> dict:
        data_info = super().parse_data_info(raw_data_info)
        if not isinstance(data_info, dict):
            raise TypeError(f'{type(data_info).__name__} of one image, expected a dict')
        annotations, instances = raw_data_info['raw_ann_info'], data_info['instances']
        self.num_skipped += len(annotations) - len(instances)
        for annotation in annotations:
            if annotation['category_id'] not in self.cat_ids:
                raise UserError(
                    f'{self.ann_file}: annotation {annotation["id"]} is of category '
                    f'{annotation["category_id"]}, which is none of the classes of the config, '
                    f'{", ".join(self.metainfo["classes"])}'
                )
            if not self.test_mode and not isinstance(annotation.get('segmentation'), list):
                raise UserError(
                    f'{self.ann_file}: annotation {annotation["id"]} has no polygons, expected '
                    'polygons as nucseg prepare writes them'
                )
        return data_info
