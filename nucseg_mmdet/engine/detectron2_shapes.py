"""The complete list of names and shapes of a Mask R-CNN with FPN in Detectron2."""

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # of res2 to res5
LEVELS = (2, 3, 4, 5)
BOTTOM_UP = 'backbone.bottom_up.'
NORM = ('weight', 'bias', 'running_mean', 'running_var')


def parameter_shapes(
    depth: int, groups: int, base_width: int, classes: int | None
) -> dict[str, tuple[int, ...]]:
    """List Detectron2's names and shapes of a Mask R-CNN with FPN.

    Args:
        depth: 50, 101 or 152.
        groups: of the 3 x 3 convolutions.
        base_width: channels of a group in res2.
        classes: without the background; None for the backbone alone.
    """
    shapes = {f'{BOTTOM_UP}stem.conv1.weight': (64, 3, 7, 7)}
    shapes |= {f'{BOTTOM_UP}stem.conv1.norm.{part}': (64,) for part in NORM}
    fan_in = 64
    for stage, blocks in enumerate(BLOCKS[depth]):
        inner, outer = groups * base_width << stage, 256 << stage
        for block in range(blocks):
            convs = {
                'conv1': (inner, fan_in, 1, 1),
                'conv2': (inner, inner // groups, 3, 3),
                'conv3': (outer, inner, 1, 1),
            }
            if block == 0:
                convs['shortcut'] = (outer, fan_in, 1, 1)
            for conv, shape in convs.items():
                prefix = f'{BOTTOM_UP}res{stage + 2}.{block}.{conv}'
                shapes[f'{prefix}.weight'] = shape
                shapes |= {f'{prefix}.norm.{part}': shape[:1] for part in NORM}
            fan_in = outer
    if classes is None:
        return shapes

    layers = {}
    for level in LEVELS:
        layers[f'backbone.fpn_lateral{level}'] = (256, 64 << level, 1, 1)
        layers[f'backbone.fpn_output{level}'] = (256, 256, 3, 3)
    layers |= {f'roi_heads.mask_head.mask_fcn{i}': (256, 256, 3, 3) for i in (1, 2, 3, 4)}
    layers |= {
        'proposal_generator.rpn_head.conv': (256, 256, 3, 3),
        'proposal_generator.rpn_head.objectness_logits': (3, 256, 1, 1),
        'proposal_generator.rpn_head.anchor_deltas': (12, 256, 1, 1),
        'roi_heads.box_head.fc1': (1024, 256 * 7 * 7),
        'roi_heads.box_head.fc2': (1024, 1024),
        'roi_heads.box_predictor.cls_score': (classes + 1, 1024),
        'roi_heads.box_predictor.bbox_pred': (4 * classes, 1024),
        'roi_heads.mask_head.deconv': (256, 256, 2, 2),
        'roi_heads.mask_head.predictor': (classes, 256, 1, 1),
    }
    for name, shape in layers.items():
        shapes[f'{name}.weight'], shapes[f'{name}.bias'] = shape, shape[:1]
    return shapes
