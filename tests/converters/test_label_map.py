"""Label maps of every kind of file, what is no label map, and files of images."""

import json
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from pycocotools import mask as coco_mask

from nucseg_mmdet.commands import prepare as prepare_data
from nucseg_mmdet.converters import raw_images
from nucseg_mmdet.converters.label_map import decode_labels
from nucseg_mmdet.imaging import image_files
from nucseg_mmdet.slides.open import open_slide
from nucseg_mmdet.structures.polygons import polygons_to_rle
from nucseg_mmdet.synthetic import fields
from nucseg_mmdet.utils.errors import UserError

# Label 7 in two parts, 300 only beyond 8 bits; 70,000 only beyond 16.
LABELS = np.array(
    [
        [0, 7, 7, 0, 0, 0],
        [0, 7, 7, 0, 300, 300],
        [0, 0, 0, 0, 300, 0],
        [7, 0, 0, 0, 0, 2],
    ]
)
AREAS = [1, 5, 3]  # of the labels 2, 7, 300


def write_labels(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.npy':
        np.save(path, labels)
    elif path.suffix == '.png':
        assert cv2.imwrite(str(path), labels)
    elif labels.dtype == np.int64:
        tifffile.imwrite(path, labels, compression='zlib')
    else:
        Image.fromarray(labels).save(path, compression='tiff_lzw')


def write_image(path, shape=LABELS.shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*shape, 3), 200, np.uint8))


def run(raw, *options):
    return prepare_data.main(
        ['label-map', str(raw), str(raw.parent / 'out'), '--workers=1', *options]
    )


def annotations(raw):
    return json.loads((raw.parent / 'out/annotations/train.json').read_text())['annotations']


@pytest.fixture
def raw(tmp_path):
    write_image(tmp_path / 'raw/images/a.png')
    write_labels(tmp_path / 'raw/labels/a.png', LABELS.astype(np.uint16))
    return tmp_path / 'raw'


KINDS = [
    ('a.png', np.uint16, 0),
    ('a.tif', np.uint16, 0),
    ('a.tiff', np.int32, 69_700),
    ('a.npy', np.uint16, 0),
    ('a.npy', np.int64, 69_700),
    ('a.npy', np.float64, 69_700),
    ('a_masks.png', np.uint16, 0),
    ('a_label.tif', np.int32, 69_700),
    ('a_label.tif', np.int64, 69_700),
]


@pytest.mark.parametrize(('name', 'dtype', 'more'), KINDS)
def test_every_kind_of_file(raw, name, dtype, more):
    (raw / 'labels/a.png').unlink()
    labels = np.where(LABELS == 300, LABELS + more, LABELS)
    write_labels(raw / 'labels' / name, labels.astype(dtype))
    assert run(raw) == 0
    entries = annotations(raw)
    assert [entry['area'] for entry in entries] == AREAS
    for entry, value in zip(entries, [2, 7, 300], strict=True):
        mask = coco_mask.decode(polygons_to_rle(entry['segmentation'], *LABELS.shape))
        assert (mask == (value == LABELS)).all()
    assert entries[1]['bbox'] == [0, 0, 3, 4]  # both parts of label 7
    assert len(entries[1]['segmentation']) == 2


def test_unsigned_32_bit_tiff(raw):
    """Written by hand, since neither OpenCV nor Pillow writes it: little endian, one strip."""
    (raw / 'labels/a.png').unlink()
    data = LABELS.astype('<u4').tobytes()
    height, width = LABELS.shape
    tags = [
        (256, 3, width), (257, 3, height), (258, 3, 32), (259, 3, 1), (262, 3, 1),
        (273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(data)), (339, 3, 1),
    ]  # fmt: skip
    entries = [np.array([tag, kind], '<u2').tobytes() + np.array([1, value], '<u4').tobytes()
               for tag, kind, value in tags]  # fmt: skip
    head = b'II*\0' + np.array([8 + len(data)], '<u4').tobytes()
    directory = np.array([len(tags)], '<u2').tobytes() + b''.join(entries) + b'\0' * 4
    (raw / 'labels/a.tif').write_bytes(head + data + directory)
    assert run(raw) == 0
    assert [entry['area'] for entry in annotations(raw)] == AREAS


def test_one_nucleus_as_true_and_false(raw):
    (raw / 'labels/a.png').unlink()
    write_labels(raw / 'labels/a.npy', LABELS == 300)
    assert run(raw) == 0
    assert [annotation['area'] for annotation in annotations(raw)] == [3]


def test_no_nucleus_is_fine(raw):
    write_image(raw / 'images/b.png')
    write_labels(raw / 'labels/b.png', np.zeros(LABELS.shape, np.uint8))
    assert run(raw) == 0
    assert len(annotations(raw)) == 3


def test_cellpose_layout(tmp_path):
    write_image(tmp_path / 'raw/x.png')
    write_labels(tmp_path / 'raw/x_cp_masks.png', LABELS.astype(np.uint16))
    assert run(tmp_path / 'raw') == 0
    assert [path.name for path in (tmp_path / 'out/train').iterdir()] == ['x.png']
    assert [entry['area'] for entry in annotations(tmp_path / 'raw')] == AREAS


def test_cellpose_pictures_and_names(tmp_path):
    raw = tmp_path / 'raw'
    for image, masks in (('x', 'x_cp_masks'), ('000_img', '000_masks')):
        write_image(raw / f'{image}.png')
        write_labels(raw / f'{masks}.png', LABELS.astype(np.uint16))
    for name in ('x_flows.tif', 'x_cp_output.png', 'x_outlines.png'):
        (raw / name).touch()
    assert run(raw) == 0
    assert {path.name for path in (tmp_path / 'out/train').iterdir()} == {'x.png', '000_img.png'}


def test_files_of_macos_are_not_read(raw):
    for name in ('images/._a.png', 'labels/._a.png', 'images/._b.png'):
        (raw / name).write_bytes(b'Mac OS X')
    assert run(raw) == 0
    assert [path.name for path in (raw.parent / 'out/train').iterdir()] == ['a.png']


@pytest.mark.parametrize('bits', [2, 4])
def test_png_of_few_bits_gives_the_numbers_that_are_stored(raw, bits):
    labels = np.arange(24).reshape(4, 6) % 2**bits
    packed = np.packbits(
        (labels[..., None] >> np.arange(bits - 1, -1, -1) & 1).reshape(4, -1), axis=1
    )
    rows = b''.join(b'\0' + row.tobytes() for row in packed)

    def chunk(kind, data):
        return (
            struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        )

    header = struct.pack('>IIBBBBB', 6, 4, bits, 0, 0, 0, 0)
    parts = [chunk(b'IHDR', header), chunk(b'IDAT', zlib.compress(rows)), chunk(b'IEND', b'')]
    path = raw / 'labels/a.png'
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(parts))
    assert (decode_labels(path) == labels).all()


def squares(number, side=60):
    """Squares of 2 px, apart from one another, with labels from 1 on."""
    labels = np.zeros((side, side), np.int64)
    places = np.mgrid[: side // 3, : side // 3].reshape(2, -1).T[:number] * 3
    for label, (y, x) in enumerate(places, start=1):
        labels[y : y + 2, x : x + 2] = label
    return labels


NOT_SINGLE = {  # labels, and what is said; label 256 is background in 8 bits
    'types': (1 + squares(40) % 2 * (squares(40) > 0) - (squares(40) == 0), '2 labels in 40 parts'),
    'cut to 8 bits': (squares(400) % 256, '255 labels in 399 parts'),
}


@pytest.mark.parametrize('case', NOT_SINGLE)
def test_labels_of_several_nuclei_are_refused(raw, capsys, case):
    labels, message = NOT_SINGLE[case]
    write_image(raw / 'images/a.png', labels.shape)
    write_labels(raw / 'labels/a.png', labels.astype(np.uint8))
    assert run(raw) == 2
    assert f'labels/a.png: {message}: of types, or cut to 8 bits' in capsys.readouterr().err


def test_a_label_that_stands_for_all_beyond_8_bits_is_refused(raw, capsys):
    labels = np.minimum(squares(266), 255).astype(np.uint8)
    write_image(raw / 'images/a.png', labels.shape)
    write_labels(raw / 'labels/a.png', labels)
    assert run(raw) == 2
    found = 'label 255 in 12 parts: of a type, or cut to 8 bits'
    assert f'labels/a.png: {found}, expected another label' in capsys.readouterr().err


@pytest.mark.parametrize('cut', [np.minimum(squares(258), 255), squares(258) % 256])
def test_a_few_labels_beyond_8_bits_are_said(raw, capsys, cut):
    write_image(raw / 'images/a.png', cut.shape)
    write_labels(raw / 'labels/a.png', cut.astype(np.uint8))
    assert run(raw) == 0
    assert 'the largest is 255, as where they were cut to 8 bits' in capsys.readouterr().out


@pytest.mark.parametrize('cut', [60, 20])
def test_many_labels_in_several_parts_are_said(raw, capsys, cut):
    labels = squares(300)
    labels[labels > 300 - cut] -= 200
    write_image(raw / 'images/a.png', labels.shape)
    write_labels(raw / 'labels/a.png', labels.astype(np.uint16))
    assert run(raw) == 0
    note = f'{cut} of {300 - cut} labels are in several parts, each taken as a nucleus'
    assert (note in capsys.readouterr().out) == (10 * cut > 300 - cut)


def test_a_label_whose_parts_touch_at_a_corner_is_a_nucleus(raw):
    labels = np.zeros(LABELS.shape, np.uint8)
    labels[1, 1] = labels[2, 2] = 1
    write_labels(raw / 'labels/a.png', labels)
    assert run(raw) == 0
    assert [entry['area'] for entry in annotations(raw)] == [2]


def test_patterns(tmp_path):
    for organ in ('human liver', 'mouse fat'):
        write_image(tmp_path / f'raw/{organ}/tissue images/{organ}_01.png')
        write_labels(tmp_path / f'raw/{organ}/label masks/{organ}_01.tif', LABELS.astype(np.int32))
    patterns = ['--images', '*/tissue images/*', '--labels', '*/label masks/*']
    assert run(tmp_path / 'raw', *patterns) == 0
    assert len(annotations(tmp_path / 'raw')) == 6


def save_pickled(path):
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


def save_pages(path):
    pages = [Image.fromarray(LABELS.astype(np.int32)) for _ in range(2)]
    pages[0].save(path, save_all=True, append_images=pages[1:])


FOREGROUND = np.where(LABELS > 0, 255, 0).astype(np.uint8)  # 3 parts: 7, 7, 300 and 2
BAD = {
    'foreground mask': ('a.png', FOREGROUND, 'one label, 255, in 3 parts: a foreground mask'),
    'colors': ('a.png', np.zeros((4, 6, 3), np.uint8), 'array of shape (4, 6, 3)'),
    'another size': ('a.png', np.zeros((6, 4), np.uint8), '4 x 6 px, expected 6 x 4 px'),
    'negative': ('a.npy', LABELS - 1, 'label -1, expected labels from 0'),
    'not whole': ('a.npy', LABELS / 2, 'not whole'),
    'not finite': ('a.npy', LABELS * np.nan, 'not whole'),
    'too large': ('a.npy', LABELS * 2.0**63, 'expected labels below 2^63'),
    '2^63': ('a.npy', LABELS.clip(0, 1) * 2.0**63, 'expected labels below 2^63'),
    '2^63 as a whole': ('a.npy', LABELS.astype(np.uint64) << 62, 'expected labels below 2^63'),
    'texts': ('a.npy', LABELS.astype(str), 'expected whole numbers'),
    'pickled': ('a.npy', save_pickled, 'not readable'),
    'pages': ('a.tif', save_pages, '2 pages, expected one'),
    'no TIFF': ('a.tif', lambda path: path.write_bytes(b'II*\0 no'), 'not readable'),
    'empty file': ('a.npy', lambda path: path.write_bytes(b''), 'not readable'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_label_map_is_named(raw, capsys, case):
    name, content, message = BAD[case]
    (raw / 'labels/a.png').unlink()
    path = raw / 'labels' / name
    if callable(content):
        content(path)
    else:
        write_labels(path, content)
    assert run(raw) == 2
    error = capsys.readouterr().err
    assert f'{path}: ' in error
    assert message in error
    assert not (raw.parent / 'out').exists()


def test_types_file(raw):
    text = 'file_name,label,type\na.png,2,dead\na.png,7,other\na.png,300,dead\n'
    (raw / 'types.csv').write_text(text)
    assert run(raw, '--classes', 'dead', 'rest=other') == 0
    entries = annotations(raw)
    assert [entry['type'] for entry in entries] == ['dead', 'other', 'dead']
    assert [entry['category_id'] for entry in entries] == [1, 2, 1]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'header []'),
        ('name,label\n', "header ['name', 'label']"),
        ('file_name,label,type\na.png,2,n\xe9crose\n', 'types.csv: not readable'),
        ('file_name,label,type\na.png,x,dead\n', 'line 2 is'),
        ('file_name,label,type\na.png,2,dead\n', 'label 7 has pixels but no line in types.csv'),
        ('file_name,label,type\na.png,2\n', 'line 2 is'),
        (
            'file_name,label,type\na.png,2,\na.png,5,\na.png,7,\na.png,300,\n',
            'label 5 has a line in types.csv but no pixel',
        ),
    ],
)
def test_bad_types_file(raw, capsys, text, message):
    (raw / 'types.csv').write_text(text, encoding='latin1')
    assert run(raw) == 2
    assert message in capsys.readouterr().err


def stack(path):
    pages = [Image.new('RGB', LABELS.shape[::-1]) for _ in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])


@pytest.mark.parametrize(
    ('name', 'save', 'message'),
    [
        ('a.tif', stack, '3 x 4 x 6 x 3 values on the axes IYXS, expected one'),
        ('a.png', lambda path: cv2.imwrite(str(path), LABELS.astype(np.uint16)), '16 bits'),
        ('a.bmp', lambda path: path.write_bytes(b'BM'), 'damaged BMP'),
        ('a.webp', Image.fromarray(LABELS.astype(np.uint8)).save, 'not an image, expected PNG'),
    ],
)
def test_bad_picture_is_named(raw, capsys, name, save, message):
    (raw / 'images/a.png').unlink()
    save(raw / 'images' / name)
    assert run(raw) == 2
    assert f'{name}: {message}' in capsys.readouterr().err


def test_picture_that_is_too_large_is_named(raw, capsys, monkeypatch):
    monkeypatch.setattr(raw_images, 'MAX_PIXELS', 20)  # of 24
    assert run(raw) == 2
    assert 'a.png: 6 x 4 px, a PNG may have' in capsys.readouterr().err


def test_label_map_that_is_too_large_is_named(tmp_path, monkeypatch):
    write_labels(tmp_path / 'a.tif', LABELS.astype(np.uint16))
    monkeypatch.setattr(image_files, 'MAX_PIXELS', 20)  # of 24
    with pytest.raises(UserError, match=r'a\.tif: 6 x 4 px, a field may have 20'):
        decode_labels(tmp_path / 'a.tif')


def test_pixels_are_those_that_segment_sees(raw, capsys):
    """Turned by EXIF, transparent, indexed: written upright, over white, in color."""
    exif = Image.Exif()
    exif[0x0112] = 6
    colors = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    image = Image.fromarray(colors)
    image.save(raw / 'images/turned.png', exif=exif)
    image.convert('RGBA').save(raw / 'images/opaque.png')
    image.putalpha(Image.new('L', image.size, 100))
    image.transpose(Image.Transpose.ROTATE_90).save(raw / 'images/clear.png')
    Image.new('P', (6, 4)).save(raw / 'images/indexed.tif')
    names = ('turned', 'clear', 'indexed', 'opaque')
    for name in names[:3]:
        write_labels(raw / f'labels/{name}.png', LABELS.astype(np.uint16))
    write_labels(raw / 'labels/opaque.png', LABELS.T.astype(np.uint16).copy())
    assert run(raw) == 0
    for name in names:
        (path,) = (raw / 'images').glob(f'{name}.*')
        written = cv2.imread(str(raw.parent / f'out/train/{name}.png'))[..., ::-1]
        with open_slide(path) as slide:
            assert (written == slide.read(0, 0, slide.width, slide.height)).all()
    said = capsys.readouterr().out
    assert 'turned.png: turned upright, as its EXIF orientation 6 says' in said
    assert 'clear.png: transparent parts are laid over white' in said
    assert (
        cv2.imread(str(raw.parent / 'out/train/turned.png'))[..., ::-1] == np.rot90(colors, -1)
    ).all()


def test_images_of_one_channel_are_said_in_a_line(raw, capsys):
    """They have no color to normalize, and of many the note hides no other."""
    for name in ('b', 'c', 'd'):
        assert cv2.imwrite(str(raw / f'images/{name}.png'), np.full(LABELS.shape, 90, np.uint8))
        write_labels(raw / f'labels/{name}.png', LABELS.astype(np.uint16))
    assert run(raw) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if 'one channel' in line]
    assert notes == [f'note: {raw}/images/b.png and 2 more: one channel, taken as RGB']


def flip(path, share):
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize('kind', ['png', 'zlib', 'jpg'])
def test_damaged_pictures_are_refused(raw, capsys, kind):
    image = fields.synthesize(1, 160, 240, 30)[0]
    path = raw / f'images/b.{dict(zlib="tif").get(kind, kind)}'
    write_labels(raw / 'labels/b.png', np.kron(LABELS, np.ones((40, 40))).astype(np.uint16))
    if kind == 'zlib':
        tifffile.imwrite(path, image, photometric='rgb', compression='zlib', rowsperstrip=16)
    else:
        Image.fromarray(image).save(path)
    assert run(raw) == 0
    if kind == 'jpg':
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + b'\xff\xd9')
    else:
        flip(path, 0.5)
    assert run(raw, '--overwrite') == 2
    assert f'{path}: ' in capsys.readouterr().err


def test_labels_as_indices_of_a_palette(raw):
    labels = np.where(LABELS == 300, 200, LABELS).astype(np.uint8)
    image = Image.fromarray(labels, 'P')
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(raw / 'labels/a.png')
    assert run(raw) == 0
    assert [entry['area'] for entry in annotations(raw)] == AREAS


@pytest.mark.parametrize('photometric', ['miniswhite', 'palette'])
@pytest.mark.parametrize('compression', [None, 'lzw'])
def test_tiff_gives_the_numbers_that_are_stored(raw, photometric, compression):
    """OpenCV gives 255 - number where 0 is white, and colors for a palette."""
    (raw / 'labels/a.png').unlink()
    labels = np.where(LABELS == 300, 200, LABELS).astype(np.uint8)
    colors = np.random.default_rng(0).integers(0, 65_536, (3, 256), dtype=np.uint16)
    options = dict(colormap=colors) if photometric == 'palette' else {}
    tifffile.imwrite(raw / 'labels/a.tif', labels, photometric=photometric,
                     compression=compression, **options)  # fmt: skip
    assert run(raw) == 0
    assert [entry['area'] for entry in annotations(raw)] == AREAS


@pytest.mark.parametrize('name', ['a.png', 'a.tif'])
def test_label_map_that_is_a_jpeg_is_refused(raw, capsys, name):
    """Its numbers are others along every edge: each of them would be a nucleus."""
    (raw / 'labels/a.png').unlink()
    labels = np.where(LABELS == 300, 200, LABELS).astype(np.uint8)
    if name == 'a.tif':
        tifffile.imwrite(raw / 'labels/a.tif', labels, compression='jpeg')
    else:
        Image.fromarray(labels).save(raw / 'labels' / name, 'JPEG')
    assert run(raw) == 2
    assert f'labels/{name}: JPEG, which does not keep the numbers' in capsys.readouterr().err


def test_types_with_a_byte_order_mark(raw):
    text = 'file_name,label,type\na.png,2,x\na.png,7,y\na.png,300,x\n'
    (raw / 'types.csv').write_text(text, encoding='utf-8-sig')
    assert run(raw) == 0
    assert [entry['type'] for entry in annotations(raw)] == ['x', 'y', 'x']


def test_images_without_nuclei_are_counted(raw, capsys):
    write_image(raw / 'images/b.png')
    write_labels(raw / 'labels/b.png', np.zeros(LABELS.shape, np.uint8))
    assert run(raw) == 0
    assert 'note: 1 of 2 images have no nucleus' in capsys.readouterr().out


def test_pictures_are_copied_or_become_png(raw):
    pixels = np.random.default_rng(0).integers(0, 256, (*LABELS.shape, 3), dtype=np.uint8)
    for name in ('b.jpg', 'c.tif', 'd.bmp'):
        assert cv2.imwrite(str(raw / 'images' / name), pixels)
        write_labels(raw / f'labels/{name[0]}.png', LABELS.astype(np.uint16))
    assert run(raw) == 0
    out = raw.parent / 'out/train'
    assert sorted(path.name for path in out.iterdir()) == ['a.png', 'b.jpg', 'c.png', 'd.png']
    for name in ('a.png', 'b.jpg'):
        assert (out / name).read_bytes() == (raw / 'images' / name).read_bytes()
    for name in ('c.png', 'd.png'):
        assert (cv2.imread(str(out / name)) == pixels).all()


def test_two_files_of_one_name(raw, capsys):
    write_image(raw / 'images/a.bmp')
    assert run(raw) == 2
    assert 'a.png: same name as' in capsys.readouterr().err


def test_names_that_differ_in_case_only(raw, capsys):
    write_image(raw / 'images/A.png')
    write_labels(raw / 'labels/A.png', LABELS.astype(np.uint16))
    assert run(raw) == 2
    assert 'a.png: would become a.png as' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('names', 'line'),
    [
        (['images/more/b.png', 'images/more/deep/c.tif', 'images/more/read.me'], 'images/more: 2'),
        (['labels/more/b.npy'], 'labels/more: 1'),
        (['images/.thumbnails/a.png', 'images/notes/read.me', 'elsewhere/a.png'], None),
    ],
)
def test_a_folder_in_a_folder_is_said(raw, capsys, names, line):
    for name in names:
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).touch()
    assert run(raw) == 0
    said = capsys.readouterr().out.splitlines()
    notes = [text for text in said if text.startswith('note: ') and 'no folds' not in text]
    where, _, count = (line or '').partition(': ')
    said = f'note: {raw}/{where}: a folder in a folder, left out: {count} files; '
    advice = "--images 'images/**/*' --labels 'labels/**/*' read folders in folders"
    assert notes == [f'{said}{advice}'][: len(where)]


@pytest.mark.parametrize(
    ('name', 'files', 'folder', 'count'),
    [
        ('mat', ['Images/more/a.png', 'Images/more/b.txt'], 'Images/more', 1),
        ('mat', ['Labels/more/a.mat'], 'Labels/more', 1),
        ('monuseg-xml', ['linked/a.xml', 'linked/a.tif'], 'linked', 2),
        ('pannuke', ['linked/fold1/types.npy', 'linked/other.npy'], 'linked', 1),
        ('qupath', ['linked/a.geojson', 'linked/a.png'], 'linked', 1),
    ],
)
def test_other_readers_say_so_too(tmp_path, name, files, folder, count):
    reader = prepare_data.READERS[name]
    for file in files:
        path = tmp_path / 'raw' / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if folder == 'linked':
        (tmp_path / 'raw/plain').mkdir()
        assert reader.find_left_out(tmp_path / 'raw') == []  # the folder itself is read
        (tmp_path / 'raw/linked').rename(tmp_path / 'elsewhere')
        (tmp_path / 'raw/linked').symlink_to(tmp_path / 'elsewhere')
    (line,) = reader.find_left_out(tmp_path / 'raw')
    assert line.startswith(f'{tmp_path}/raw/{folder}: a folder in a folder, left out: {count} ')


def test_folders_in_folders_are_read_as_said(raw, capsys):
    write_image(raw / 'images/more/b.png')
    write_labels(raw / 'labels/more/b.png', LABELS.astype(np.uint16))
    assert run(raw, '--images', 'images/**/*', '--labels', 'labels/**/*') == 0
    said = capsys.readouterr().out
    assert '2 training images with 6 nuclei' in said
    assert 'left out' not in said


@pytest.mark.parametrize('kind', ['label-map', 'mat'])
def test_folders_in_folders_alone_are_said_as_well(tmp_path, capsys, kind):
    upper = str.title if kind == 'mat' else str
    for name in ('images/p1/a.png', f'labels/p1/a.{"mat" if kind == "mat" else "npy"}'):
        path = tmp_path / 'raw' / upper(name.split('/')[0]) / name.partition('/')[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert prepare_data.main([kind, str(tmp_path / 'raw'), str(tmp_path / 'out')]) == 2
    output = capsys.readouterr()
    assert output.out.count('p1: a folder in a folder, left out: 1 files; --images ') == 2
    assert '0 images as ' in output.err


def test_pattern_outside(raw, capsys):
    assert run(raw, '--images', '/etc/*') == 2
    assert 'expected a pattern under' in capsys.readouterr().err


def test_types_of_no_image_are_said(raw, capsys):
    rows = ['file_name,label,type', 'a.png,2,x', 'a.png,7,x', 'a.png,300,x', 'gone.png,1,x', '']
    (raw / 'types.csv').write_text('\n'.join(rows))
    assert run(raw) == 0
    said = f'note: {raw}/types.csv: names of no image, left out: gone.png\n'
    assert said in capsys.readouterr().out
