"""Files made to do harm, and files that are no files: refused in a few lines, nothing else done.

Each is tried in a folder with a ``victim`` that must stay as it is; code in a file would leave
a file named ``hit``.
"""

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import tifffile
import torch
from scipy.io import savemat
from scipy.sparse import csc_matrix

from nucseg_mmdet.engine import config_edits
from tests.hammer import isolation, subjects
from tests.hammer.damaged import Verdict
from tests.hammer.subjects import LABELS, SIDE, SUBJECTS, told

VICTIM = 'must stay'
MUCH = 5 << 29  # bytes of a bomb: 2.5 GiB, more than the limit of memory


@dataclass(frozen=True)
class Hostile:
    """An input that must be refused.

    Attributes:
        kind: of hostility.
        name: of the input.
        make: writes it into a folder.
        read: runs the reader there; returns its exit code.
        codes: exit codes that are right.
    """

    kind: str
    name: str
    make: Callable[[Path], None]
    read: Callable[[], int]
    codes: tuple[int, ...] = (2,)


def attack(scratch: Path, kinds: list[str] | None = None) -> Iterator[Verdict]:
    """Try all hostile inputs, or those of some kinds."""
    for number, hostile in enumerate(every()):
        if not kinds or hostile.kind in kinds:
            folder = isolation.fresh(scratch / f'hostile{number}')
            (folder / 'victim').write_text(VICTIM)
            hostile.make(folder)
            ended = isolation.run(hostile.read, folder)
            yield Verdict(hostile.kind, hostile.name, _judge(hostile, folder, ended))


def _judge(hostile: Hostile, folder: Path, ended: isolation.Ended) -> str | None:
    found = isolation.complaint(ended, hostile.codes)
    if (folder / 'hit').exists():
        return 'code ran'
    if (folder / 'victim').read_text() != VICTIM:
        return 'a file outside was written'
    if ended.code and (folder / 'out').exists() and not (folder / 'out').is_symlink():
        return 'refused, but something was written'
    return found


def every() -> Iterator[Hostile]:
    """All hostile inputs."""
    for table in (no_files, bombs, code, texts, arrays, weights, links, configs):
        yield from table()


# ------------------------------------------------------------------------------------ no files


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to('/dev/zero')


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _huge(path: Path) -> None:
    """A sparse file: its own start, then zeros."""
    path.write_bytes(b'')
    os.truncate(path, 1 << 35)


NO_FILES = dict(
    FIFO=_fifo,
    endless=_endless,
    loop=_loop,
    folder=Path.mkdir,
    empty=Path.touch,
    text=lambda path: path.write_text('hello\n'),
    huge=_huge,
    missing=lambda path: None,
)


# What is valid: an empty file is Python; types, logs and other runs may be missing.
MAY_BE = {
    'config': ('empty',),
    'types.csv': ('missing',),
    'log of a run': ('empty', 'missing', 'loop'),
    'run card in the table': ('missing',),
}


def no_files() -> Iterator[Hostile]:
    for subject in SUBJECTS.values():
        for name, put in NO_FILES.items():
            if name in MAY_BE.get(subject.name, ()):
                continue

            def make(folder: Path, subject=subject, put=put) -> None:
                subject.make(folder)
                (folder / subject.file).unlink()
                put(folder / subject.file)

            yield Hostile('no file', f'{subject.name}: {name}', make, subject.read)


# --------------------------------------------------------------------------------------- bombs


def png(width: int, height: int) -> bytes:
    """A gray PNG of zeros, whole and small."""
    packer = zlib.compressobj(9)
    row = bytes(width + 1)
    pixels = b''.join(packer.compress(row) for _ in range(height)) + packer.flush()
    chunks = [
        (b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)),
        (b'IDAT', pixels),
        (b'IEND', b''),
    ]
    packed = [
        struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b'\x89PNG\r\n\x1a\n' + b''.join(packed)


def _tall_jpeg() -> bytes:
    """A JPEG of 65,500 px a side by its header."""
    data = bytearray(cv2.imencode('.jpg', subjects.IMAGE)[1].tobytes())
    place = data.index(b'\xff\xc0') + 5
    data[place : place + 4] = struct.pack('>HH', 65_500, 65_500)
    return bytes(data)


def _tiff_saying(**tags: int) -> bytes:
    """A TIFF of one tile, whose tags say otherwise."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, subjects.IMAGE, photometric='rgb', tile=(32, 32), compression='zlib')
    buffer.seek(0)
    with tifffile.TiffFile(buffer, mode='r+b') as tiff:
        for name, value in tags.items():
            tiff.pages[0].tags[name].overwrite(value, dtype='I')
    return buffer.getvalue()


def _gzip_bomb() -> bytes:
    return gzip.compress(bytes(1 << 26), 9) * (MUCH >> 26)


def _zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive,
        archive.open('answer.json', 'w', force_zip64=True) as file,
    ):
        for _ in range(MUCH >> 26):
            file.write(b' ' * (1 << 26))
    return buffer.getvalue()


def _npz_bomb() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, scores=np.zeros(1))
    with zipfile.ZipFile(buffer, 'a', zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, dict(descr='<f8', fortran_order=False, shape=(MUCH // 8,))
        )
        with archive.open('cut.npy', 'w', force_zip64=True) as file:
            file.write(header.getvalue())
            for _ in range(MUCH >> 26):
                file.write(bytes(1 << 26))
    return buffer.getvalue()


def replaced(name: str, data: Callable[[], bytes] | bytes) -> Callable[[Path], None]:
    """The intact files of a subject, with other bytes in the one that is read."""
    subject = SUBJECTS[name]

    def make(folder: Path) -> None:
        subject.make(folder)
        (folder / subject.file).write_bytes(data if isinstance(data, bytes) else data())

    return make


def hostile(kind: str, subject: str, name: str, data: Callable[[], bytes] | bytes) -> Hostile:
    """Bytes for the reader of a subject."""
    return Hostile(kind, f'{subject}: {name}', replaced(subject, data), SUBJECTS[subject].read)


def bombs() -> Iterator[Hostile]:
    for subject in ('PNG prepared', 'PNG as slide'):
        yield hostile('bomb', subject, '30,000 px a side', lambda: png(30_000, 30_000))
        yield hostile(
            'bomb', subject, '4,294,967,295 px wide', lambda: png(8, 8)[:16] + b'\xff' * 4
        )
    for subject in ('JPEG prepared', 'JPEG as slide'):
        yield hostile('bomb', subject, '65,500 px a side', _tall_jpeg)
    for subject in ('TIFF zlib prepared', 'TIFF zlib as slide'):
        for side in (1 << 20, 16_777_472, (1 << 32) - 1):
            for tags in (('ImageLength',), ('ImageWidth', 'ImageLength')):
                data = _tiff_saying(**dict.fromkeys(tags, side))
                yield hostile('bomb', subject, f'{" and ".join(tags)} {side:,}', data)
        data = _tiff_saying(TileWidth=1 << 20, TileLength=1 << 20)
        yield hostile('bomb', subject, 'tiles of 1,048,576 px', data)
    yield hostile('bomb', 'results answer.json.gz', '2.5 GiB of zeros', _gzip_bomb)
    yield hostile('bomb', 'results answer.zip', '2.5 GiB of spaces', _zip_bomb)
    yield hostile('bomb', 'shard', '2.5 GiB of zeros', _npz_bomb)
    for count in (10**9, 10**12):
        yield hostile('bomb', 'checkpoint', f'{count:,} times one number', lambda n=count: _pth(
            dict(state_dict={'a.weight': torch.zeros(1).expand(n)})
        ))  # fmt: skip


# ---------------------------------------------------------------------------------------- code


class _Touch:
    """Pickled, a call that leaves a file."""

    def __reduce__(self) -> tuple:
        return os.system, ('touch hit',)


def _pth(content: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def code() -> Iterator[Hostile]:
    objects = np.array([_Touch()], object)
    buffer = io.BytesIO()
    np.save(buffer, objects, allow_pickle=True)
    yield hostile('code', 'label map a.npy', 'an array of objects', buffer.getvalue())
    buffer = io.BytesIO()
    np.savez(buffer, cut=objects)
    yield hostile('code', 'shard', 'an array of objects', buffer.getvalue())
    for protocol in range(6):
        data = pickle.dumps(dict(model=_Touch()), protocol)
        yield hostile('code', 'Detectron2 .pkl', f'protocol {protocol}', data)
        yield hostile('code', 'checkpoint', f'a bare pickle, protocol {protocol}', data)
    for zipped in (True, False):
        data = _pth(dict(state_dict=_Touch()), _use_new_zipfile_serialization=zipped)
        yield hostile('code', 'checkpoint', f'in the weights, zip {zipped}', data)
    yaml = "!!python/object/apply:os.system ['touch hit']\n"
    for suffix, text in (('yaml', yaml), ('yml', yaml), ('json', '{"model": {}}')):

        def load(name=f'a.{suffix}') -> None:
            config_edits.load_config(name, {}, None)

        yield Hostile(
            'code', f'config of {suffix}',
            lambda folder, name=f'a.{suffix}', text=text: (folder / name).write_text(text) and None,
            told(load),
        )  # fmt: skip


# --------------------------------------------------------------------------------------- texts


def _xml(regions: str, head: str = '', encoding: str = 'utf-8') -> bytes:
    body = f'<Annotations><Annotation><Regions>{regions}</Regions></Annotation></Annotations>'
    return f'<?xml version="1.0" encoding="{encoding}"?>{head}{body}'.encode()


def _truth(**changes: object) -> bytes:
    return json.dumps({**subjects.coco_truth(), **changes}).encode()


def _truth_with(part: str, **changes: object) -> bytes:
    truth = subjects.coco_truth()
    truth[part][0].update(changes)
    return json.dumps(truth).encode()


def texts() -> Iterator[Hostile]:
    readers = ('COCO prepared', 'COCO scored', 'results answer.json')
    nested = {'arrays': b'[' * 200_000, 'closed': b'[' * 200_000 + b']' * 200_000,
              'objects': b'{"a":' * 200_000}  # fmt: skip
    numbers = {'5,000 digits': b'[' + b'9' * 5_000 + b']', 'not UTF-8': b'["\xff\xfe"]'}
    for subject in readers:
        for name, data in {**nested, **numbers}.items():
            yield hostile('text', subject, name, data)
    names = dict(NUL='a\0b.png', surrogate='\ud800.png', up='../victim', root='/etc/passwd',
                 escape='\x1b[31m.png', newline='a\nb.png', long='a' * 5_000, empty='')  # fmt: skip
    for name, value in names.items():
        data = _truth_with('images', file_name=value)
        yield hostile('text', 'COCO prepared', f'file_name: {name}', data)
    box = [20, 20, 40, 20, 40, 44, 20, 44]
    wrong = {
        'a polygon of one point': dict(segmentation=[[1, 1]]),
        'a polygon with NaN': dict(segmentation=[[float('nan'), *box[1:]]]),
        'a polygon of text': dict(segmentation=['x']),
        'a huge polygon': dict(segmentation=[[value * 1e6 for value in box]]),
        'an unknown image': dict(image_id=77),
        'counts of 2**40': dict(segmentation=dict(size=[SIDE, SIDE], counts=[2**40])),
        'a size of -1': dict(segmentation=dict(size=[-1, SIDE], counts=[0, 9])),
    }
    for name, changes in wrong.items():
        for subject in ('COCO prepared', 'COCO scored'):
            yield hostile('text', subject, name, _truth_with('annotations', **changes))
    for name, size in {'huge': 10**12, 'another': SIDE + 1}.items():
        data = _truth_with('images', height=size)
        yield hostile('text', 'COCO prepared', f'{name} height', data)
    yield from _xml_texts()
    rows = {'5,000 digits': f'a.png,{"9" * 5_000},x', 'a label twice': 'a.png,1,x\na.png,1,y'}
    for name, row in rows.items():
        data = f'file_name,label,type\n{row}\n'.encode()
        yield hostile('text', 'types.csv', name, data)


def _xml_texts() -> Iterator[Hostile]:
    entity = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;&b;">]>'
    vertices = ''.join(f'<Vertex X="{x}" Y="{x * x % 70}"/>' for x in range(9))
    nested = '<Region>' * 3_000 + vertices + '</Region>' * 3_000
    cases = {
        'an entity': _xml('<Region/>', entity),
        'a file': _xml('<Region/>', '<!DOCTYPE a SYSTEM "victim">'),
        'nested 3,000 deep': _xml(nested),
        'nested 200,000 deep': _xml('<Region>' * 200_000),
        '50,000 bad regions': _xml('<Region Id="1"/>' * 50_000),
        'X="1_0"': _xml('<Region>' + vertices.replace('X="8"', 'X="1_0"') + '</Region>'),
        'X="nan"': _xml('<Region>' + vertices.replace('X="8"', 'X="nan"') + '</Region>'),
    }
    for encoding in ('foo', 'utf-7', 'hex', 'utf-16', 'idna', ''):
        cases[f'encoding {encoding}'] = _xml('<Region/>', encoding=encoding)
    for name, data in cases.items():
        yield hostile('text', 'XML', name, data)


# -------------------------------------------------------------------------------------- arrays


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _npy_saying(shape: str, kind: str = '<i4') -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + '\n'
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header.encode() + bytes(999)


def _mat(content: object) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, dict(inst_map=content))
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=LABELS)
    return buffer.getvalue()


def arrays() -> Iterator[Hostile]:
    shapes = ('(1000000, 1000000)', '(9223372036854775807, 2)', '(-1, 96)', '()', '"x"', '(1e3,)')
    cases = {f'shape {shape}': _npy_saying(shape) for shape in shapes}
    cases['objects'] = _npy_saying('(96, 96)', '|O')
    cases['a zip inside'] = _npz()
    cases['labels of 2**63'] = _npy(LABELS.astype(np.uint64) + np.uint64(2**63))
    cases['complex'] = _npy(LABELS.astype(complex))
    cases['text'] = _npy(LABELS.astype(str))
    cases['infinite'] = _npy(np.where(LABELS, np.inf, 0))
    for name, data in cases.items():
        yield hostile('array', 'label map a.npy', name, data)
    sparse = csc_matrix(LABELS.astype(float))
    for name, content in dict(sparse=sparse, text='x', cells=np.array([[1], 'x'], object)).items():
        case = hostile('array', 'MAT', name, _mat(content))
        yield replace(case, codes=(0,) if name == 'sparse' else (2,))
    yield hostile('array', 'MAT', 'MATLAB 7.3', b'MATLAB 7.3 MAT-file'.ljust(124) + b'\0\2IM')


# ------------------------------------------------------------------------------------- weights


def weights() -> Iterator[Hostile]:
    tensor = torch.ones(3)
    contents = {
        'state_dict None': dict(state_dict=None),
        'a list': [tensor],
        'a number for a tensor': dict(state_dict={'a': 1}),
        'NaN': dict(state_dict={'a.weight': torch.tensor([1.0, float('nan')])}),
        'infinite': dict(state_dict={'a.weight': torch.tensor([float('inf')])}),
        'a key that is no text': dict(state_dict={1: tensor}),
        'no weights': dict(state_dict={}),
        'meta is text': dict(state_dict={}, meta='x'),
    }
    for name, content in contents.items():
        yield hostile('weights', 'checkpoint', name, lambda content=content: _pth(content))

    def flipped() -> bytes:
        data = bytearray(_pth(dict(state_dict={'a.weight': torch.ones(1000)})))
        place = data.index(np.ones(8, np.float32).tobytes())
        data[place : place + 400] = (
            np.frombuffer(data[place : place + 400], np.uint8) ^ 85
        ).tobytes()
        return bytes(data)

    yield hostile('weights', 'checkpoint', '400 bytes changed', flipped)
    for name, content in dict(list=[1], text='x', none=None, empty={}).items():
        data = pickle.dumps(dict(model=content))
        yield hostile('weights', 'Detectron2 .pkl', f'weights: {name}', data)
    for module, name in (('builtins', 'eval'), ('numpy', 'load'), ('os', 'system')):
        data = f'c{module}\n{name}\n(S"x"\ntR.'.encode()
        yield hostile('code', 'Detectron2 .pkl', f'{module}.{name}', data)


# --------------------------------------------------------------------------------------- links


def planted(subject: str, *names: str) -> Callable[[Path], None]:
    """Links to the victim where a reader may want to write."""

    def make(folder: Path) -> None:
        SUBJECTS[subject].make(folder)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(folder / 'victim')

    return make


def links() -> Iterator[Hostile]:
    tools = {
        'PNG prepared': ('.out.partial',),
        'results answer.json': ('.scores.json.partial',),
        'checkpoint': ('.out.pth.partial', 'out.pth.partial'),
    }
    for subject, names in tools.items():
        make = planted(subject, *names)
        yield Hostile('link', f'{subject}: {names[0]}', make, SUBJECTS[subject].read, (0, 2))
    make = planted('PNG prepared', 'out')
    yield Hostile('link', 'out is a link to a file', make, SUBJECTS['PNG prepared'].read)


# ------------------------------------------------------------------------------------- configs


def configs() -> Iterator[Hostile]:
    cases = {
        'SystemExit(0)': 'raise SystemExit(0)\n',
        'sys.exit()': 'import sys\nsys.exit()\n',
        'a stop': 'raise KeyboardInterrupt\n',
        'recursion': 'def f(): f()\nf()\n',
        'no such base': "_base_ = ['b.py']\n",
        'a model of text': "model = 'x'\n",
        'no data': 'model = dict()\n',
        'NUL': 'model = dict()\0\n',
        'a loader of text': "model = dict(type='x')\ntrain_dataloader = 'x'\n",
        'no ann_file': "model = dict(type='x')\ntrain_dataloader = dict(dataset=dict(type='x'))\n",
    }
    for name, text in cases.items():

        def load() -> None:
            cfg = config_edits.load_config('a.py', {}, None)
            config_edits.check_files(cfg, 'train_dataloader')

        yield Hostile(
            'config', name,
            lambda folder, text=text: (folder / 'a.py').write_text(text) and None, told(load),
            (130,) if name == 'a stop' else (2,),
        )  # fmt: skip
