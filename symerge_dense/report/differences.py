"""What differs between the configs of several runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

UNSET = "not set"
IN_A_NAME, IN_A_VALUE = 3, 32  # differences that the name of a run says, and characters of one; a table has it all


def flat(config: Mapping[str, Any] | None) -> dict[str, str]:
    """A recorded config as ``{dotted key: value as text}``, without the seed and its own name.

    A class is named without its module: the place of its file is no setting.

    Args:
        config: of results.json or compare.json; None has no keys.
    """
    kept = {key: value for key, value in (config or {}).items() if key not in ("seed", "name")}
    return {key: _as_text(key, value) for key, value in leaves(kept)}


def _as_text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    return value.rsplit(".", 1)[-1] if key.rsplit(".", 1)[-1] == "type" else value


def leaves(record: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all in a record that is no dict, or an empty one.

    Args:
        record: nested dicts.
        above: beginning of the keys.
    """
    for key, value in record.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def differences(configs: Sequence[Mapping[str, Any] | None]) -> dict[str, list[str]]:
    """The keys in which configs differ.

    Args:
        configs: as records have them.

    Returns:
        ``{dotted key: its value in each config}``, ``UNSET`` where a config has no such key.
    """
    every = [flat(config) for config in configs]
    keys = list(dict.fromkeys(key for config in every for key in config))
    table = {key: [config.get(key, UNSET) for config in every] for key in keys}
    return {key: values for key, values in table.items() if len(set(values)) > 1}


def names(configs: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """A name for each config: that of its file, and how it differs from others of that name.

    Args:
        configs: as records have them; no two the same but for their seed.

    Returns:
        Names that are all different.
    """
    files = [str((config or {}).get("name", "run")) for config in configs]
    found: list[str] = []
    for place, file in enumerate(files):
        others = [index for index, other in enumerate(files) if other == file]
        told = differences([configs[index] for index in others])
        ordered = sorted(told.items(), key=lambda pair: _is_place(pair[1]))
        own = [_setting(key, values[others.index(place)]) for key, values in ordered]
        more = [f"and {len(own) - IN_A_NAME} more"] if len(own) > IN_A_NAME else []
        name = f"{file} ({', '.join([*own[:IN_A_NAME], *more])})" if own else file
        same = sum(other == name or other.startswith(f"{name} #") for other in found)
        found.append(f"{name} #{same + 1}" if same else name)
    return found


def _is_place(values: Sequence[str]) -> bool:
    """Whether values are paths: where something lies is named after what differs in the work itself."""
    return any("/" in value for value in values)


def _setting(key: str, value: str) -> str:
    """A setting as part of a name: of a path its end, of a long value its beginning."""
    if value == UNSET:
        return f"{key} {UNSET}"
    shown = f"…/{Path(value).name}" if "/" in value else value
    return f"{key}={shown if len(shown) <= IN_A_VALUE else f'{shown[: IN_A_VALUE - 1]}…'}"
