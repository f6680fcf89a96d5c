"""Instance segmentation of nuclei in H&E histology images, on MMDetection.

Importing the package registers nothing; ``custom_imports`` in
``configs/_base_/default_runtime.py`` names the modules that register classes.
"""

__version__ = '0.1.0'
