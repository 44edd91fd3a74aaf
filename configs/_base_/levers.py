"""The rows of an ablation: the adaptation as it was before its levers, each lever alone, and distillation beside them.

The row 'symerge' has the options of the config's own ``adaptation``. Every other row names all options in which it may
differ, so that the defaults of a later version leave it as it is.
"""

_was = dict(
    granularity="tensor",
    initial=0.3,
    clamp=(0.0, 1.0),
    density=None,
    layer="pre_final",
    learn_coefficients=True,
    learn_layer=True,
    coefficient_lr=3e-2,
    layer_lr=3e-3,
    weight_decay=0.0,
    lr_decay="cosine",
    warmup=0,
    averaging="none",
    sharpness=0.0,
    rounds=300,
    batch_size=8,
    labels="cached",
    views=None,
    objective="labels",
    teacher="experts",
    soft=True,
    filter="none",
    schedule="sum",
    balance="initial",
    task_weights={},
    statistics="batch",
    augment=dict(flip=0.5),
)
_row = dict(method="symerge", **_was)
baselines = dict(
    methods=[
        "task_arithmetic",
        "as it was",
        "two views",
        "six views",
        "no clamp",
        "per channel",
        "per direction",
        "average of weights",
        "sharpness",
        "mean teacher",
        "twice as long",
        "symerge",
        "symerge_coefficients",
        "symerge_layer",
        "layer_on_base",
        "head_distillation",
        "full_distillation",
    ],
    variants={
        "as it was": _row,
        "two views": dict(_row, views=dict(flip=True)),
        "six views": dict(_row, views=dict(flip=True, scales=(0.75, 1.0, 1.25))),
        "no clamp": dict(_row, clamp=None),
        "per channel": dict(_row, granularity="channel", coefficient_lr=1e-2),
        "per direction": dict(_row, granularity="singular", singular_rank=32, coefficient_lr=1e-2),
        "average of weights": dict(_row, averaging="swa", averaging_start=0.75, lr_decay="none"),
        "sharpness": dict(_row, sharpness=0.07),
        "mean teacher": dict(_row, teacher="mix"),
        "twice as long": dict(_row, rounds=600),
    },
)
