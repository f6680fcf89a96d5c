"""Reader of outlines drawn in Aperio ImageScope (MoNuSeg, MoNuSAC).

::

    RAW/**/<name>.xml            regions of x, y vertices
    RAW/**/<name>.tif            the image, in any folder; also PNG, JPEG, BMP

The pixels of a region are those of MATLAB's ``poly2mask``, as in the challenge's own code:
vertices count from 1 at a pixel's center, so they are moved by -0.5 px to this project's
pixel edges; the inside is by the even-odd rule, also where an outline crosses itself; what
lies beyond the image is cut off. A pixel in two regions belongs to the one that comes first.
Layers with a name (MoNuSAC: Epithelial, Lymphocyte, ...) give the type of their nuclei.
"""

from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from nucseg_mmdet.converters.base import AnnotatedImage, Nucleus
from nucseg_mmdet.converters.nuclei import from_mask
from nucseg_mmdet.converters.raw_images import (
    LINKS,
    Pair,
    check_pair,
    find_pairs,
    open_raw_image,
    pair_folders_left_out,
)
from nucseg_mmdet.converters.tcga import organ_of
from nucseg_mmdet.structures.polygons import polygons_to_rle
from nucseg_mmdet.structures.rle import coco_mask
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.reading import MOST_TEXT, read_bytes

OPTIONS: dict[str, str] = {}
PATTERNS = ('**/*', '**/*.[xX][mM][lL]')  # of images and outlines
SHIFT = -0.5  # px, from the vertices' frame to pixel edges at integers
LAYOUT = 'Annotation/Regions/Region/Vertices/Vertex'
DEEPEST = 20  # elements in one another
FREE_FORM = (None, '0', '1')  # region types that are polygons: free hand, rectangle


def find_images(raw: Path) -> list[Pair]:
    """The XML files with their images.

    Raises:
        UserError: ``raw`` is missing, has no XML files or images, or names stand twice.
    """
    return find_pairs(raw, *PATTERNS, lambda path: True)


def find_left_out(raw: Path) -> list[str]:
    """A line for each folder that ``find_images`` does not look into."""
    return pair_folders_left_out(raw, *PATTERNS, lambda path: path.suffix.lower() == '.xml', LINKS)


def read_image(pair: Pair) -> AnnotatedImage:
    """Read one training image and its regions.

    Regions that cannot be used are left out, with a line each in ``problems``.

    Raises:
        UserError: the image or the XML file is missing or broken, or has no region.
    """
    image_path, truth_path = check_pair(pair)
    image = open_raw_image(image_path)
    image.organ = organ_of(image.name)
    owned = np.zeros((image.height, image.width), dtype=bool)
    annotated = AnnotatedImage(image, [])
    contested = regions = 0
    for layer in _parse(truth_path).iter('Annotation'):
        kind = _layer_type(layer)
        for region in layer.iter('Region'):
            regions += 1
            where = f'{truth_path}: region {regions} (Id {region.get("Id")})'
            try:
                nucleus, lost = _read_region(region, owned, kind, where)
            except UserError as error:
                annotated.problems.append(str(error))
                continue
            contested += lost
            annotated.nuclei.append(nucleus)
    if not regions:
        raise UserError(f'{truth_path}: no region, expected one for each nucleus')
    if contested:
        annotated.notes.append(
            f'{truth_path}: {contested} px lie in two regions, the first one keeps them'
        )
    return annotated


def _parse(path: Path) -> ElementTree.Element:
    """Parse XML that has no document type, so that no entity can grow or reach a file."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    inside: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        # One in another would be read as often as it is deep.
        if len(inside) > DEEPEST or (name == 'Region' and name in inside):
            raise UserError(f'{path}: {name} inside of {"/".join(inside):.100}, expected {LAYOUT}')
        inside.append(name)
        builder.start(name, attributes)

    def end(name: str) -> None:
        inside.pop()
        builder.end(name)

    parser.StartElementHandler, parser.EndElementHandler = start, end

    def refuse(*_: object) -> None:
        raise UserError(f'{path}: has a document type declaration, expected plain XML')

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(read_bytes(path, MOST_TEXT), True)
    # Besides its own error, what Python's codecs raise for the encoding that the file names.
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise UserError(f'{path}: no valid XML ({error}), expected ImageScope regions') from None
    return builder.close()


def _coordinate(vertex: ElementTree.Element, axis: str) -> float:
    if '_' in vertex.attrib[axis]:  # float() takes 1_0 for 10
        raise ValueError(vertex.attrib[axis])
    return float(vertex.attrib[axis])


def _layer_type(layer: ElementTree.Element) -> str | None:
    attribute = layer.find('Attributes/Attribute')
    name = None if attribute is None else attribute.get('Name')
    # MoNuSeg's layers have no name and one attribute, an empty description.
    return layer.get('Name') or (name if name != 'Description' else None) or None


def _read_region(
    region: ElementTree.Element, owned: np.ndarray, kind: str | None, where: str
) -> tuple[Nucleus, int]:
    """Rasterize a region and take its pixels, in place.

    Args:
        region: the XML element.
        owned: bool, (H, W); the pixels of the regions before, then of this one too.
        kind: type of the nucleus.
        where: what messages call the region.

    Returns:
        The nucleus, and how many of its pixels earlier regions keep.
    """
    height, width = owned.shape
    if region.get('NegativeROA') == '1' or region.get('Type') not in FREE_FORM:
        found = f'Type {region.get("Type")}, NegativeROA {region.get("NegativeROA")}'
        raise UserError(f'{where}: {found}, expected the outline of a nucleus')
    try:
        points = np.array(
            [_coordinate(vertex, axis) for vertex in region.iter('Vertex') for axis in 'XY'], float
        ).reshape(-1, 2)
    except (KeyError, ValueError):
        raise UserError(f'{where}: a vertex without numbers X and Y, expected both') from None
    if len(points) < 3:
        raise UserError(f'{where}: {len(points)} vertices, expected at least 3')
    limit = 2 * max(height, width)
    if not (np.abs(points) <= limit).all():
        raise UserError(
            f'{where}: vertices up to {np.abs(points).max():g}, expected px of the '
            f'{width} x {height} px image'
        )
    try:
        outline = polygons_to_rle([(points + SHIFT).ravel().tolist()], height, width)
    except ValueError as error:
        raise UserError(f'{where}: {error}') from None
    mask = coco_mask.decode(outline).astype(bool)
    if not mask.any():
        raise UserError(f'{where}: no pixel of the image inside, expected a nucleus')
    free = mask & ~owned
    if not free.any():
        raise UserError(f'{where}: all its pixels are in earlier regions, expected its own')
    owned |= mask
    return from_mask(free, kind=kind), int(np.count_nonzero(mask) - np.count_nonzero(free))
