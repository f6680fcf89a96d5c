"""H&E-like images with exact masks: python -m nucseg_mmdet.synthetic.fields OUT [--train 16].

A made-up tissue of glands and stroma is filled with nuclei, each pixel gets an amount of
hematoxylin and of eosin, and light passes through both. The pictures stand in for slides at 40x
(0.25 um/px) in a demo and in tests; they are no training data for real slides.
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage

from nucseg_mmdet.imaging.image_files import encode
from nucseg_mmdet.imaging.stain import STAIN_OD
from nucseg_mmdet.structures.coco_entries import make_annotations, make_categories
from nucseg_mmdet.synthetic.tissue import (
    Tissue,
    distance_within,
    lay_out_tissue,
    noise,
    smear,
    step,
)
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, exit_code
from nucseg_mmdet.utils.files import new_folder

# The dyes of a slide as mixtures of the rows of STAIN_OD. Scanned H&E absorbs more blue light
# than the two pure vectors do; these mixtures lie within 0.02 of the medians that Macenko's
# method (ISBI 2009) finds in the class images, (.56, .73, .40) and (.20, .81, .54).
DYE_MIX = np.array([[0.78, 0.04, 0.22], [0.02, 0.45, 0.62]])
DYE_SPREAD = 0.045  # standard deviation of each share from slide to slide
WHITE = (244.0, 241.0, 245.0)  # R, G, B of the empty slide

MIN_SIZE = 32  # px, of an image side
MIN_AREA = 24  # px, of the visible part of a nucleus
MAX_HIDDEN = 0.2  # a nucleus with more of its area under others is not placed
ATTEMPTS = 12  # tried places per nucleus asked for


class Kind(NamedTuple):
    """How one kind of nucleus looks; lengths are relative to the slide's nuclear diameter."""

    length: float
    aspect: tuple[float, float]  # length / width, range
    roughness: float  # of the outline
    stain: float  # amount of hematoxylin, relative to the slide's
    clumps: float  # contrast of the chromatin
    rim: float  # extra stain along the membrane
    nucleoli: float  # mean number
    halo: float  # how far the cytoplasm shrinks from it, 0..1


# Named by PanNuke's words: large and pale, long, small and dark.
TYPES = ('epithelial', 'connective', 'inflammatory')
KINDS = (
    Kind(1.1, (1.0, 1.5), 0.05, 0.76, 0.30, 0.55, 0.9, 0.30),  # epithelial
    Kind(1.35, (2.2, 4.5), 0.09, 1.05, 0.18, 0.20, 0.0, 0.20),  # fibroblast
    Kind(0.72, (1.0, 1.25), 0.05, 1.35, 0.20, 0.15, 0.0, 0.45),  # lymphocyte
)


def synthesize(
    seed: int, height: int, width: int, count: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Make one image and its truth.

    The same arguments give the same arrays on one machine; other builds of NumPy or
    OpenCV may round a sum differently.

    Args:
        seed: 0 or more.
        height: px, at least 32.
        width: px, at least 32.
        count: nuclei to place; fewer are placed where the tissue is full. None
            draws 300 to 900 per 1000 x 1000 px; most class images have 294 to 557.

    Returns:
        img: uint8, (H, W, 3), RGB.
        labels: int32, (H, W); 0 is background, nuclei are 1..N. Each is connected
            (4 neighbors), has no hole and at least 24 px; nuclei may touch.

    Raises:
        ValueError: the seed or count is negative, or the image is too small.
    """
    return synthesize_types(seed, height, width, count)[:2]


def synthesize_types(
    seed: int, height: int, width: int, count: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make one image, its truth and the types of its nuclei.

    Args:
        seed: as of ``synthesize``, and so are all others.
        height: px.
        width: px.
        count: nuclei to place.

    Returns:
        img and labels, and types: int, (N + 1,); of each label the index into ``TYPES``, 0 for
        the background.

    Raises:
        ValueError: as ``synthesize``.
    """
    if seed < 0 or (count is not None and count < 0):
        raise ValueError(f'seed and count must not be negative, got {seed} and {count}')
    if min(height, width) < MIN_SIZE:
        raise ValueError(f'image must be at least {MIN_SIZE} px wide and high: {width} x {height}')
    rng = np.random.default_rng(seed)
    if count is None:
        count = max(1, round(rng.uniform(300, 900) * height * width / 1e6))
    tissue = lay_out_tissue(rng, height, width, count)
    labels, kinds = _place_nuclei(rng, tissue, count)
    return _photograph(rng, *_stain(rng, tissue, labels, kinds)), labels, kinds


def _place_nuclei(
    rng: np.random.Generator, tissue: Tissue, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fill the tissue: labels (H, W) and, for each label, its index into ``KINDS``.

    Entry 0, the background, has index 0 as well, so that a label map can index the result.
    """
    depth, size = tissue.depth, tissue.diameter
    shape = depth.shape
    basal = np.exp(-(((depth - 0.85 * size) / (0.25 * size)) ** 2))
    inner = 0.35 * ((depth > 0.6 * size) & (depth < tissue.lumen_depth - 0.6 * size))
    foci = np.exp(2 * noise(rng, shape, 1.2 * size))
    maps = basal + inner, (depth < -0.3 * size) * 1.0, (depth < -0.4 * size) * foci  # as KINDS
    stroma = float((depth < 0).mean())
    shares = np.array([1.3 * (1 - stroma), 0.5 * stroma, rng.uniform(0.05, 0.6) * stroma])
    tries = rng.choice(len(KINDS), size=ATTEMPTS * count, p=shares / shares.sum())
    places = np.empty_like(tries)
    for index, weights in enumerate(maps):
        weights = weights.ravel() + 1e-6  # a small image may have no place of this kind
        chosen = tries == index
        places[chosen] = rng.choice(weights.size, size=chosen.sum(), p=weights / weights.sum())

    dy, dx = np.gradient(depth)
    radial = np.arctan2(dy, dx)
    labels = np.zeros(shape, dtype=np.int32)
    kinds = [0]
    for index, place in zip(tries, places, strict=True):
        if len(kinds) > count:
            break
        y, x = divmod(int(place), shape[1])
        angle = rng.normal(radial[y, x] if index == 0 else tissue.angle[y, x], 0.25)
        window, part = _cut_out(rng, labels, KINDS[index], (y, x), angle, size)
        if part is not None:
            labels[window][part] = len(kinds)
            kinds.append(int(index))
    return labels, np.array(kinds)


def _cut_out(
    rng: np.random.Generator,
    labels: np.ndarray,
    kind: Kind,
    center: tuple[int, int],
    angle: float,
    size: float,
) -> tuple[tuple[slice, slice], np.ndarray | None]:
    """Draw one nucleus and keep what the earlier ones leave visible.

    Returns:
        The window in the label map and the visible part there, bool; None instead
        of the part where there is no room.
    """
    aspect = rng.uniform(*kind.aspect)
    a = kind.length * size * np.clip(rng.normal(1, 0.14), 0.6, 1.5) / 2
    b = a / aspect
    reach = int(1.4 * a) + 3
    rows, columns = (
        slice(max(0, c - reach), min(n, c + reach + 1))
        for c, n in zip(center, labels.shape, strict=True)
    )
    window = rows, columns
    y, x = np.mgrid[window]
    y, x = y - center[0], x - center[1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    phi = np.arctan2(v / b, u / a)
    orders = np.arange(2, 6)  # of the waves that make the outline uneven
    waves = rng.normal(0, kind.roughness, 4) / np.sqrt(orders - 1)
    phases = rng.uniform(0, 2 * np.pi, 4)
    radius = np.hypot(u / a, v / b) / (1 + np.cos(phi[..., None] * orders + phases) @ waves)
    gap = rng.choice([0.0, 3.0], p=[0.45, 0.55])  # px; some crowd, most keep a distance
    taken = labels[window] > 0
    nucleus = radius < 1
    hidden = (nucleus & taken).sum()
    if hidden > MAX_HIDDEN * nucleus.sum() or (gap and (taken & (radius < 1 + gap / b)).any()):
        return window, None
    parts = np.zeros(nucleus.shape, np.int32)
    ndimage.label(ndimage.binary_opening(nucleus & ~taken), output=parts)
    part = parts == np.argmax(np.bincount(parts.ravel(), minlength=2)[1:]) + 1
    if part.sum() < MIN_AREA or (ndimage.binary_fill_holes(part) != part).any():
        return window, None
    return window, part


def _stain(
    rng: np.random.Generator, tissue: Tissue, labels: np.ndarray, kinds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Amounts of hematoxylin and eosin, float, (H, W), about 0..2."""
    depth, shape = tissue.depth, labels.shape
    nearest = np.zeros((2, *shape), np.int32)  # left so if there are no nuclei
    distance = np.asarray(
        ndimage.distance_transform_edt(labels == 0, return_indices=True, indices=nearest)
    )
    owner = labels[tuple(nearest)]  # the nucleus whose cell a pixel belongs to
    fine, coarse, patches = (noise(rng, shape, sigma) for sigma in (0.9, 2.2, 9))

    # Stroma: bundles of collagen with clefts between them.
    fibres = smear(noise(rng, shape, 1.0), tissue.angle, 14)
    bundles = smear(noise(rng, shape, 3.5), tissue.angle, 26)
    eosin = 0.62 + 0.07 * fibres + 0.10 * bundles + 0.06 * patches + 0.05 * fine
    eosin *= 1 - 0.85 * step(bundles - rng.uniform(1.2, 2.0), 0.25)
    hematoxylin = 0.05 + 0.02 * fibres

    # Epithelium: granular cytoplasm, cell borders, white lumina, a basement membrane.
    tone = rng.normal(1, 0.12, kinds.size)[owner]
    clearing = rng.uniform(0, 0.7)
    cytoplasm = rng.uniform(0.42, 0.65) * tone * (1 + 0.16 * fine + 0.16 * coarse + 0.15 * patches)
    cytoplasm *= 1 - clearing * step(distance - 0.25 * tissue.diameter + 3 * coarse, 5)
    edges = cv2.morphologyEx(owner.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((2, 2))) > 0
    cytoplasm += rng.uniform(0.1, 0.5) * cv2.GaussianBlur(edges.astype(np.float32), (0, 0), 1)
    inside = step(depth, 1.5)
    lumen = step(depth - tissue.lumen_depth + 1.2 * coarse + 4 * patches, 2)
    eosin += inside * (cytoplasm - eosin)
    hematoxylin += inside * (rng.uniform(0.03, 0.15) * (1 + 0.3 * coarse) - hematoxylin)
    eosin += 0.2 * np.exp(-(((depth + 2) / 2) ** 2))
    secretion = rng.uniform(0, 0.2) * step(patches - 0.5 + 0.4 * coarse, 0.5)
    tissue_left = 1 - lumen * (0.96 - secretion)
    eosin, hematoxylin = eosin * tissue_left, hematoxylin * tissue_left

    # Nuclei: rim, chromatin, nucleoli; the cytoplasm shrinks a little from some of them.
    looks = np.array([kind[3:] for kind in KINDS])[kinds]  # stain, clumps, rim, nucleoli, halo
    looks *= rng.lognormal(0, [0.2, 0.3, 0.3, 0.3, 0.6], looks.shape)
    stain, clumps, rim, nucleoli, halo = looks.T
    gap = np.exp(-(((distance - 1.5) / 1.6) ** 2)) * step(noise(rng, shape, 5) - 0.3, 0.6)
    eosin *= 1 - np.clip(1.8 * halo[owner] * gap, 0, 0.9)
    footprint = np.ones((3, 3))
    border = cv2.morphologyEx(labels.astype(np.float32), cv2.MORPH_GRADIENT, footprint) > 0
    to_border = distance_within(~border)
    chromatin = 0.8 * noise(rng, shape, 1.3) + 0.5 * fine + 0.4 * coarse
    dots = (rng.random(shape) < nucleoli[labels] * 3.0 / tissue.diameter**2) & (to_border > 3)
    dots = np.clip(cv2.GaussianBlur(dots.astype(np.float32), (0, 0), 1.7) * 18, 0, 1)
    density = 0.8 + clumps[labels] * chromatin + rim[labels] * np.exp(-((to_border / 1.6) ** 2))
    density = stain[labels] * (np.clip(density, 0.25, 2) + 0.6 * dots)
    nuclear = cv2.GaussianBlur((labels > 0).astype(np.float32), (0, 0), 0.6)
    hematoxylin += nuclear * (density - hematoxylin)
    eosin += nuclear * (0.3 + 0.05 * coarse - eosin)
    return hematoxylin * rng.uniform(1.1, 2.1), eosin * rng.uniform(0.8, 1.5)


def _photograph(rng: np.random.Generator, hematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    """Pass light through the dyes (Beer-Lambert) onto a sensor: uint8, (H, W, 3), RGB."""
    dyes = (DYE_MIX + rng.normal(0, DYE_SPREAD, DYE_MIX.shape)) @ STAIN_OD
    amounts = np.clip(np.stack([hematoxylin, eosin], axis=-1), 0, None)
    light = np.array(WHITE) * np.exp(-amounts @ dyes)
    light = cv2.GaussianBlur(light, (0, 0), rng.uniform(0.45, 0.8))
    grain = cv2.GaussianBlur(rng.normal(0, 1, light.shape), (0, 0), 0.6)
    return np.clip(np.rint(light + 4 * grain), 0, 255).astype(np.uint8)


def write_dataset(
    folder: Path, num_train: int = 16, num_test: int = 4, size: int = 256, seed: int = 0
) -> None:
    """Write images and truth in the layout of the class data.

    ``train/<id>/images/<id>.png`` and ``train/<id>/masks/mask_0001.png`` (0 or 255, one
    nucleus each), ``test/<id>.png``, ``test_img_ids.json`` and, beyond the class data,
    ``test_truth.json``: the truth of the test images as COCO polygons on pixel edges.

    Args:
        folder: must not exist or must be empty; it appears only once it is complete.
        num_train: training images.
        num_test: test images.
        size: px, side of the square images.
        seed: 0 or more; the same seed gives the same files.

    Raises:
        FileExistsError: ``folder`` is a file or not empty.
        ValueError: a count or the seed is negative, or the size is below 32 px.
    """
    with _new_folder(folder, num_train, num_test, seed) as partial:
        seeds = _seeds(seed, num_train + num_test)
        (partial / 'train').mkdir()
        (partial / 'test').mkdir()
        for number, image_seed in enumerate(seeds[:num_train], start=1):
            name = f'synthetic-train-{number:03d}'
            img, labels = synthesize(image_seed, size, size)
            images, masks = (partial / 'train' / name / part for part in ('images', 'masks'))
            images.mkdir(parents=True)
            masks.mkdir()
            (images / f'{name}.png').write_bytes(encode('.png', img[..., ::-1]))
            for label in range(1, labels.max() + 1):
                (masks / f'mask_{label:04d}.png').write_bytes(
                    encode('.png', np.uint8(255) * (labels == label))
                )
        truth = dict(images=[], categories=make_categories(), annotations=[])
        for image_id, image_seed in enumerate(seeds[num_train:], start=1):
            file_name = f'synthetic-test-{image_id:03d}.png'
            img, labels = synthesize(image_seed, size, size)
            (partial / 'test' / file_name).write_bytes(encode('.png', img[..., ::-1]))
            truth['images'].append(dict(file_name=file_name, height=size, id=image_id, width=size))
            truth['annotations'] += make_annotations(
                labels, image_id, len(truth['annotations']) + 1
            )
        (partial / 'test_img_ids.json').write_text(json.dumps(truth['images']) + '\n')
        (partial / 'test_truth.json').write_text(json.dumps(truth) + '\n')


def write_typed_dataset(folder: Path, num: int = 16, size: int = 256, seed: int = 0) -> None:
    """Write images whose nuclei have types, as ``nucseg prepare label-map`` reads them.

    ``images/<id>.png``, ``labels/<id>.png`` (16 bit) and ``types.csv``.

    Args:
        folder: must not exist or must be empty; it appears only once it is complete.
        num: images.
        size: px, side of the square images.
        seed: 0 or more; the same seed gives the same files.

    Raises:
        FileExistsError: ``folder`` is a file or not empty.
        ValueError: the count or the seed is negative, or the size is below 32 px.
    """
    with _new_folder(folder, num, seed) as partial:
        rows = ['file_name,label,type']
        for name in ('images', 'labels'):
            (partial / name).mkdir()
        for number, image_seed in enumerate(_seeds(seed, num), start=1):
            name = f'synthetic-{number:03d}.png'
            img, labels, types = synthesize_types(image_seed, size, size)
            (partial / 'images' / name).write_bytes(encode('.png', img[..., ::-1]))
            (partial / 'labels' / name).write_bytes(encode('.png', labels.astype(np.uint16)))
            rows += [f'{name},{label},{TYPES[kind]}' for label, kind in enumerate(types[1:], 1)]
        (partial / 'types.csv').write_text('\n'.join(rows) + '\n')


def _seeds(seed: int, count: int) -> list[int]:
    return [int(one) for one in np.random.SeedSequence(seed).generate_state(count)]


@contextmanager
def _new_folder(folder: Path, *numbers: int) -> Iterator[Path]:
    """As ``new_folder``, but what is wrong is said before; numbers must not be negative."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f'{folder}: not empty, expected a new or an empty folder')
    if min(numbers) < 0:
        raise ValueError(f'image counts and seed must not be negative, got {numbers}')
    with new_folder(folder) as partial:
        yield partial


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser('python -m nucseg_mmdet.synthetic.fields', description=__doc__)
    parser.add_argument('out', type=Path, help='new or empty folder')
    parser.add_argument('--train', type=int, default=16, help='training images (default: 16)')
    parser.add_argument('--test', type=int, default=4, help='test images (default: 4)')
    parser.add_argument('--size', type=int, default=256, help='side in px (default: 256)')
    parser.add_argument('--seed', type=int, default=0, help='(default: 0)')
    parser.add_argument(
        '--types',
        action='store_true',
        help='nuclei of three types, as label maps with types.csv; training images only',
    )
    args = parser.parse_args(argv)
    try:
        if args.types:
            write_typed_dataset(args.out, args.train, args.size, args.seed)
            print(f'{args.out}: {args.train} images with types of nuclei')
            return 0
        write_dataset(args.out, args.train, args.test, args.size, args.seed)
    except (ValueError, FileExistsError) as error:
        raise UserError(str(error)) from None
    print(f'{args.out}: {args.train} training and {args.test} test images')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
