"""What is damaged: a small intact example of every format that is read, and who reads it."""

import gzip
import importlib
import io
import json
import os
import pickle
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.io import savemat

import nucseg_mmdet.registration  # noqa: F401  once, and not in each fork
from nucseg_mmdet.engine import config_edits, detectron2
from nucseg_mmdet.inference import shards
from nucseg_mmdet.inference.tiling import NOTHING
from nucseg_mmdet.slides.base import RegionError
from nucseg_mmdet.slides.open import open_slide
from nucseg_mmdet.slides.tissue import tissue_mask
from nucseg_mmdet.synthetic.fields import synthesize
from nucseg_mmdet.utils.errors import UserError, exit_code
from tests.hammer import mutations

ROOT = Path(__file__).parents[2]
CONFIG_FILE = str(ROOT / 'configs/demo/mask-rcnn_r18_fpn_demo_nuclei.py')
SIDE = 96  # px
IMAGE, LABELS = synthesize(1, SIDE, SIDE, 8)
LOOKED_AT = 2_000  # px a side of a slide that are read, however large it says it is


@dataclass(frozen=True)
class Subject:
    """A format and one of its readers.

    Attributes:
        name: of both.
        file: the one to damage, in the working folder.
        make: writes the intact files into a folder.
        read: runs the reader in that folder; returns its exit code.
        damage: kinds that suit the format.
        result: what the reader made, for comparison; None where damage can make other valid
            content, such as another number in a text.
        expected: what a strict and independent reader makes of the file; it raises where damage
            can be told. None: the format has a checksum, so that only the intact result is right.
    """

    name: str
    file: str
    make: Callable[[Path], None]
    read: Callable[[], int]
    damage: tuple[mutations.Damage, ...] = mutations.BYTES
    result: Callable[[Path], Any] | None = None
    expected: Callable[[Path], Any] | None = None


def tool(name: str, *arguments: str) -> Callable[[], int]:
    """A command or tool of the project, called as from a terminal."""

    def call() -> int:
        main = importlib.import_module(name).main
        return main(list(arguments))

    return call


def told(action: Callable[[], Any]) -> Callable[[], int]:
    """Part of the package, with the errors that it may raise told as a tool tells them."""

    @exit_code
    def main() -> int:
        try:
            action()
        except RegionError as error:
            raise UserError(str(error)) from None
        return 0

    return main


# ----------------------------------------------------------------- strict readers, for comparison


def strict_png(path: Path) -> np.ndarray:
    """Decode a PNG whose every chunk and whose pixels have the right checksum."""
    data = path.read_bytes()
    place, pixels = 8, b''
    while data[place + 4 : place + 8] != b'IEND':
        length, kind = struct.unpack('>I4s', data[place : place + 8])
        body = data[place + 8 : place + 8 + length]
        (crc,) = struct.unpack('>I', data[place + 8 + length : place + 12 + length])
        if zlib.crc32(kind + body) != crc:
            raise ValueError(f'CRC of {kind}')
        pixels += body if kind == b'IDAT' else b''
        place += 12 + length
    zlib.decompress(pixels)
    with Image.open(path) as image:
        return np.asarray(image.convert('RGB'))


def strict_jpeg(path: Path) -> np.ndarray:
    """Decode a JPEG of which libjpeg has nothing to say."""
    with tempfile.TemporaryFile() as said:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        said.seek(0)
        if message := said.read():
            raise ValueError(message.decode(errors='replace').strip())
    if pixels is None:
        raise ValueError('not decoded')
    return pixels[..., ::-1]


def strict_tiff(path: Path) -> np.ndarray:
    """Decode a TIFF whose zlib streams end with the right checksum."""
    with tifffile.TiffFile(path) as tiff:
        page = max(tiff.series, key=lambda series: series.keyframe.size).keyframe
        if page.compression in (8, 32946):
            data = path.read_bytes()
            for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
                zlib.decompress(data[start : start + length])
        return page.asarray()


# ------------------------------------------------------------------------------ images as training


def labeled(suffix: str, encode: Callable[[Path], None]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in ('images', 'labels'):
            (folder / 'raw' / name).mkdir(parents=True)
        encode(folder / f'raw/images/a{suffix}')
        np.save(folder / 'raw/labels/a.npy', LABELS)

    return make


def prepared_pixels(folder: Path) -> np.ndarray:
    (path,) = (folder / 'out/train').iterdir()
    with Image.open(path) as image:
        return np.asarray(image.convert('RGB'))


def prepared_truth(folder: Path) -> list:
    content = json.loads((folder / 'out/annotations/train.json').read_text())
    return [content['images'], content['annotations']]


def write_cv2(path: Path) -> None:
    cv2.imwrite(str(path), IMAGE[..., ::-1])


def write_tiff(**options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        options.setdefault('photometric', 'rgb')
        tifffile.imwrite(path, IMAGE, **options)

    return write


TILED = dict(tile=(32, 32), resolution=(40_000, 40_000), resolutionunit='CENTIMETER')
TIFFS = {
    'plain': write_tiff(rowsperstrip=16),
    'LZW': write_tiff(compression='lzw', predictor=True, **TILED),
    'zlib': write_tiff(compression='zlib', rowsperstrip=16),
    'tiled BigTIFF': write_tiff(compression='zlib', bigtiff=True, **TILED),
    'OME': write_tiff(ome=True, metadata=dict(axes='YXS', PhysicalSizeX=0.25, PhysicalSizeY=0.25)),
    'JPEG': write_tiff(compression='jpeg', **TILED),
}
LABEL_RUN = ('label-map', 'raw', 'out', '--workers', '1')


def prepare(*arguments: str) -> Callable[[], int]:
    return tool('nucseg_mmdet.commands.prepare', *arguments)


def training_images() -> list[Subject]:
    subjects = []
    encoders = {'PNG': ('.png', write_cv2, strict_png), 'JPEG': ('.jpg', write_cv2, strict_jpeg)}
    encoders |= {
        f'TIFF {kind}': ('.tif', write, strict_tiff)
        for kind, write in TIFFS.items()
        if kind != 'JPEG'
    }
    for kind, (suffix, write, strict) in encoders.items():
        file = f'raw/images/a{suffix}'
        subjects.append(
            Subject(
                f'{kind} prepared', file, labeled(suffix, write), prepare(*LABEL_RUN),
                result=prepared_pixels, expected=strict,
            )
        )  # fmt: skip
    return subjects


# -------------------------------------------------------------------------------- images as slides


def look(name: str) -> Callable[[], int]:
    def action() -> None:
        with open_slide(Path(name)) as slide:
            width, height = (min(side, LOOKED_AT) for side in (slide.width, slide.height))
            np.save('seen.npy', slide.read(0, 0, width, height))
            tissue_mask(slide)

    return told(action)


def seen(folder: Path) -> np.ndarray:
    return np.load(folder / 'seen.npy')


def write_svs(path: Path) -> None:
    """As an Aperio scanner describes it, so that OpenSlide takes it for one."""
    text = 'Aperio Image Library v11\n96x96 (32x32) JPEG/RGB Q=90|AppMag = 40|MPP = 0.2500'
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for step in (1, 4):
            tiff.write(
                np.ascontiguousarray(IMAGE[::step, ::step]), description=text, tile=(32, 32),
                compression='jpeg', photometric='rgb', metadata=None, software=None,
            )  # fmt: skip


def slides() -> list[Subject]:
    encoders = {'PNG': ('.png', write_cv2, strict_png), 'JPEG': ('.jpg', write_cv2, strict_jpeg)}
    encoders |= {f'TIFF {kind}': ('.tif', write, strict_tiff) for kind, write in TIFFS.items()}
    subjects = []
    for kind, (suffix, write, strict) in encoders.items():
        name = f'a{suffix}'
        in_jpeg = kind == 'TIFF JPEG'  # tells of damage no more than a JPEG file does
        subjects.append(
            Subject(
                f'{kind} as slide', name, _into(name, write), look(name),
                result=None if in_jpeg else seen, expected=strict,
            )
        )  # fmt: skip
    subjects.append(Subject('SVS as slide', 'a.svs', _into('a.svs', write_svs), look('a.svs')))
    return subjects


def _into(name: str, write: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: write(folder / name)


# ------------------------------------------------------------------------------------------- truth


def truths() -> list[Subject]:
    """Label maps, MATLAB files, outlines, COCO."""

    def label_folder(name: str, write: Callable[[Path], None]) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            labeled('.png', write_cv2)(folder)
            (folder / 'raw/labels/a.npy').unlink()
            write(folder / 'raw/labels' / name)

        return make

    def types(folder: Path) -> None:
        labeled('.png', write_cv2)(folder)
        rows = [f'a.png,{number},round' for number in np.unique(LABELS[LABELS > 0])]
        (folder / 'raw/types.csv').write_text('\n'.join(['file_name,label,type', *rows, '']))

    writers = {
        'a.npy': lambda path: np.save(path, LABELS),
        'a.png': lambda path: cv2.imwrite(str(path), LABELS.astype(np.uint16)),
        'a.tif': lambda path: tifffile.imwrite(path, LABELS.astype(np.uint16), compression='zlib'),
    }
    subjects = [
        Subject(
            f'label map {name}', f'raw/labels/{name}', label_folder(name, write),
            prepare(*LABEL_RUN), result=prepared_truth if name == 'a.png' else None,
        )
        for name, write in writers.items()
    ]  # fmt: skip
    subjects.append(
        Subject('types.csv', 'raw/types.csv', types, prepare(*LABEL_RUN), mutations.TEXT)
    )
    subjects.append(
        Subject('MAT', 'raw/Labels/a.mat', _mat, prepare('mat', 'raw', 'out', '--workers', '1'))
    )
    xml = prepare('monuseg-xml', 'raw', 'out', '--workers', '1')
    subjects.append(Subject('XML', 'raw/a.xml', _xml, xml, mutations.TEXT))
    qupath = prepare('qupath', 'raw', 'out', '--regions', 'all', '--workers', '1')
    subjects.append(Subject('QuPath GeoJSON', 'raw/a.geojson', _geojson, qupath, mutations.JSON))
    coco = prepare('coco', 'truth.json', 'out', '--workers', '1')
    subjects.append(Subject('COCO prepared', 'truth.json', _coco, coco, mutations.JSON))
    return subjects


def _mat(folder: Path) -> None:
    for name in ('Images', 'Labels'):
        (folder / 'raw' / name).mkdir(parents=True)
    write_cv2(folder / 'raw/Images/a.png')
    savemat(folder / 'raw/Labels/a.mat', dict(inst_map=LABELS), do_compression=True)


def _xml(folder: Path) -> None:
    (folder / 'raw').mkdir()
    write_cv2(folder / 'raw/a.png')
    regions = []
    for number in range(4):
        x, y = 10 + 20 * number, 30.5
        corners = [(x, y), (x + 9, y), (x + 9.5, y + 12), (x, y + 12)]
        points = ''.join(f'<Vertex X="{px}" Y="{py}"/>' for px, py in corners)
        regions.append(f'<Region Id="{number}"><Vertices>{points}</Vertices></Region>')
    text = f'<Annotations><Annotation Name="n"><Regions>{"".join(regions)}</Regions></Annotation>'
    (folder / 'raw/a.xml').write_text(f'<?xml version="1.0"?>{text}</Annotations>')


def _geojson(folder: Path) -> None:
    (folder / 'raw').mkdir()
    write_tiff(**TILED)(folder / 'raw/a.tif')
    features = []
    for number in range(4):
        x, y = 10 + 20 * number, 30.5
        ring = [[x, y], [x + 9, y], [x + 9.5, y + 12], [x, y + 12], [x, y]]
        kind = dict(name='Tumor', color=[200, 0, 0])
        features.append(
            dict(
                type='Feature', id=f'{number}', geometry=dict(type='Polygon', coordinates=[ring]),
                properties=dict(objectType='annotation', classification=kind),
            )
        )  # fmt: skip
    content = dict(type='FeatureCollection', features=features)
    (folder / 'raw/a.geojson').write_text(json.dumps(content))


def coco_truth() -> dict:
    """Polygons and run lengths, of two images."""
    rle = coco_mask.encode(np.asfortranarray(LABELS.max() == LABELS, np.uint8))
    box = [20, 20, 40, 20, 40, 44, 20, 44]
    segmentations = [[box], dict(size=[SIDE, SIDE], counts=rle['counts'].decode()), [box]]
    return dict(
        images=[
            dict(id=number, file_name=f'{name}.png', width=SIDE, height=SIDE)
            for number, name in enumerate('ab', start=1)
        ],
        annotations=[
            dict(
                id=number, image_id=1 + number // 2, category_id=1, iscrowd=0, area=480,
                bbox=[20, 20, 20, 24], segmentation=segmentation,
            )
            for number, segmentation in enumerate(segmentations)
        ],
        categories=[dict(id=1, name='nucleus')],
    )  # fmt: skip


def _coco(folder: Path) -> None:
    for name in 'ab':
        write_cv2(folder / f'{name}.png')
    (folder / 'truth.json').write_text(json.dumps(coco_truth()))


# ------------------------------------------------------------------------------ results and scores


def coco_results() -> list[dict]:
    return [
        dict(image_id=1 + number // 2, category_id=1, score=0.9 - number / 10, bbox=[0, 0, 9, 9],
             segmentation=coco_mask.frPyObjects([[20, 20, 40, 20, 40, 44]], SIDE, SIDE)[0])
        for number in range(3)
    ]  # fmt: skip


def _scored(name: str, pack: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        _coco(folder)
        results = coco_results()
        for result in results:
            result['segmentation']['counts'] = result['segmentation']['counts'].decode()
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(pack(json.dumps(results).encode()))

    return make


def _zip(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('answer.json', data)
    return buffer.getvalue()


def scores(folder: Path) -> Any:
    return json.loads((folder / 'scores.json').read_text())


def _browsed(folder: Path) -> None:
    for name in ('annotations', 'train'):
        (folder / 'data' / name).mkdir(parents=True)
    for name in 'ab':
        write_cv2(folder / f'data/train/{name}.png')
    truth = coco_truth()
    truth['annotations'] = [truth['annotations'][0], truth['annotations'][2]]  # polygons alone
    (folder / 'data/annotations/train.json').write_text(json.dumps(truth))


def results() -> list[Subject]:
    browse = tool(
        'tools.analysis_tools.browse_data', CONFIG_FILE, '--data-root', 'data', '--out', 'out'
    )
    subjects = [
        Subject('COCO trained on', 'data/annotations/train.json', _browsed, browse, mutations.JSON)
    ]
    packers = {'answer.json': bytes, 'answer.json.gz': gzip.compress, 'answer.zip': _zip}
    for name, pack in packers.items():
        run = tool('nucseg_mmdet.commands.score', 'truth.json', name, '--json', 'scores.json')
        plain = pack is bytes
        subjects.append(
            Subject(
                f'results {name}', name, _scored(name, pack), run,
                mutations.JSON if plain else mutations.BYTES, result=None if plain else scores,
            )
        )  # fmt: skip
    run = tool('nucseg_mmdet.commands.score', 'truth.json', 'answer.json', '--json', 'scores.json')
    make = _scored('answer.json', bytes)
    subjects.append(Subject('COCO scored', 'truth.json', make, run, mutations.JSON))
    return subjects


# -------------------------------------------------------------------------------- weights and runs


def _weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        'backbone.conv1.weight': torch.randn(64, 3, 7, 7, generator=generator),
        'backbone.bn1.running_var': torch.rand(64, generator=generator),
    }


def _checkpoint(folder: Path) -> None:
    torch.save(dict(meta=dict(iter=7), state_dict=_weights()), folder / 'a.pth')


def published(folder: Path) -> dict:
    content = torch.load(folder / 'out.pth', weights_only=True)
    return {key: value.numpy() for key, value in content['state_dict'].items()}


def _pickle(folder: Path) -> None:
    weights = {f'res2.{number}': np.ones((3, 4), np.float32) for number in range(3)}
    (folder / 'a.pkl').write_bytes(pickle.dumps(dict(model=weights, __author__='x'), protocol=2))


def _shard(folder: Path) -> None:
    shards.write_row(folder / 'a.npz', NOTHING, [(1, 'x')])


CONFIG = """_base_ = []
model = dict(type='MaskRCNN', backbone=dict(depth=18, out_indices=(0, 1, 2, 3)))
train_dataloader = dict(batch_size=2, dataset=dict(ann_file='a.json', data_prefix=dict(img='x')))
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05))
"""


def _run(folder: Path) -> None:
    """A work folder that was trained and tested, and its log."""
    _scored('work/truth_results.json', bytes)(folder)
    scores = {'nuclei/AP50@100': 0.2, 'nuclei/AP50@100_ceiling': 0.25, 'nuclei/PQ': 0.5}
    tested = dict(annotations='truth.json', images='.', checkpoint='iter_2.pth', score_thr=0.5)
    card = dict(config='a', started='2026-11-28 10:00', iteration=2, train_seconds=61.5, seed=0,
                scores={'truth.json': tested | scores}, versions=dict(torch='2.13'))  # fmt: skip
    (folder / 'work/run_card.json').write_text(json.dumps(card))
    log = folder / 'work/20261128_100000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    lines = [
        dict(lr=0.1, loss=1.5, step=1),
        dict(lr=0.1, loss=1.2, step=2),
        {'a/PQ': 0.5, 'step': 0},
    ]
    log.write_text('\n'.join(json.dumps(line) for line in lines))


def weights_and_runs() -> list[Subject]:
    return [
        Subject(
            'checkpoint', 'a.pth', _checkpoint,
            tool('tools.model_converters.publish_model', 'a.pth', 'out.pth'), result=published,
        ),
        Subject(
            'run card reported', 'work/run_card.json', _run,
            tool('nucseg_mmdet.commands.report', 'work'), mutations.JSON,
        ),
        Subject(
            'run card in the table', 'work/run_card.json', _run,
            tool('tools.analysis_tools.results_table', '.', '--csv', 'out.csv'), mutations.JSON,
        ),
        Subject(
            'log of a run', 'work/20261128_100000/vis_data/scalars.json', _run,
            tool('nucseg_mmdet.commands.report', 'work'), mutations.TEXT,
        ),
        Subject('Detectron2 .pkl', 'a.pkl', _pickle, told(lambda: detectron2.read('a.pkl'))),
        Subject(
            'config', 'a.py', lambda folder: (folder / 'a.py').write_text(CONFIG),
            told(lambda: config_edits.load_config('a.py', {}, None)), mutations.TEXT,
        ),
        Subject(
            'shard', 'a.npz', _shard,
            told(lambda: (shards.read_row(Path('a.npz')), shards.read_broken(Path('a.npz')))),
        ),
    ]  # fmt: skip


SUBJECTS = {
    subject.name: subject
    for group in (training_images, slides, truths, results, weights_and_runs)
    for subject in group()
}
