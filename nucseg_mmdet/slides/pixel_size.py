"""Microns per pixel from what image files say of themselves."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple
from xml.etree import ElementTree

from nucseg_mmdet.utils.errors import UserError

# Microns per pixel. Between the finest scanners (0.1) and an overview photograph of a slide.
# 72, 96 and 300 dpi, which programs write when they know nothing, are 353, 265 and 85.
MIN_MPP, MAX_MPP = 0.05, 20.0
ASSUMED_MPP = 0.25
MAX_UNEVEN = 0.01  # relative difference of x and y that is taken for rounding
MICRONS = {
    'm': 1e6,
    'cm': 1e4,
    'mm': 1e3,
    'µm': 1.0,  # the micro sign, U+00B5, as OME writes it
    'μm': 1.0,  # the Greek letter, U+03BC
    'um': 1.0,
    'micron': 1.0,
    'nm': 1e-3,
    'in': 25_400.0,
}
TIFF_UNITS = {2: 25_400.0, 3: 10_000.0}  # inch, centimeter; 1 is no unit


class PixelSize(NamedTuple):
    """Size of a level-0 pixel.

    Attributes:
        mpp: microns per pixel.
        source: where it comes from, or why it is not known, for the log.
        assumed: whether nothing says how large a pixel is.
    """

    mpp: float
    source: str
    assumed: bool = False


def unknown(reason: str) -> PixelSize:
    """The size of pixels that nothing tells of: that of most slides, x 40."""
    return PixelSize(ASSUMED_MPP, f'{reason}, {ASSUMED_MPP} assumed', assumed=True)


def chosen(mpp: float | None, found: PixelSize) -> PixelSize:
    """What the user gives, in microns per pixel, or else what the file says.

    Raises:
        UserError: the user gives what no microscope makes.
    """
    return found if mpp is None else given(mpp)


def given(mpp: float) -> PixelSize:
    """What the user gives, in microns per pixel.

    Raises:
        UserError: no microscope makes such pixels.
    """
    if not (math.isfinite(mpp) and MIN_MPP <= mpp <= MAX_MPP):
        raise UserError(f'{mpp} microns per pixel given, expected {MIN_MPP} to {MAX_MPP:g}')
    return PixelSize(float(mpp), 'as given')


def checked(x: float | None, y: float | None, source: str) -> PixelSize:
    """A size that a file says, if it is there and plausible.

    Args:
        x: microns per pixel, None if the file does not say.
        y: likewise.
        source: such as 'TIFF resolution tags'.
    """
    x, y = x or y, y or x
    if not x or not y:
        return unknown('the file does not say')
    if not all(math.isfinite(size) and MIN_MPP <= size <= MAX_MPP for size in (x, y)):
        dpi = f' ({25_400 / x:.4g} dpi)' if x > MAX_MPP else ''
        return unknown(
            f'{source} say {x:.4g} microns per pixel{dpi}, not used: expected {MIN_MPP} to '
            f'{MAX_MPP:g}',
        )
    if abs(x - y) > MAX_UNEVEN * min(x, y):
        source += f'; the mean of {x:.4g} in x and {y:.4g} in y, shapes are stretched'
        return PixelSize(math.sqrt(x * y), source)
    return PixelSize((x + y) / 2, source)


def from_dpi(dpi: tuple[float, float] | None, source: str) -> PixelSize:
    """What the resolution of a PNG or JPEG image says, dots per inch, in x and y."""
    x, y = dpi or (0, 0)
    return checked(*(25_400 / float(value) if value else None for value in (x, y)), source)


def from_openslide(properties: Mapping[str, str]) -> PixelSize:
    """What the properties of a slide say that OpenSlide reads."""
    sizes = []
    for axis in 'xy':
        try:
            sizes.append(float(properties.get(f'openslide.mpp-{axis}', '')))
        except ValueError:
            sizes.append(None)
    return checked(*sizes, 'properties of the slide')


def from_tiff(
    resolution: tuple[float, float], unit: int, imagej_unit: str, ome_xml: str | None
) -> PixelSize:
    """What a TIFF says: its OME-XML first, then its resolution tags.

    Args:
        resolution: pixels per unit in x and y, 0 if there is no tag.
        unit: the tag ResolutionUnit.
        imagej_unit: what ImageJ puts in place of the unit; empty if it has not written the file.
        ome_xml: OME-XML without a document type.
    """
    if ome_xml:
        size = from_ome(ome_xml)
        if not size.assumed:
            return size
    name = imagej_unit.replace('\\u00B5', 'µ')
    microns = MICRONS.get(name) if name else TIFF_UNITS.get(unit)
    if not microns:
        return unknown('the file does not say')
    sizes = (microns / value if value else None for value in resolution)
    return checked(*sizes, 'TIFF resolution tags')


def from_ome(ome_xml: str) -> PixelSize:
    """What OME-XML says of the first image that it describes."""
    try:
        root = ElementTree.fromstring(ome_xml)
    except ElementTree.ParseError:
        return unknown('OME-XML is damaged')
    # The namespace has the year of the schema.
    pixels = next((node for node in root.iter() if re.search(r'\bPixels$', node.tag)), None)
    attributes = {} if pixels is None else pixels.attrib
    sizes = []
    for axis in 'XY':
        microns = MICRONS.get(attributes.get(f'PhysicalSize{axis}Unit', 'µm'))
        try:
            sizes.append(float(attributes[f'PhysicalSize{axis}']) * microns)
        except (KeyError, ValueError, TypeError):
            sizes.append(None)
    return checked(*sizes, 'OME-XML')
