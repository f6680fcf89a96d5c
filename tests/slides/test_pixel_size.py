"""Microns per pixel: what files say, and when not to believe them."""

import math

import pytest

from nucseg_mmdet.slides import pixel_size
from nucseg_mmdet.slides.pixel_size import OmeImage, PixelSize
from nucseg_mmdet.utils.errors import UserError

UNKNOWN = PixelSize(0.25, 'the file does not say, 0.25 assumed', True)


def said(size):
    """Microns per pixel, or None if nothing tells of them."""
    return None if size.assumed else size.mpp


OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/'
    '2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" {}/></Image></OME>'
)


@pytest.mark.parametrize(
    ('resolution', 'unit', 'imagej_unit', 'mpp'),
    [
        ((40_000, 40_000), 3, '', 0.25),  # 10,000 microns / 40,000 px
        ((101_600, 101_600), 2, '', 0.25),  # 25,400 microns / 101,600 px
        ((4, 4), 1, 'micron', 0.25),  # ImageJ: pixels per micron
        ((4, 4), 1, '\\u00B5m', 0.25),  # as ImageJ writes the micro sign
        ((4000, 4000), 1, 'mm', 0.25),
        ((101_600, 101_600), 2, 'inch', 0.25),  # ImageJ, of an image in dpi
        ((4, 4), 1, 'microns', 0.25),  # as people type it
        ((4, 4), 1, 'Micrometers', 0.25),
        ((0.004, 0.004), 1, 'nanometre', 0.25),
        ((101_600, 101_600), 1, 'inches', 0.25),
        ((40_000, 40_000), 1, 'Centimeters', 0.25),
        ((4, 4), 1, 'um', 0.25),
        ((4, 4), 1, 'μm', 0.25),
        ((20_000, 0), 3, '', 0.5),  # y is missing
        ((0, 20_000), 3, '', 0.5),
        ((40_000, 72), 3, '', None),  # one of them is implausible
        ((72, 40_000), 3, '', None),
        ((40_000, 40_000), 1, '', None),  # no unit
        ((1, 1), 1, 'pixel', None),
        ((0, 0), 2, '', None),
        ((72, 72), 2, '', None),  # what programs write that know nothing
        ((96, 96), 2, '', None),
        ((300, 300), 2, '', None),
        ((1e9, 1e9), 3, '', None),  # 0.00001
    ],
)
def test_tiff_tags(resolution, unit, imagej_unit, mpp):
    found = pixel_size.from_tiff(resolution, unit, imagej_unit, None)
    assert said(found) == (mpp and pytest.approx(mpp, rel=1e-12))


def test_implausible_sizes_are_reported():
    found = pixel_size.from_tiff((72, 72), 2, '', None)
    assert found == (
        0.25,
        'TIFF resolution tags say 352.8 microns per pixel (72 dpi), not used: expected 0.05 to '
        '20, 0.25 assumed',
        True,
        '',
    )
    assert pixel_size.from_tiff((0, 0), 2, '', None) == UNKNOWN


@pytest.mark.parametrize(
    ('attributes', 'said'),
    [
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="reference frame"', '0.5 reference frame'),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="0"', '1 pixel'),
        ('PhysicalSizeX="0,5"', '0,5 µm'),
    ],
)
def test_what_cannot_be_read_of_a_size_is_said(attributes, said):
    found = OmeImage(OME.format(attributes)).pixel_size
    assert found.source == (
        f'OME-XML says {said}, not used: expected a number and a unit of length, 0.25 assumed'
    )


def test_a_unit_of_imagej_that_is_none_is_said():
    found = pixel_size.from_tiff((4, 4), 1, 'furlong', None)
    assert found.source.startswith('ImageJ says pixels per furlong, not used')
    assert pixel_size.from_tiff((1, 1), 1, 'pixel', None) == UNKNOWN


def test_uneven_sizes_are_averaged_and_reported():
    found = pixel_size.checked(0.25, 0.36, 'OME-XML')
    assert found.mpp == pytest.approx(0.3, abs=1e-12)  # sqrt(0.25 * 0.36)
    assert '0.25 in x and 0.36 in y' in found.source
    assert pixel_size.checked(0.25, 0.252, 'OME-XML').source == 'OME-XML'
    for sizes in [(0.25, 0.253), (0.253, 0.25)]:
        assert 'shapes are stretched' in pixel_size.checked(*sizes, 'OME-XML').note


@pytest.mark.parametrize(
    ('attributes', 'mpp'),
    [
        ('PhysicalSizeX="0.5" PhysicalSizeY="0.5"', 0.5),  # microns unless it says otherwise
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.25"', 0.25),
        ('PhysicalSizeX="0.00025" PhysicalSizeXUnit="mm"', 0.25),
        ('PhysicalSizeX="2500" PhysicalSizeXUnit="\u00c5"', 0.25),
        ('PhysicalSizeX="2500" PhysicalSizeXUnit="\u212b"', 0.25),
        ('PhysicalSizeX="0.00001" PhysicalSizeXUnit="in"', 0.254),
        ('PhysicalSizeX="0.01" PhysicalSizeXUnit="thou"', 0.254),
        ('PhysicalSizeX="0.0000025" PhysicalSizeXUnit="dm"', 0.25),
        ('PhysicalSizeX="250000" PhysicalSizeXUnit="pm"', 0.25),
        ('PhysicalSizeX="0.00072" PhysicalSizeXUnit="pt"', 0.254),  # 72 to the inch
        ('PhysicalSizeX="0.000025" PhysicalSizeXUnit="cm"', 0.25),
        ('PhysicalSizeX="0.00000025" PhysicalSizeXUnit="m"', 0.25),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel"', None),
        ('PhysicalSizeX="0.00025" PhysicalSizeXUnit="Mm"', None),  # a megameter is no millimeter
        ('PhysicalSizeX="wide"', None),
        ('', None),
    ],
)
def test_ome_xml(attributes, mpp):
    found = OmeImage(OME.format(attributes)).pixel_size
    assert said(found) == (mpp and pytest.approx(mpp))


def test_ome_xml_comes_before_the_tags_if_it_says_something():
    text = OME.format('PhysicalSizeX="0.5" PhysicalSizeY="0.5"')
    for ome, mpp in [(text, 0.5), (OME.format(''), 0.25), (text[:50], 0.25)]:
        assert pixel_size.from_tiff((40_000, 40_000), 3, '', OmeImage(ome)).mpp == mpp


def test_the_description_comes_between_the_ome_xml_and_the_tags():
    said = 'Aperio|AppMag = 20|MPP = 0.4'
    image = OmeImage(OME.format('PhysicalSizeX="0.3"'))
    assert pixel_size.from_tiff((40_000, 40_000), 3, '', None, said).mpp == 0.4
    assert pixel_size.from_tiff((40_000, 40_000), 3, '', image, said).mpp == 0.3


def test_dpi_and_properties():
    assert pixel_size.from_dpi((50_800, 50_800), 'PNG') == (0.5, 'PNG', False, '')
    uneven = pixel_size.from_dpi((50_800, 25_400), 'PNG')
    assert uneven.source == 'PNG; the mean of 0.5 in x and 1 in y, shapes are stretched'
    assert pixel_size.from_dpi(None, 'PNG') == UNKNOWN
    properties = {'openslide.mpp-x': '0.2525', 'openslide.mpp-y': '0.2525'}
    assert pixel_size.from_openslide(properties).mpp == 0.2525
    assert pixel_size.from_openslide({'openslide.mpp-x': ''}) == UNKNOWN


def test_what_the_user_gives_wins():
    assert pixel_size.chosen(0.5, PixelSize(0.25, 'OME-XML'))[:3] == (0.5, 'as given', False)
    assert pixel_size.chosen(None, UNKNOWN) == UNKNOWN


@pytest.mark.parametrize(
    ('mpp', 'found', 'note'),
    [
        (
            0.5,
            PixelSize(0.25, 'OME-XML'),
            'the file says 0.25 microns per pixel (OME-XML), --mpp 0.5 is used',
        ),
        (0.255, PixelSize(0.25, 'OME-XML'), '(OME-XML), --mpp 0.255 is used'),  # by 2 %
        (0.252, PixelSize(0.25, 'OME-XML'), ''),  # by 0.8 %, as of 0.2516 that is rounded
        (0.5, UNKNOWN, ''),
    ],
)
def test_a_size_that_differs_from_what_the_file_says_is_told(mpp, found, note):
    told = pixel_size.chosen(mpp, found).note
    assert told.endswith(note)
    assert bool(told) == bool(note)


@pytest.mark.parametrize('mpp', [0.05, 20])
def test_the_limits_are_allowed(mpp):
    assert pixel_size.given(mpp) == (mpp, 'as given', False, '')
    assert pixel_size.checked(mpp, mpp, 'OME-XML') == (mpp, 'OME-XML', False, '')


@pytest.mark.parametrize('mpp', [0, -1, 250, 0.01, math.nan, math.inf, 10**400])
def test_wrong_sizes_are_refused(mpp):
    with pytest.raises(UserError, match=r'expected 0\.05 to 20'):
        pixel_size.chosen(mpp, UNKNOWN)
