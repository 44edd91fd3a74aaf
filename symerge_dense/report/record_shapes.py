"""What every part of results.json and compare.json is, so that tables can be made of a record that came from anywhere.

A shape is a type or several; a list of one shape, for a list of any length, or of several, one for each place; or a
dict of keys: ``'key'`` must be there, ``'key?'`` may be missing or null, ``'*'`` stands for every other key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

Shape = Any
NUMBER = (int, float)
OPEN = (*NUMBER, type(None))
"""A number, or null where it is undefined."""
LARGEST = 1 << 64  # a whole number beyond it is none that a run writes
FAULTS_SHOWN = 5  # faults that a message names

METRIC = {"value": OPEN, "higher_is_better": bool, "std?": NUMBER, "parts?": {"*": OPEN}}
ROW = {"tasks": {"*": {"*": METRIC}}, "scale?": NUMBER}
CONFIG = dict.fromkeys(("tasks?", "evaluation?", "data?", "adaptation?"), dict)
EVERY = {
    "config?": CONFIG,
    "versions?": dict,
    "delta_m_metrics?": {"*": str},
    "units?": {"*": {"*": str}},
    "plugins?": {"*": str},
}
"""What records of runs and of comparisons share."""
MEASURED_ROWS = {
    **dict.fromkeys(("experts", "average", "task_arithmetic", "initial", "merged", "experts_views?"), ROW),
    "delta_m": {"*": {"*": OPEN}},
}
OF_A_RUN = {
    **EVERY,
    "seed?": int,
    "timings?": {"*": NUMBER},
    "peak_memory_mb?": NUMBER,
    "parameters?": {"backbone": NUMBER, "heads": {"*": NUMBER}},
    "coefficients?": {"*": [OPEN]},
    "coefficient_ranges?": {"*": [[OPEN, OPEN]]},
    "published_metrics?": {"*": [str]},
}
RESULTS_SHAPE = {**OF_A_RUN, **MEASURED_ROWS, "also?": {"*": MEASURED_ROWS}}
AGREEMENT_SHAPE = {**OF_A_RUN, "agreement": {"rows": {"*": ROW}}}
CHANGE = {"*": {"value": OPEN, "std?": NUMBER}}
COMPARED = {"tasks": ROW["tasks"], "delta_m": CHANGE}
COSTS = ("extra_parameters?", "encoder_passes?", "seconds?", "tuning_seconds?", "peak_memory_mb?")
ROW_SHAPE = {
    "method": str,
    "block?": str,
    "tasks?": ROW["tasks"],
    "delta_m?": CHANGE,
    "transferred?": CHANGE,
    "also?": {"*": COMPARED},
    "runs?": int,
    "error?": str,
    "note?": str,
    "data?": str,
    **dict.fromkeys(COSTS, NUMBER),
}
COMPARISON_SHAPE = {
    **EVERY,
    "config": CONFIG,
    "blocks": {"*": str},
    "adapted_from": str,
    "rows": [ROW_SHAPE],
}


def refuse_misshapen(record: Any, shape: Shape, source: str) -> None:
    """Refuse a record with a part that is not what a run or a comparison writes there.

    Args:
        record: the record.
        shape: that it must have.
        source: what to call it in an error.

    Raises:
        ValueError: the first parts that are something else, by their dotted names.
    """
    faults = list(islice(_faults(record, shape, ""), FAULTS_SHOWN))
    if faults:
        raise ValueError(
            f"{source}: {'; '.join(faults)}. The file was changed or damaged: take it from the run again, or run again."
        )


def _faults(value: Any, shape: Shape, where: str) -> Iterator[str]:
    if isinstance(shape, dict):
        yield from _in_object(value, shape, where)
    elif isinstance(shape, list):
        if not isinstance(value, list) or len(value) != len(shape) != 1:
            yield f"{where or 'it'} is {_called(value)}, not a list" + (f" of {len(shape)}" if len(shape) > 1 else "")
            return
        for place, entry in enumerate(value):
            yield from _faults(entry, shape[place if len(shape) > 1 else 0], f"{where}[{place}]")
    else:
        kinds = shape if isinstance(shape, tuple) else (shape,)
        large = type(value) is int and abs(value) > LARGEST
        if large or not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            known = " or ".join(NAMES[kind] for kind in kinds if kind is not float)
            yield f"{where or 'it'} is {_called(value)}, not {known}"


def _in_object(value: Any, shape: Mapping[str, Shape], where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where or 'it'} is {_called(value)}, not {NAMES[dict]}"
        return
    named = {key.rstrip("?"): (inner, key.endswith("?")) for key, inner in shape.items() if key != "*"}
    for key, (inner, free) in named.items():
        if value.get(key) is not None or (key in value and not free):
            yield from _faults(value[key], inner, f"{where}.{key}" if where else key)
        elif not free:
            yield f"{where}.{key} is missing" if where else f"{key} is missing"
    if "*" in shape:
        for key in value.keys() - named.keys():
            yield from _faults(value[key], shape["*"], f"{where}.{key[:SHOWN_KEY]}" if where else key[:SHOWN_KEY])


NAMES = {
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    dict: "an object",
    list: "a list",
}
SHOWN_KEY = 60  # characters of a key that a message repeats


def _called(value: Any) -> str:
    return (
        f"a number of {len(str(value))} digits" if type(value) is int and abs(value) > LARGEST else NAMES[type(value)]
    )
