"""Say what is installed, which backends and devices work, and try the default model.

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

from nucseg_mmdet import __version__
from nucseg_mmdet.utils.errors import UserError, exit_code

# What each part of the project imports.
PARTS = {
    'basics': ('numpy', 'cv2', 'PIL', 'shapely', 'scipy', 'pycocotools', 'faster_coco_eval'),
    'slides': ('tifffile', 'imagecodecs', 'openslide'),
    'mmdet': ('torch', 'mmengine', 'mmcv', 'mmdet'),
    'tables': ('pyarrow',),
}
FEWEST, MOST = 30, 50  # nuclei that a working model finds in the image; ours finds 40


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', help='cpu, cuda or cuda:N, default: a GPU where there is one')
    return parser.parse_args(argv)


def installed(module: str, owners: dict[str, list[str]]) -> str:
    """Give the distributions that a module comes from, with versions; 'not installed' for none.

    Args:
        module: as it is imported.
        owners: ``importlib.metadata.packages_distributions()``.
    """
    names = sorted(set(owners.get(module, ())))
    found = ', '.join(f'{name} {metadata.version(name)}' for name in names)
    return found or f'{module} not installed'


def try_ops() -> str:
    """Run one of mmcv's compiled ops and torch's view of the devices."""
    torch = importlib.import_module('torch')
    nms = importlib.import_module('mmcv.ops').nms
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
    kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), iou_threshold=0.5)[1].tolist()
    if kept != [0, 2]:
        raise UserError(f"mmcv's compiled ops: nms keeps boxes {kept}, expected [0, 2]")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f'works on cpu{"".join(f", cuda:{index} ({name})" for index, name in enumerate(gpus))}'


def try_openslide() -> str:
    return f'library {importlib.import_module("openslide").__library_version__}'


def try_model(device: str | None) -> str:
    """Find the nuclei of the packaged image.

    Raises:
        UserError: far more or fewer than there are.
    """
    segmenter = importlib.import_module('nucseg_mmdet.inference.segmenter')
    with resources.files('nucseg_mmdet.commands').joinpath('check_image.jpg').open('rb') as file:
        image = np.asarray(Image.open(file).convert('RGB'))
    model = segmenter.Segmenter(device=device)
    start = time.perf_counter()
    found = len(model(image).scores)
    seconds = time.perf_counter() - start
    if not FEWEST <= found <= MOST:
        raise UserError(f'{found} nuclei in the image, expected {FEWEST} to {MOST}')
    return f'{found} nuclei in an image of 320 x 256 px, {seconds:.1f} s'


def attempt(title: str, trial: Callable[[], str]) -> bool:
    """Print what a trial says, or why it failed; return whether it worked."""
    try:
        print(f'{title:<16}{trial()}')
    except Exception as error:  # whatever a broken installation raises is what we are here to say
        reason = (str(error) or type(error).__name__).splitlines()[0]
        print(f'{title:<16}fails: {reason}')
        return False
    return True


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    system = f'Python {platform.python_version()}, {platform.system()} {platform.machine()}'
    print(f'{"nucseg-mmdet":<16}{__version__}, {system}')
    owners = dict(metadata.packages_distributions())
    for part, modules in PARTS.items():
        print(f'{part:<16}{"; ".join(installed(module, owners) for module in modules)}')
    if len(set(owners.get('cv2', ()))) > 1:
        print(f'{"":<16}two builds of OpenCV write the same files: keep opencv-python-headless')
    works = attempt('OpenSlide', try_openslide)
    works &= attempt('backend mmdet', try_ops)
    works &= attempt('default model', lambda: try_model(args.device))
    print('all works' if works else 'something is missing or does not work, see docs/install.md')
    return int(not works)


if __name__ == '__main__':
    raise SystemExit(main())
