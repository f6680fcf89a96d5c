"""Which image of a file is the slide, how large its pixels are, and what is said of it."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from nucseg_mmdet.inference.frame import make_frame
from nucseg_mmdet.slides import pixel_size
from nucseg_mmdet.slides.base import ArraySlide, RegionError
from nucseg_mmdet.slides.open import open_slide
from nucseg_mmdet.slides.tissue import draw_mask, is_white, tissue_mask
from nucseg_mmdet.synthetic.fields import synthesize
from nucseg_mmdet.utils.errors import UserError

FIELD = synthesize(1, 512, 512, 150)[0]
OTHER = synthesize(2, 512, 512, 150)[0]
TILED = dict(tile=(128, 128), photometric='rgb', compression='zlib')


def half(image):
    return image.reshape(len(image) // 2, 2, -1, 2, 3).mean((1, 3)).round().astype(np.uint8)


def write_ome(path, parts):
    """An OME-TIFF with an image for each of (pixels, microns per pixel)."""
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for number, (pixels, mpp) in enumerate(parts):
            sizes = dict(PhysicalSizeX=mpp, PhysicalSizeY=mpp) if mpp else {}
            tiff.write(pixels, metadata=dict(axes='YXS', Name=f'image {number}', **sizes), **TILED)
    return path


@pytest.mark.parametrize('place', [0, 1, 2])
def test_the_largest_image_gives_pixels_and_their_size(tmp_path, place):
    parts = [(OTHER[:128, :256], 8.0), (half(OTHER)[:, :128], 30.0)]
    parts.insert(place, (FIELD, 0.25))
    with open_slide(write_ome(tmp_path / 'a.ome.tif', parts)) as slide:
        assert slide.pixel_size[:3] == (0.25, 'OME-XML', False)
        np.testing.assert_array_equal(slide.read(0, 0, 512, 512), FIELD)
        assert slide.notes == ['3 images in the file, the largest is read, 512 x 512 px']


@pytest.mark.parametrize('dtype', [np.uint16, np.uint8])
@pytest.mark.parametrize('first', [True, False])
def test_labels_of_the_size_of_the_image_are_not_taken(tmp_path, dtype, first):
    labels = np.zeros(FIELD.shape[:2], dtype)
    labels[9:20, 9:20] = 7
    parts = [(labels, dict(axes='YX')), (FIELD, dict(axes='YXS', PhysicalSizeX=0.5))]
    path = tmp_path / 'a.ome.tif'
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for pixels, metadata in parts if first else parts[::-1]:
            tiff.write(pixels, metadata=metadata)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 512, 512), FIELD)
        assert slide.mpp == 0.5
        assert slide.notes == ['2 images in the file, the largest is read, 512 x 512 px']


def test_a_photograph_is_not_taken_for_a_larger_image_of_16_bits(tmp_path):
    with tifffile.TiffWriter(tmp_path / 'a.tif') as tiff:
        tiff.write(half(FIELD), photometric='rgb')
        tiff.write(np.zeros((512, 512), np.uint16))
    with pytest.raises(UserError, match='uint16 values of 16 bits, expected uint8'):
        open_slide(tmp_path / 'a.tif')


def test_another_images_size_is_not_taken(tmp_path):
    path = write_ome(tmp_path / 'a.ome.tif', [(OTHER[:128, :256], 8.0), (FIELD, None)])
    with open_slide(path) as slide:
        assert slide.pixel_size.assumed


OBJECTIVE = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Instrument ID="Instrument:0">'
    '<Objective ID="Objective:0" NominalMagnification="4"/>'
    '<Objective ID="Objective:1" NominalMagnification="20"/></Instrument>'
    '<Image ID="Image:0"><ObjectiveSettings ID="Objective:1"/><Pixels SizeX="9" SizeY="9"/></Image>'
    '</OME>'
)
CALIBRATED = OBJECTIVE.replace('NominalM', 'CalibratedM')


@pytest.mark.parametrize(
    ('find', 'mpp'),
    [
        (lambda: pixel_size.from_openslide({'openslide.objective-power': '20'}), 0.5),
        (lambda: pixel_size.from_openslide({'aperio.AppMag': '20'}), 0.5),
        (lambda: pixel_size.from_openslide({'aperio.AppMag': ' 20x '}), 0.5),
        (lambda: pixel_size.from_openslide({'aperio.AppMag': 'X20'}), 0.5),
        (lambda: pixel_size.from_openslide({'aperio.AppMag': 'nan'}), None),
        (lambda: pixel_size.from_openslide({'aperio.AppMag': 'x'}), None),
        (lambda: pixel_size.from_openslide({'hamamatsu.SourceLens': '10'}), 1.0),
        (
            lambda: pixel_size.from_openslide(
                {'openslide.mpp-x': '0.4', 'openslide.mpp-y': '0.4', 'aperio.AppMag': '20'}
            ),
            0.4,
        ),
        (lambda: pixel_size.from_openslide({'aperio.AppMag': 'none'}), None),
        (lambda: pixel_size.from_openslide({'aperio.AppMag': '0'}), None),
        (lambda: pixel_size.from_openslide({'aperio.AppMag': '4000'}), None),
        (lambda: pixel_size.from_openslide({'aperio.AppMag': '0.6'}), None),  # a photograph
        (lambda: tiff_size('Aperio Image Library|AppMag = 20'), 0.5),
        (lambda: tiff_size('Aperio Image Library|AppMag = 20|MPP = 0.4990'), 0.499),
        (lambda: pixel_size.from_tiff((0, 0), 2, '', pixel_size.OmeImage(OBJECTIVE)), 0.5),
        (lambda: pixel_size.from_tiff((0, 0), 2, '', pixel_size.OmeImage(CALIBRATED)), 0.5),
    ],
)
def test_magnification(find, mpp):
    found = find()
    assert found.assumed == (mpp is None)
    assert found.mpp == pytest.approx(mpp or 0.25, abs=1e-12)
    by_magnification = mpp in (0.5, 1.0)
    assert ('microns per pixel by custom, see --mpp' in found.note) == by_magnification


@pytest.mark.parametrize(
    'key',
    [
        'leica.objective',
        'mirax.GENERAL.OBJECTIVE_MAGNIFICATION',
        'trestle.Objective Power',
        'ventana.Magnification',
        'vendor.ObjectivePower',
        'vendor.ObjectiveLensPower',
        'zeiss.Information.Instrument.Objectives.Objective:1.NominalMagnification',
    ],
)
def test_magnification_by_its_names(key):
    assert pixel_size.from_openslide({key: '20'}).mpp == 0.5
    assert pixel_size.from_openslide({f'{key}.Index': '20'}).assumed


def tiff_size(description):
    return pixel_size.from_tiff((0, 0), 2, '', None, description)


def test_magnification_of_the_objective_that_is_meant():
    """The nominal one, to which the custom goes; of several that are not told apart, none."""

    def found(text):
        size = pixel_size.from_tiff((0, 0), 2, '', pixel_size.OmeImage(text))
        return None if size.assumed else size.mpp

    both = OBJECTIVE.replace('NominalM', 'CalibratedMagnification="25" NominalM')
    assert found(both) == 0.5
    other = '<Image><ObjectiveSettings ID="Objective:0"/><Pixels SizeX="5" SizeY="5"/></Image>'
    assert found(OBJECTIVE.replace('</OME>', f'{other}</OME>')) == 0.5
    unused = OBJECTIVE.replace('<ObjectiveSettings ID="Objective:1"/>', '')
    assert found(unused) is None
    first = '<Objective ID="Objective:0" NominalMagnification="4"/>'
    assert found(unused.replace(first, '')) == 0.5


@pytest.mark.parametrize(
    ('index', 'size', 'mpp'),
    [
        (0, (30, 20), 0.5),  # the index counts other images
        (7, (30, 20), 0.5),
        (1, (30, 20), 0.5),
        (2, (30, 20), 0.25),  # of two of this size it tells which
        (1, None, 0.5),
        (1, (50, 40), 4.0),  # which one does not say
    ],
)
def test_the_image_in_the_ome_xml_is_told_by_its_size_and_place(index, size, mpp):
    images = ((9, 9, 1.0), (30, 20, 0.5), (30, 20, 0.25))
    text = ''.join(
        f'<Image><Pixels SizeX="{x}" SizeY="{y}" PhysicalSizeX="{mpp}"/></Image>'
        for x, y, mpp in images
    )
    text += '<Image><Pixels SizeX="?" PhysicalSizeX="4"/></Image>'
    assert pixel_size.OmeImage(f'<OME>{text}</OME>', index, size).pixel_size.mpp == mpp


def test_what_is_not_plain_becomes_a_note():
    uneven = pixel_size.checked(0.25, 0.5, 'OME-XML')
    slide = ArraySlide(FIELD, uneven)
    (note,) = slide.notes
    assert note.startswith('0.3536 microns per pixel are used: OME-XML; the mean of 0.25 in x')
    assert ArraySlide(FIELD, pixel_size.from_magnification(20, 'AppMag')).notes != []
    assert ArraySlide(FIELD, 0.25).notes == []


@pytest.mark.parametrize('flag', [0, 1])
@pytest.mark.parametrize('compression', ['zlib', 'jpeg'])
def test_a_page_of_half_the_size_is_a_level_if_it_shows_the_same(tmp_path, flag, compression):
    path, options = tmp_path / 'a.tif', dict(TILED, compression=compression, metadata=None)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(FIELD, **options)
        tiff.write(half(FIELD), subfiletype=flag, **options)
    with open_slide(path) as slide:
        assert [level.width for level in slide.levels] == [512, 256]
        assert slide.notes == []


@pytest.mark.parametrize('flag', [0, 1])
@pytest.mark.parametrize('subifds', [0, 1])
@pytest.mark.parametrize(
    'other',
    [
        half(OTHER),
        np.full((256, 256, 3), 243, np.uint8),
        np.vstack([half(FIELD)[:128], np.full((128, 256, 3), 255, np.uint8)]),
    ],
    ids=['other', 'white', 'half white'],
)
def test_a_page_of_half_the_size_that_shows_something_else_is_left_out(
    tmp_path, flag, subifds, other
):
    path = tmp_path / 'a.tif'
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(FIELD, **TILED, metadata=None, subifds=subifds)
        tiff.write(other, **TILED, metadata=None, subfiletype=flag)
    with open_slide(path) as slide:
        assert [level.width for level in slide.levels] == [512]
        assert slide.notes == [
            'a page of 256 x 256 px is no reduction of the first, it is left out'
        ]
        assert tissue_mask(slide).tissue.mean() > 0.5
        np.testing.assert_array_equal(slide.read(0, 0, 512, 512), FIELD)


def test_white_is_judged_at_full_resolution():
    glass = np.full((600, 700, 3), 240, np.uint8)
    whole = 0, 0, 700, 600
    assert is_white(ArraySlide(glass), whole)
    glass[100:110, 100:110] = 90  # dust: 100 px of 420,000
    assert is_white(ArraySlide(glass), whole)
    assert not is_white(ArraySlide(np.zeros_like(glass)), whole)
    glass[200:400] = (250, 150, 250)
    assert not is_white(ArraySlide(glass), whole)
    assert not is_white(ArraySlide(glass), (0, 200, 700, 100))
    assert is_white(ArraySlide(glass), (0, 500, 700, 100))
    for place in np.s_[:, 640:], np.s_[540:, :]:
        glass[:] = 240
        glass[place] = 150
        assert not is_white(ArraySlide(glass), whole)
    glass[:] = 150
    glass[500:520, 600:620] = 240  # smaller than what is read at a place
    assert is_white(ArraySlide(glass), (600, 500, 20, 20))
    assert not is_white(ArraySlide(glass), (579, 500, 20, 20))


def test_a_slide_one_pixel_wide_is_drawn():
    slide = ArraySlide(np.full((3000, 1, 3), 200, np.uint8))
    assert draw_mask(slide, tissue_mask(slide)).shape == (1500, 1, 3)


@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_tiff_with_an_orientation(tmp_path, orientation):
    path = tmp_path / 'a.tif'
    tag = (274, 'H', 1, orientation, True)
    tifffile.imwrite(path, FIELD[:300], photometric='rgb', extratags=[tag])
    turns = {1: 0, 3: 2, 6: -1, 8: 1}[orientation]  # quarters against the clock
    with open_slide(path) as slide:
        shown = slide.read(0, 0, slide.width, slide.height)
        np.testing.assert_array_equal(shown, np.rot90(FIELD[:300], turns))
        said = f'turned upright, as its orientation tag {orientation} says'
        assert slide.notes == ([said] if turns else [])


def test_tiff_with_a_palette(tmp_path):
    path = tmp_path / 'a.tif'
    indexed = Image.fromarray(FIELD).quantize(64)
    indexed.save(path)
    with open_slide(path) as slide:
        expected = np.asarray(indexed.convert('RGB'))
        np.testing.assert_array_equal(slide.read(0, 0, 512, 512), expected)


def test_damage_within_a_jpeg_tile_is_a_region_that_cannot_be_read(tmp_path):
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, FIELD, **dict(TILED, compression='jpeg'))
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        start, size = page.dataoffsets[0], page.databytecounts[0]
    data = bytearray(path.read_bytes())
    data[start + size // 2 : start + size - 2] = bytes(size - 2 - size // 2)
    path.write_bytes(data)
    with open_slide(path) as slide:
        with pytest.raises(RegionError, match='Corrupt JPEG data'):
            slide.read(0, 0, 100, 100)
        assert slide.read(128, 128, 384, 384).std() > 5


@pytest.mark.parametrize('mpp', [1.01, 8.0])
def test_pixels_too_large_for_nuclei_are_refused(mpp):
    with pytest.raises(UserError, match=r'would be enlarged .* expected at most 4') as error:
        make_frame(ArraySlide(FIELD, pixel_size.PixelSize(mpp, 'OME-XML')))
    assert str(error.value).startswith(f'pixels of {mpp:.4g} microns (OME-XML)')
    assert 'give it (--mpp)' in str(error.value)
    make_frame(ArraySlide(FIELD, 1.0))


@pytest.mark.parametrize('shape', [(1 << 20, 1), (1, 1 << 20)])
def test_a_side_beyond_what_a_label_image_can_hold_is_refused(shape):
    strip = np.broadcast_to(np.uint8(255), (*shape, 3))
    with pytest.raises(UserError, match='expected at most 1,048,575 px a side'):
        ArraySlide(strip, 0.25)
    assert ArraySlide(strip[1:] if shape[1] == 1 else strip[:, 1:], 0.25).levels
