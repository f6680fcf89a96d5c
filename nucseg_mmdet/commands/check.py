"""Say what is installed, and try every backend on a small image.

The image, ``check_image.jpg``, is one of the stained tissue images of the Data Science Bowl 2018
(Broad Bioimage Benchmark Collection, BBBC038v1, stage 1, 5ef4442e5b8b...; CC0).
"""

import argparse
import importlib
import platform
import time
from collections.abc import Callable, Sequence
from importlib import metadata, resources

import numpy as np
from PIL import Image

from nucseg_mmdet import Segmenter, __version__
from nucseg_mmdet.inference.backends import BACKENDS
from nucseg_mmdet.utils.arguments import ArgumentParser, summary_of
from nucseg_mmdet.utils.errors import UserError, count_nuclei, exit_code, first_line

# What each part of the project imports.
PARTS = {
    'basics': ('numpy', 'cv2', 'PIL', 'shapely', 'scipy', 'pycocotools', 'faster_coco_eval'),
    'slides': ('openslide', 'tifffile', 'imagecodecs'),
    'networks': ('torch', 'mmengine', 'mmcv', 'mmdet', 'openvino'),
    'tables': ('pyarrow',),
}
FEWEST, MOST = 30, 50  # nuclei that a working model finds in the image; ours finds 40


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description=summary_of(__doc__))
    parser.add_argument('--device', help='cpu, cuda or cuda:N, default: a GPU where there is one')
    return parser.parse_args(argv)


def installed(module: str, owners: dict[str, list[str]]) -> str:
    """Give the distributions that a module comes from, with their versions.

    Args:
        module: as it is imported.
        owners: ``importlib.metadata.packages_distributions()``.
    """
    names = sorted(set(owners.get(module, ())))
    return ', '.join(f'{name} {metadata.version(name)}' for name in names) or f'no {module}'


def try_openslide() -> str:
    return f'library {importlib.import_module("openslide").__library_version__}'


def name_gpus() -> str:
    """Name the GPUs that torch can use; their absence is no fault."""
    try:
        cuda = importlib.import_module('torch').cuda
    except ImportError:
        return 'none, there is no torch'
    return ', '.join(cuda.get_device_name(index) for index in range(cuda.device_count())) or 'none'


def try_model(backend: str, device: str | None) -> str:
    """Find the nuclei of the packaged image with the default model.

    Raises:
        UserError: the backend is not installed, or finds far more or fewer than there are.
    """
    with resources.files('nucseg_mmdet.commands').joinpath('check_image.jpg').open('rb') as file:
        image = np.asarray(Image.open(file).convert('RGB'))
    segmenter = Segmenter(backend=backend, device=device)
    start = time.perf_counter()
    found = len(segmenter(image))
    seconds = time.perf_counter() - start
    if not FEWEST <= found <= MOST:
        raise UserError(f'{count_nuclei(found)} in the image, expected {FEWEST} to {MOST}')
    height, width = image.shape[:2]
    predictor = segmenter.predictor
    return (
        f'works on {predictor.device} in {predictor.precision}: '
        f'{found} nuclei in an image of {width} x {height} px, {seconds:.1f} s'
    )


def attempt(title: str, trial: Callable[[], str]) -> bool:
    """Print what a trial says, or why it failed; return whether it worked."""
    try:
        result, works = trial(), True
    except Exception as error:  # whatever a broken installation raises is what we are here to say
        result, works = f'fails: {first_line(error)}', False
    print(f'{title:<18}{result}')
    return works


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    system = f'Python {platform.python_version()}, {platform.system()} {platform.machine()}'
    print(f'{"nucseg-mmdet":<18}{__version__}, {system}')
    owners = dict(metadata.packages_distributions())
    for part, modules in PARTS.items():
        print(f'{part:<18}{", ".join(installed(module, owners) for module in modules)}')
    if len(set(owners.get('cv2', ()))) > 1:
        print(f'{"":<18}two builds of OpenCV: keep one, see docs/install.md')
    print(f'{"GPUs":<18}{name_gpus()}')
    slides = attempt('OpenSlide', try_openslide)
    trials = [
        attempt(f'backend {name}', lambda name=name: try_model(name, args.device))
        for name in BACKENDS
    ]
    if slides and any(trials):
        return 0
    print('nothing can be segmented' if slides else 'slides cannot be read', '(docs/install.md)')
    return 1


if __name__ == '__main__':
    raise SystemExit(main())
