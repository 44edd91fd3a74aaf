"""Options of the adaptation: presets and clear refusals."""

import math

import pytest

from symerge_dense.adaptation.options import PRESETS, SyMergeOptions, make_options


def test_every_preset_builds_and_paper_is_the_public_setting():
    assert all(make_options(preset) for preset in PRESETS)
    paper = make_options("paper")
    assert paper.coefficient_lr == paper.layer_lr == 1e-2 and paper.schedule == "per_task" and not paper.soft
    assert paper.initial == 0.3 and paper.clamp == (0.0, 1.0) and paper.batch_size == 32 and paper.rounds == 500
    assert paper.labels == "online"  # float16 of cached labels would move coefficients by up to 5e-4


def test_an_override_beats_the_preset():
    assert make_options("paper", rounds=7, clamp=[0, 2]).clamp == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"preset": "papr"}, "Did you mean 'paper'"),
        ({"shedule": "sum"}, "Did you mean 'schedule'"),
        ({"schedule": "pertask"}, "'per_task'"),
        ({"granularity": "tensors"}, "'tensor'"),
        ({"initial": 1.5, "clamp": (0.0, 1.0)}, "outside clamp"),
        ({"rounds": 0}, "rounds=0"),
        ({"learn_coefficients": False, "learn_layer": False}, "learns nothing"),
        ({"labels": "online"}, "augment=None with 'online'"),
        ({"batch_size": 1, "statistics": "batch"}, "no batch statistics"),
        ({"views": {"scale": (1.0, 1.5)}}, "adaptation.*views.*Did you mean 'scales'"),
        ({"views": {"scales": (2.0,)}}, "adaptation.views: scales.*1.0 among them"),
        ({"averaging": "emma"}, "Did you mean 'ema'"),
        ({"averaging_start": 1.0}, r"averaging_start=1.0 must lie in \[0, 1\)"),
        ({"averaging_decay": 1.0}, r"averaging_decay=1.0 must lie in \[0, 1\)"),
        ({"temperature": 0}, "temperature=0 must be positive"),
        ({"sharpness": -0.1}, r"sharpness=-0.1 must be 0 \(off\) or a radius"),
        ({"sharpness": float("nan")}, "sharpness=nan must be a finite number"),
        ({"warmup": 30}, r"warmup=30 must lie in \[0, 1\): it is a share of the run"),
        ({"lr_decay": "lineal"}, "Did you mean 'linear'"),
        ({"granularity": "chanel"}, "Did you mean 'channel'"),
        ({"singular_rank": 0}, "singular_rank=0 must be a whole number from 1, or None for all"),
        ({"singular_rank": 2.5}, "singular_rank=2.5 must be a whole number from 1"),
        ({"clamp": 5}, r"clamp=5 must be \(lowest, highest\), such as \(0.0, 1.0\), or None"),
        ({"clamp": [1, 0]}, r"clamp=\(1, 0\) must be \(lowest, highest\)"),
        ({"clamp": [0, "a"]}, r"clamp=\(0, 'a'\) must be \(lowest, highest\)"),
        ({"density": "abc"}, r"density='abc' must be a number in \(0, 1\], or None"),
        ({"augment": 5}, r"augment=5: give dict\(flip=0.5\) or the like, or None"),
        ({"task_weights": 5}, "task_weights=5: give a number for each task"),
        ({"task_weights": {"depth": math.inf}}, r"task_weights=\{'depth': inf\}: give a number for each task"),
        ({"initial": math.nan}, "adaptation.initial=nan must be a finite number"),
        ({"layer_lr": math.inf}, "adaptation.layer_lr=inf must be a finite number"),
        ({"coefficient_lr": "fast"}, "adaptation.coefficient_lr='fast' must be a value of type float"),
        ({"rounds": 2.5}, "adaptation.rounds=2.5 must be a value of type int"),
        ({"rounds": True}, "adaptation.rounds=True must be a value of type int"),
        ({"amp": 1}, "adaptation.amp=1 must be a value of type bool"),
        ({"layer": None}, "adaptation.layer=None must be a value of type str"),
        ({"augment": {"flp": 0.5}}, "adaptation.augment: unknown key 'flp'. Did you mean 'flip'"),
        ({"augment": {"flip": True}}, r"adaptation.augment: flip=True, color=0.0: both must be numbers in \[0, 1\]"),
        ({"augment": {"zoom": (True, 1.2)}}, r"zoom=\(True, 1.2\): give one or more scales"),
        ({"strong": 5}, r"adaptation: strong=5; give a list of transforms"),
        ({"views": {"scales": True}}, "adaptation.views: scales=True: give numbers from 0.25 to 4"),
        ({"views": {"scales": (1.0, True)}}, "scales=.*True.*give numbers from 0.25 to 4"),
        ({"views": {"shift": True}}, "adaptation.views: shift=True must be a whole number of pixels"),
        ({"views": {"flip": 1}}, "adaptation.views: flip=1 must be True or False"),
        ({"task_weights": {"depth": "abc"}}, r"task_weights=\{'depth': 'abc'\}: give a number for each task"),
    ],
)
def test_refusals_name_the_value_and_the_remedy(arguments, told):
    with pytest.raises(ValueError, match=told):
        make_options(**arguments)


def test_options_made_without_a_config_are_checked_alike():
    with pytest.raises(ValueError, match=r"adaptation\.batch_size='8' must be a value of type int"):
        SyMergeOptions(batch_size="8")
