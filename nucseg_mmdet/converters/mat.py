"""Reader of MATLAB label maps: CoNSeP, Kumar and CPM17 as HoVer-Net's authors give them.

::

    RAW/Images/<name>.png        also TIFF, JPEG, BMP
    RAW/Labels/<name>.mat        inst_map (H, W), 0 background, a number a nucleus;
                                 inst_type (N, 1), in the order of the numbers, in CoNSeP;
                                 in that of inst_uid where there is one, as HoVer-Net writes

The numbers of inst_type are CoNSeP's: 1 other, 2 inflammatory, 3 healthy epithelial,
4 dysplastic/malignant epithelial, 5 fibroblast, 6 muscle, 7 endothelial. Other folders by
patterns under RAW, e.g. ``--images 'Train/Images/*' --labels 'Train/Labels/*'``.
"""

from pathlib import Path

import numpy as np
from scipy.io import loadmat, whosmat
from scipy.sparse import issparse

from nucseg_mmdet.converters.base import AnnotatedImage
from nucseg_mmdet.converters.label_map import set_types
from nucseg_mmdet.converters.nuclei import check_labels, check_parts, from_labels
from nucseg_mmdet.converters.raw_images import (
    Pair,
    check_pair,
    find_pairs,
    open_raw_image,
    pair_folders_left_out,
)
from nucseg_mmdet.imaging.image_files import MAX_PIXELS
from nucseg_mmdet.utils.errors import UserError, count_nuclei
from nucseg_mmdet.utils.reading import check_file

OPTIONS = {
    'images': 'pattern of the images under RAW, default: Images/*',
    'labels': 'pattern of the .mat files under RAW, default: Labels/*',
}
READ_ALL = "--images 'Images/**/*' --labels 'Labels/**/*' read folders in folders"
# Graham et al., Medical Image Analysis 58 (2019); README of the data set.
TYPES = (
    'other',
    'inflammatory',
    'healthy epithelial',
    'dysplastic/malignant epithelial',
    'fibroblast',
    'muscle',
    'endothelial',
)


def find_images(raw: Path, images: str = 'Images/*', labels: str = 'Labels/*') -> list[Pair]:
    """The images with their .mat files.

    Raises:
        UserError: ``raw`` is missing, has no images or .mat files, or names stand twice.
    """
    return find_pairs(raw, images, labels, _is_mat)


def find_left_out(raw: Path, images: str = 'Images/*', labels: str = 'Labels/*') -> list[str]:
    """A line for each folder that ``find_images`` does not look into."""
    return pair_folders_left_out(raw, images, labels, _is_mat, READ_ALL)


def _is_mat(path: Path) -> bool:
    return path.suffix.lower() == '.mat'


def read_image(pair: Pair) -> AnnotatedImage:
    """Read one training image and its label map.

    Raises:
        UserError: one of the two is missing, broken, or not of the size of the other, or the
            labels are not those of single nuclei.
    """
    image_path, truth_path = check_pair(pair)
    image = open_raw_image(image_path)
    content = _load(truth_path)
    if 'inst_map' not in content:
        raise UserError(f'{truth_path}: no variable inst_map, expected one')
    labels = check_labels(content['inst_map'], (image.height, image.width), truth_path)
    notes = check_parts(labels, truth_path)
    nuclei = from_labels(labels)
    if 'inst_type' in content:
        numbers = content['inst_type'].ravel()
        if numbers.size != len(nuclei):
            raise UserError(
                f'{truth_path}: {numbers.size} inst_type for {count_nuclei(len(nuclei))}, '
                'expected one for each'
            )
        order = _order(content, list(nuclei), truth_path)
        if not np.isin(numbers, np.arange(1, len(TYPES) + 1)).all():
            raise UserError(f"{truth_path}: inst_type beyond 1 to {len(TYPES)}, expected CoNSeP's")
        kinds = [TYPES[int(number) - 1] for number in numbers]
        set_types(nuclei, dict(zip(order, kinds, strict=True)), truth_path)
    return AnnotatedImage(image, list(nuclei.values()), notes=notes)


def _order(content: dict, labels: list[int], path: Path) -> list[int]:
    """The labels that inst_type goes with: those of inst_uid, or all in ascending order."""
    if 'inst_uid' not in content:
        return labels
    found = content['inst_uid'].ravel().tolist()
    if len(found) != len(labels) or set(found) != set(labels):
        raise UserError(
            f'{path}: inst_uid with {len(found)} numbers, not the {len(labels)} of inst_map, '
            'expected each of them once'
        )
    return [int(label) for label in found]


def _load(path: Path) -> dict:
    check_file(path)
    names = ['inst_map', 'inst_type', 'inst_uid']
    try:
        for name, shape, _ in whosmat(path):
            if name in names and np.prod(shape, dtype=float) > MAX_PIXELS:
                raise UserError(f'{path}: {name} of shape {shape}, expected that of a field')
        content = loadmat(path, variable_names=names)
        return {
            name: value.toarray() if issparse(value) else value for name, value in content.items()
        }
    except UserError:
        raise
    except NotImplementedError:
        raise UserError(
            f"{path}: MATLAB 7.3 (HDF5), expected an older version; save it with '-v7'"
        ) from None
    except Exception as error:  # SciPy raises many kinds for a damaged file
        raise UserError(f'{path}: not readable ({error!s:.200}), expected a .mat file') from None
