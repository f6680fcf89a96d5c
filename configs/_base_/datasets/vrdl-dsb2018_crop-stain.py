"""The class data and the 106 CC0 images of the Data Science Bowl 2018 in crops like those of
``vrdl_crop-stain.py``, half of them blurred or sharpened as well.

Tests are of the class data; ``--fold N`` holds some of its images out. Not for the competition,
which knows the class data alone.
"""

_base_ = './vrdl_crop-stain.py'

load_once, load_truth, crops, move, slide_colors, *others = _base_.moved_crops
# 0 smooths with a kernel of 3 px, 1 does nothing, 2 sharpens; twice, for a wider range: images
# differ by a factor of 20 in the variance of their Laplacian.
sharpness = dict(type='Sharpness', min_mag=0.0, max_mag=2.0)
some_sharpness = dict(type='RandomApply', transforms=[sharpness, sharpness], prob=0.5)
varied = [slide_colors, some_sharpness, *others]

class_images = dict(
    _base_.train_dataloader.dataset,
    pipeline=[load_once, load_truth, crops, move, *varied],
)
cc0_images = dict(
    class_images,
    data_root='data/dsb/',
    pipeline=[load_once, load_truth, crops, *varied],  # this truth lies on its nuclei
)
# A class image has twelve times the area of one of the others. So of each set there are about as
# many crops as it has area: of the 24 images and the 106, 73 in 100 are of the class data.
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[dict(type='RepeatDataset', times=12, dataset=class_images), cc0_images],
    )
)
