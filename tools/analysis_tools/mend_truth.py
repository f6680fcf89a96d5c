"""Make new truth of truth and what a model finds on the same images, to train another model on.

A found nucleus that covers several true ones (half of the pixels of each) takes their place: the
truth may have one nucleus as two. One that covers none is added: the truth may lack it. One that
covers a single true nucleus is left to it, whose outline stays.

python tools/test.py CONFIG CHECKPOINT --annotations data/vrdl/annotations/fold1_train.json \\
    --images data/vrdl/train --work-dir DIR --cfg-options model.test_cfg.rcnn.truth_offset=-0.4,-0.6
python tools/analysis_tools/mend_truth.py data/vrdl/annotations/fold1_train.json \\
    DIR/fold1_train_results.json MENDED.json --score-thr 0.8

The offset is that of the class data's truth, in which the results must be: where truth lies on its
nuclei, leave it out.
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nucseg_mmdet.evaluation.label_scores import find_overlaps
from nucseg_mmdet.evaluation.summary import paint, paint_truth
from nucseg_mmdet.export.coco_reader import read_truth_and_results
from nucseg_mmdet.structures.coco import load_json
from nucseg_mmdet.structures.coco_entries import make_annotations, make_categories
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, check_fraction, count_nuclei, exit_code
from nucseg_mmdet.utils.files import check_file_is_writable, write_json
from nucseg_mmdet.utils.reading import check_is_not_read


def mend(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Put what was found in the place of several true nuclei, or of none.

    Args:
        truth: int, (H, W), 0 is background.
        found: likewise.

    Returns:
        int32, (H, W), 0 is background, 1 to N without gaps: the found nuclei that cover several
        true ones, what these leave of the other true ones, and, where there is room for at least
        half of them, the found nuclei that cover none.
    """
    overlaps = find_overlaps(truth, found)
    covers = 2 * overlaps.shared >= overlaps.truth_area[overlaps.truth]
    number = np.bincount(overlaps.pred[covers], minlength=len(overlaps.pred_area))
    replaced = overlaps.truth[covers & (number[overlaps.pred] > 1)]
    true_labels, found_labels = np.unique(truth[truth > 0]), np.unique(found[found > 0])

    whole = np.where(np.isin(found, found_labels[number > 1]), found, 0)
    left = np.where(np.isin(truth, true_labels[replaced]), 0, truth)
    mended = np.where(whole > 0, whole, np.where(left > 0, left + found.max(), 0))
    for label in found_labels[number == 0]:
        free = (found == label) & (mended == 0)
        if 2 * np.count_nonzero(free) >= np.count_nonzero(found == label):
            mended[free] = label
    numbers = np.unique(np.append(mended, 0), return_inverse=True)[1][:-1]
    return numbers.reshape(truth.shape).astype(np.int32)


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('truth', type=Path, help='COCO file of the truth')
    parser.add_argument('results', type=Path, help='COCO results of a model on its images')
    parser.add_argument('out', type=Path, help='COCO file to write; an older one is replaced')
    parser.add_argument('--score-thr', type=float, help='nuclei from this score on')
    args = parser.parse_args(argv)
    check_fraction('--score-thr', args.score_thr)
    check_is_not_read(args.out, args.truth, args.results)
    check_file_is_writable(args.out)
    images, detections, score_thr, _ = read_truth_and_results(
        args.truth, args.results, args.score_thr
    )
    data = load_json(args.truth)
    if len(data.get('categories') or ()) > 1:
        raise UserError(f'{args.truth}: has {len(data["categories"])} categories, expected one')
    records = {record['file_name']: record for record in data['images']}  # as they are in the file
    annotations, files = [], []
    for image in images:
        found = paint(image, detections[image.id], score_thr)
        mended = mend(paint_truth(image), found)
        made = make_annotations(mended, image.id, len(annotations) + 1)
        print(f'{image.file_name}: {count_nuclei(len(image.rles))}, {len(made)} mended')
        annotations += made
        read = dict(id=image.id, file_name=image.file_name, width=image.width, height=image.height)
        files.append({**records.get(image.file_name, {}), **read})
    content = dict(images=files, annotations=annotations, categories=make_categories())
    write_json(args.out, content, indent=None)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
