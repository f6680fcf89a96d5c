"""The competition's file: a checked ``answer.json`` and ``answer.zip`` with it at its root.

To check a file from anywhere::

    python -m nucseg_mmdet.evaluation.submission answer.zip data/vrdl/annotations/test.json
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import argparse
import contextlib
import json
import reprlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

from nucseg_mmdet.structures import rle
from nucseg_mmdet.structures.coco import is_finite, load_json, load_shared_json
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, exit_code, some
from nucseg_mmdet.utils.files import PartialFile, cannot_be_written, make_folder

KEYS = {'image_id', 'bbox', 'score', 'category_id', 'segmentation'}
# Boxes are written with two decimals, so an edge at the image's border may be off by this.
BOX_TOLERANCE = 0.01  # px


def read_images(path: Path) -> dict[int, tuple[int, int]]:
    """Read the images to predict.

    Args:
        path: COCO JSON, or the bare list ``test_img_ids.json``.

    Returns:
        Height and width, px, by image id.

    Raises:
        UserError: it is neither, or there are no images, two of one id or one without pixels.
    """
    content = load_shared_json(path)
    images = content.get('images') if isinstance(content, dict) else content
    keys = ('id', 'height', 'width')
    if not isinstance(images, list) or not all(
        isinstance(image, dict) and all(type(image.get(key)) is int for key in keys)
        for image in images
    ):
        raise UserError(f'{path}: no list of images with id, height, width as whole numbers')
    sizes = {image['id']: (image['height'], image['width']) for image in images}
    if not sizes or len(sizes) < len(images) or min(map(min, sizes.values())) < 1:
        raise UserError(f'{path}: no images, two of one id or one without pixels, expected images')
    return sizes


def read_results(path: Path) -> list[dict]:
    """Read a COCO result list from ``answer.json``, or from ``answer.zip`` with it at its root.

    Raises:
        UserError: the file is not readable, or it holds no list.
    """
    content = load_json(path)
    if not isinstance(content, list):
        raise UserError(f'{path}: {type(content).__name__}, expected a list of results')
    return content


def find_problems(results: Sequence[dict], images: dict[int, tuple[int, int]]) -> list[str]:
    """Check a result list: one line for each result that the competition would not take.

    Args:
        results: COCO results with ``segmentation`` as compressed RLE, counts as text.
        images: height and width, px, by image id.
    """
    problems = []
    for index, result in enumerate(results):
        problem = _find_problem(result, images)
        if problem:
            problems.append(f'result {index}: {problem}')
    if problems:
        return problems
    try:
        rle.checked_runs([result['segmentation'] for result in results])
    except ValueError as error:
        return [f'RLE of results: {error}']
    return []


def find_disorder(results: Sequence[dict], images: dict[int, tuple[int, int]]) -> list[str]:
    """Check that good results come by image in the order of ``images``, then by falling score."""
    if list(results) == ordered(results, images):
        return []
    return ['results out of order, expected by image, then by falling score']


def _find_problem(result: dict, images: dict[int, tuple[int, int]]) -> str | None:
    if not isinstance(result, dict):
        return f'{type(result).__name__}, expected an object'
    if set(result) != KEYS:
        return f'keys {sorted(result)}, expected {sorted(KEYS)}'
    image_id, bbox, score = result['image_id'], result['bbox'], result['score']
    if type(image_id) is not int or image_id not in images:
        return f'image_id {image_id}, expected one of {reprlib.repr(list(images))}'
    height, width = images[image_id]
    if type(result['category_id']) is not int or result['category_id'] != 1:
        return f'category_id {result["category_id"]}, expected 1'
    if not is_finite(score) or not 0 <= score <= 1:
        return f'score {score}, expected 0 to 1'
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_finite, bbox)):
        return f'bbox {bbox}, expected four finite numbers x, y, w, h'
    x, y, w, h = bbox
    low, right, bottom = -BOX_TOLERANCE, width + BOX_TOLERANCE, height + BOX_TOLERANCE
    if min(x, y) < low or min(w, h) < 0 or x + w > right or y + h > bottom:
        return f'bbox {bbox}, expected inside the image of {width} x {height} px'
    segmentation = result['segmentation']
    if not isinstance(segmentation, dict):
        return f'segmentation not an RLE of size {[height, width]}'
    size = segmentation.get('size') or ()
    if size != [height, width] or not all(type(side) is int for side in size):
        return f'segmentation not an RLE of size {[height, width]}'
    if not isinstance(segmentation.get('counts'), str):
        return 'RLE counts are no text, expected the compressed string'
    return None


def ordered(results: Sequence[dict], images: dict[int, tuple[int, int]]) -> list[dict]:
    """Sort results by image in the order of ``images``, then by falling score."""
    rank = {image_id: place for place, image_id in enumerate(images)}
    return sorted(results, key=lambda result: (rank[result['image_id']], -result['score']))


def write(results: Sequence[dict], images: dict[int, tuple[int, int]], path: Path) -> None:
    """Check results and write them as ``path`` and, beside it, as a zip of the same name.

    Args:
        results: COCO results, any order.
        images: height and width, px, by image id.
        path: such as ``answer.json``; inside the zip the name is ``answer.json``.

    Raises:
        UserError: a result would not be taken, and nothing is written; or no place to write.
    """
    problems = find_problems(results, images)
    if problems:
        raise UserError(
            f'{path}: {len(problems)} bad results, nothing written; first: {problems[0]}'
        )
    make_folder(path.parent)
    text = json.dumps(ordered(results, images))
    zipped = path.with_suffix('.zip')
    with contextlib.ExitStack() as stack, cannot_be_written(path):
        answer, packed = (stack.enter_context(PartialFile(place)) for place in (path, zipped))
        answer.file.write(text.encode())
        with zipfile.ZipFile(packed.file, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr('answer.json', text)
        answer.finish()
        packed.finish()
        zipped.unlink(missing_ok=True)  # at no time an older one beside a newer answer.json
        answer.publish()
        packed.publish()


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    """Check a file that somebody brings."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('results', type=Path, help='answer.json or answer.zip')
    parser.add_argument('images', type=Path, help='test.json or test_img_ids.json')
    args = parser.parse_args(argv)
    results, images = read_results(args.results), read_images(args.images)
    problems = find_problems(results, images) or find_disorder(results, images)
    if problems:
        more = f', and {len(problems) - 1} more' if len(problems) > 1 else ''
        raise UserError(f'{args.results}: {problems[0]}{more}')
    found = {result['image_id'] for result in results}
    empty = [image_id for image_id in images if image_id not in found]
    print(f'{args.results}: {len(results):,} results for {len(found)} images, all good')
    if empty:
        print(f'no result for image {some([str(image_id) for image_id in empty])}')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
