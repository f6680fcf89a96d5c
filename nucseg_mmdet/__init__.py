"""Instance segmentation of nuclei in H&E histology images, on MMDetection.

Importing the package registers nothing; ``custom_imports`` in
``configs/_base_/default_runtime.py`` names the modules that register classes.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nucseg_mmdet.inference.segmenter import Segmenter

__version__ = '0.2.0'
__all__ = ['Segmenter', '__version__']


def __getattr__(name: str) -> Any:
    """Import ``Segmenter`` when it is first asked for."""
    if name == 'Segmenter':
        from nucseg_mmdet.inference.segmenter import Segmenter

        return Segmenter
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
