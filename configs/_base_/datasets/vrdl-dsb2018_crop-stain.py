"""The class data and the 106 CC0 images of the Data Science Bowl 2018 in crops like those of
``vrdl_crop-stain.py``, half of them blurred or sharpened as well.

Tests are of the class data; ``--fold N`` holds some of its images out. Not for the competition,
which knows the class data alone.
"""

_base_ = './vrdl_crop-stain.py'

class_images = dict(_base_.train_dataloader.dataset, pipeline=_base_.sharpness_crops)
cc0_images = dict(
    class_images,
    data_root='data/dsb/',
    # Not moved: this truth lies on its nuclei.
    pipeline=[
        *(_base_.load_once, _base_.load_truth, _base_.crops, _base_.slide_colors),
        *(_base_.some_sharpness, _base_.enlarge, _base_.whole, _base_.turn, _base_.flip),
        *(_base_.stain, _base_.pack),
    ],
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
