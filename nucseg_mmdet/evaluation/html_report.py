"""A page that shows a run: one HTML file with its scores, curves and every image.

``write_report`` reads what the tools leave in a work folder (``run_card.json``, the COCO
results of a test, mmengine's logs), computes all that the page shows, and puts it as JSON
into ``report_page.html``, whose script draws it. The file needs nothing from outside.
"""

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.ndimage import find_objects

from nucseg_mmdet.evaluation.coco_ap import RECALLS, precision_curves
from nucseg_mmdet.evaluation.label_scores import FATES, TOUCHED, find_fates, find_overlaps
from nucseg_mmdet.evaluation.run_folder import Run, check_size, read_run
from nucseg_mmdet.evaluation.summary import (
    SCORE_THR,
    make_report,
    note_on_hidden,
    paint,
    paint_truth,
    tell_apart,
)
from nucseg_mmdet.evaluation.surest_errors import MOST, find_errors
from nucseg_mmdet.evaluation.training_log import thin
from nucseg_mmdet.imaging.image_files import encode, read_color
from nucseg_mmdet.structures.coco import (
    Detections,
    TruthImage,
)
from nucseg_mmdet.structures.polygons import Polygon, mask_to_outlines
from nucseg_mmdet.utils.files import write_text

FOUND = 0.5  # a pair of nuclei above this IoU is a match, as in PQ
THRESHOLDS = np.arange(5, 96) / 100  # score thresholds to try; models return none below 0.05
# What the page calls the fates of true nuclei.
VERDICTS = dict(found='found', merged='cut', split='cut', cut='cut', missed='alone')
JPEG_QUALITY = 92  # no artifact to be seen at 4 screen px for one image px


def write_report(
    work_dir: Path, out: Path, score_thr: float | None = None, annotations: str | None = None
) -> None:
    """Write the page of a run.

    Args:
        work_dir: folder of the run.
        out: the HTML file.
        score_thr: the page shows detections from this score on; without it from that of the
            label maps that the run was scored by.
        annotations: as ``read_run``.

    Raises:
        UserError: as ``read_run``, an image is missing or has another size than in the
            truth, or the file cannot be written.
    """
    run = read_run(work_dir, annotations)
    if note := note_on_hidden(run.images):
        print(f'{run.tested["annotations"]}: {note}', file=sys.stderr)
    threshold = score_thr
    if threshold is None:
        threshold = run.tested.get('score_thr')
    if threshold is None:
        threshold = SCORE_THR
    write_text(out, render(*collect(run, threshold)))


def collect(run: Run, score_thr: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compute all that the page shows.

    Returns:
        The page's data, and those of each image by ascending PQ, as ``report_page.html``
        reads them. Undefined numbers are NaN.

    Raises:
        UserError: an image is missing or has another size than in the truth.
    """
    report = make_report(run.images, run.detections, score_thr, run.names)
    paths = [image.file_name for image in run.images]
    names = tell_apart([Path(path).name for path in paths], paths)
    views: list[dict[str, Any]] = []
    surest: list[dict[str, Any]] = []
    rows = report['per_image']
    for image, path, row, name in zip(run.images, run.image_paths, rows, names, strict=True):
        nuclei = compare(image, run.detections[image.id], score_thr, run.names)
        row.update(name=name, **count_verdicts(nuclei))
        pixels = read_color(path)
        check_size(path, pixels.shape[1::-1], image)
        for error in find_errors(nuclei, image.width, image.height):
            x, y, size = (error[key] for key in ('x', 'y', 'size'))
            square = embed(pixels[y : y + size, x : x + size])
            surest.append(dict(error, view=len(views), picture=square))
        surest = sorted(surest, key=lambda error: -error['score'])[:MOST]
        size = dict(width=image.width, height=image.height)
        views.append(dict(name=row['name'], **size, picture=embed(pixels), **nuclei))
    # Worst first; an image without nuclei and detections has no PQ and comes last (as NaN does).
    order = np.argsort([row['PQ'] for row in rows], kind='stable').tolist()
    for error in surest:
        error['view'] = order.index(error['view'])
    page = dict(
        title=run.card.get('config') or run.tested.get('config') or 'run',
        facts=_facts(run),
        score_thr=score_thr,
        limits=[TOUCHED, FOUND],
        scores=report['scores'],
        pooled=report['pooled'],
        types=report.get('types'),
        totals={key: report[key] for key in ('images', 'nuclei', 'results', 'results_kept')},
        images_in_mean=report['images_in_mean'],
        surest=surest,
        rows=[rows[index] for index in order],
        recalls=RECALLS.tolist(),
        precision={
            name: curve.tolist()
            for name, curve in precision_curves(run.images, run.detections).items()
        },
        thresholds=THRESHOLDS.tolist(),
        pq=pq_by_threshold(run.images, run.detections).tolist(),
        train=thin(run.log['train']),
        val=run.log['val'],
    )
    return page, [views[index] for index in order]


def compare(
    image: TruthImage, found: Detections, score_thr: float, names: Sequence[str] = ()
) -> dict[str, list[dict]]:
    """Judge every true nucleus of an image by its fate, every predicted one by its best IoU.

    Both sides are label maps, as for PQ: where detections overlap, the higher score keeps
    the pixel, and a detection left without pixels does not exist.

    Returns:
        ``truth`` and ``pred``: for each nucleus ``verdict`` ('found': the best IoU is above
        0.5; 'cut': from 0.1 to 0.5, a true one also if it is merged or split; 'alone': all
        others), ``iou``, the best one, ``rings`` (each ring starts
        with a corner x, y and goes on with the steps to the next ones, px) and, if
        predicted, ``score``; with several ``names`` of classes also ``type`` and, if predicted,
        ``wrong``: found, but of another type.
    """
    truth, pred = paint_truth(image), paint(image, found, score_thr)
    overlaps = find_overlaps(truth, pred)
    iou = overlaps.shared / overlaps.union
    sides = {}
    for side, labels, index in (('truth', truth, overlaps.truth), ('pred', pred, overlaps.pred)):
        ids = np.unique(labels[labels != 0])
        best = np.zeros(ids.size)
        np.maximum.at(best, index, iou)
        if side == 'truth':
            verdicts = [VERDICTS[FATES[fate]] for fate in find_fates(overlaps)]
        else:
            verdicts = np.select([best > FOUND, best >= TOUCHED], ['found', 'cut'], 'alone')
        boxes = find_objects(labels)
        sides[side] = [
            dict(
                verdict=str(verdict),
                iou=round(value, 3),
                rings=_rings(labels, number, boxes[number - 1]),
            )
            for number, value, verdict in zip(ids.tolist(), best.tolist(), verdicts, strict=True)
        ]
        if side == 'pred':
            for nucleus, score in zip(sides[side], found.scores[ids - 1].tolist(), strict=True):
                nucleus['score'] = round(score, 4)
        if len(names) > 1:
            kinds = (image if side == 'truth' else found).labels[ids - 1].tolist()
            for nucleus, kind in zip(sides[side], kinds, strict=True):
                nucleus['type'] = names[kind]
    if len(names) > 1:
        for one, other in zip(overlaps.truth[iou > FOUND], overlaps.pred[iou > FOUND], strict=True):
            pred = sides['pred'][other]
            pred['wrong'] = pred['type'] != sides['truth'][one]['type']
    return sides


def count_verdicts(nuclei: Mapping[str, list[dict]]) -> dict[str, int]:
    """Count the nuclei of ``compare`` by verdict, as ``truth_found``, ..., and ``wrong_type``."""
    counts = {
        f'{side}_{verdict}': sum(nucleus['verdict'] == verdict for nucleus in nuclei[side])
        for side in ('truth', 'pred')
        for verdict in ('found', 'cut', 'alone')
    }
    return counts | dict(wrong_type=sum(one.get('wrong', False) for one in nuclei['pred']))


def pq_by_threshold(
    images: Sequence[TruthImage], detections: Mapping[int, Detections]
) -> np.ndarray:
    """Compute the mean PQ of the images at every score threshold of ``THRESHOLDS``.

    A pixel belongs to the highest score that covers it, whatever the threshold. So the
    label map at a threshold is the whole one without the nuclei below, and the IoU of a
    pair is the same at every threshold: one comparison serves for all.

    Returns:
        (T,); NaN where no image has a nucleus, true or predicted.
    """
    total, count = np.zeros(THRESHOLDS.size), np.zeros(THRESHOLDS.size)
    for image in images:
        found = detections[image.id]
        pred = paint(image, found)
        overlaps = find_overlaps(paint_truth(image), pred)
        values = found.scores[np.unique(pred[pred != 0]) - 1]
        iou = overlaps.shared / overlaps.union
        matched = iou > FOUND
        counts = values[overlaps.pred[matched]] >= THRESHOLDS[:, None]
        nuclei = overlaps.truth_area.size + (values >= THRESHOLDS[:, None]).sum(axis=1)
        total += 2 * (counts * iou[matched]).sum(axis=1) / np.maximum(nuclei, 1)
        count += nuclei > 0
    return np.divide(total, count, out=np.full(total.size, np.nan), where=count > 0)


def embed(pixels: np.ndarray) -> str:
    """Turn an image, uint8, (H, W, 3), BGR, into a data URI: JPEG at full color resolution."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    full_color = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    data = encode('.jpg', pixels, quality + full_color)
    return 'data:image/jpeg;base64,' + base64.b64encode(data).decode('ascii')


def render(page: dict[str, Any], views: Sequence[dict[str, Any]]) -> str:
    """Put the data into the page. Each image has a script of its own, read when it is shown."""
    look, draw = _text('imaging/page/look.css'), _text('imaging/page/draw.js')
    template = _text('evaluation/report_page.html').replace('/* look.css */', look, 1)
    template = template.replace('/* draw.js */', draw.replace('\nexport ', '\n'), 1)
    scripts = [_script('page', page), *(_script('view', view) for view in views)]
    return template.replace('<!-- data -->', '\n'.join(scripts), 1)


def _text(name: str) -> str:
    return files('nucseg_mmdet').joinpath(name).read_text(encoding='utf-8')


def _script(kind: str, data: dict[str, Any]) -> str:
    # JSON has no NaN: null.
    data = json.loads(json.dumps(data), parse_constant=lambda name: None)
    text = json.dumps(data, separators=(',', ':'))
    # A file may be called anything; with no '<' no name can end the script.
    text = text.replace('<', '\\u003c')
    return f'<script type="application/json" class="{kind}">{text}</script>'


def _rings(labels: np.ndarray, number: int, box: tuple[slice, slice]) -> list[list[int]]:
    """Trace a nucleus of a label map; steps are shorter to write than coordinates."""
    rows, columns = box
    polygons: list[Polygon] = mask_to_outlines(labels[box] == number, (columns.start, rows.start))
    rings = []
    for polygon in polygons:
        corners = np.array(polygon, int).reshape(-1, 2)
        steps = np.diff(corners, axis=0)
        rings.append([*corners[0].tolist(), *steps.ravel().tolist()])
    return rings


def _facts(run: Run) -> list[list[str]]:
    """List what ran, as pairs of a name and a text; what the card lacks is left out."""
    card = run.card
    done, planned = card.get('iteration'), card.get('max_iterations')
    seconds, gpu = card.get('train_seconds'), card.get('peak_gpu_bytes')
    facts = {
        'Scored on': f'{Path(run.tested["annotations"]).name}, {len(run.images)} images',
        'Checkpoint': Path(run.tested.get('checkpoint', '')).name,
        'Training': run.note,
        'Trained on': card.get('annotations')
        and f'{card["annotations"]}, {card.get("images", "?")} images',
        'Iterations': done
        if None in (done, planned) or done == planned
        else f'{done} of {planned}',
        'Images an iteration': card.get('batch_size'),
        'Training time': seconds and f'{seconds / 3600:.2f} h',
        'Device': card.get('device'),
        'GPU memory': gpu and f'{gpu / 2**30:.1f} GiB',
        'Initial weights': card.get('load_from') or card.get('initial_weights'),
        'Seed': card.get('seed'),
        'Started': card.get('started'),
        'Versions': ', '.join(f'{name} {text}' for name, text in card.get('versions', {}).items()),
    }
    return [[name, str(value)] for name, value in facts.items() if value not in (None, '')]
