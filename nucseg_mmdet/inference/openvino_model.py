"""A Mask R-CNN as a file for OpenVINO: what is in it, and how it is opened. No torch, no mm*.

The file is a ZIP with three networks in OpenVINO's format and ``meta.json``:

- features: image -> maps of the neck; objectness and deltas of the anchors;
- boxes: what lies in boxes -> classes and deltas;
- masks: what lies in boxes -> probabilities.

What lies between them (anchors, NMS, RoIAlign, pasting) is NumPy, in ``openvino_predictor``.
"""

import functools
import json
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import openvino
from openvino import opset15

from nucseg_mmdet.structures.classes import ONE_CLASS, NucleusClass, make_classes
from nucseg_mmdet.utils.errors import UserError, first_line
from nucseg_mmdet.utils.files import new_file
from nucseg_mmdet.utils.reading import open_file

# Raised when an older reader would misread a file; one whose masks are of larger boxes has 3, one
# of several classes 2, others 1.
FORMAT = 3
NETWORKS = ('features', 'boxes', 'masks')
MOST_UNPACKED = 1 << 30  # bytes of a file in it; the weights of a ResNet-101 have 0.2 GB


class RuntimeModel(NamedTuple):
    """What a file holds.

    Attributes:
        networks: by name, see ``NETWORKS``.
        meta: plain values, see ``openvino_export.describe``.
    """

    networks: dict[str, openvino.Model]
    meta: dict[str, Any]


@functools.cache
def runtime() -> openvino.Core:
    """OpenVINO's runtime, one for the process and until it ends.

    Each sets the stack on which signals are handled, and removes its own when it goes. Of two that
    do not go in the reverse order of their coming, a stack stays set that is gone, and the next
    signal, such as Ctrl-C or the end of a child, is a segmentation fault (openvino 2026.4).
    """
    return openvino.Core()


def has_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16; otherwise it is emulated, and slow."""
    return 'BF16' in runtime().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')


def cut(network: openvino.Model) -> tuple[openvino.Model, openvino.Model]:
    """Part the hidden layers of a network from those after its last ReLU, which take their output
    as ``hidden``. The network itself is of no use any more.

    Raises:
        ValueError: there is no ReLU.
    """
    relus = [node for node in network.get_ordered_ops() if node.get_type_name() == 'Relu']
    if not relus:
        raise ValueError('has no ReLU')
    source = relus[-1].output(0)
    hidden = opset15.parameter(source.get_partial_shape(), openvino.Type.f32, 'hidden')
    hidden.output(0).set_names({'hidden'})
    for target in source.get_target_inputs():
        target.replace_source_output(hidden.output(0))
    end = opset15.result(source)
    end.output(0).set_names({'hidden'})
    return (
        openvino.Model([end], network.get_parameters(), f'{network.friendly_name}_hidden'),
        openvino.Model(network.get_results(), [hidden], network.friendly_name),
    )


def write(path: Path, model: RuntimeModel) -> None:
    """Write a file, whole or not at all."""
    with (
        tempfile.TemporaryDirectory() as folder,
        new_file(path) as file,
        zipfile.ZipFile(file, 'w') as archive,
    ):
        _add(archive, 'meta.json', json.dumps(model.meta, indent=1).encode())
        for name, network in model.networks.items():
            xml, weights = Path(folder, f'{name}.xml'), Path(folder, f'{name}.bin')
            openvino.serialize(network, str(xml), str(weights))
            _add(archive, xml.name, xml.read_bytes())
            _add(archive, weights.name, weights.read_bytes())


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    # Without a date, so that the same model makes the same bytes.
    archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)


def read(path: Path) -> RuntimeModel:
    """Open a file.

    Raises:
        UserError: it is missing, damaged, something else, or of a later version of this package.
    """
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            meta = json.loads(_read(archive, 'meta.json'))
            if meta['format'] > FORMAT:
                raise UserError(
                    f'{path}: format {meta["format"]}, expected {FORMAT} or less; this package '
                    'is older than the file'
                )
            networks = {
                name: runtime().read_model(
                    _read(archive, f'{name}.xml'), _read(archive, f'{name}.bin')
                )
                for name in NETWORKS
            }
    except UserError:
        raise
    except (
        *(OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        reason = first_line(error)
        raise UserError(f'{path}: no model for OpenVINO ({reason})') from None
    return RuntimeModel(networks, meta)


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a file of an archive, of which a few bytes may be packed gigabytes."""
    with archive.open(name) as file:
        content = file.read(MOST_UNPACKED + 1)
    if len(content) > MOST_UNPACKED:
        raise ValueError(f'{name} has more than {MOST_UNPACKED:,} bytes')
    return content


def read_classes(meta: dict[str, Any], path: Path) -> tuple[NucleusClass, ...]:
    """The classes of a model; files of one class may not name it.

    Raises:
        UserError: they are not as expected.
    """
    known = meta.get('classes')
    if known is None:
        return ONE_CLASS
    try:
        names, colors = zip(*((one['name'], one['color']) for one in known), strict=True)
    except (KeyError, TypeError, ValueError):
        raise UserError(f'{path}: classes are {known!r:.60}, expected names and colors') from None
    return make_classes(names, colors, str(path))
