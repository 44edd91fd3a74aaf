"""Where the runs of a study are made, as the frame sees it: ``Laboratory`` for images, others for other data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from symerge_dense.pipeline.config import Spec
from symerge_dense.studies.frame.cache import RunCache

Run = dict[str, Any]
"""A run as plain values, see ``RUN_KEYS``; a study may add keys of its own, which its ``measure`` reads."""
Numbers = dict[str, float]
RUN_KEYS = {
    "label": "what tables call it",
    "method": "a row of a comparison: a merging method, or 'experts'",
    "options": "arguments of the method; a scale that is not given is tuned by agreement",
    "config": "{'section.key': value} in place of the config's",
    "tasks": "names of the config's tasks that take part; all where missing",
    "seed": "of base, experts and adaptation, set by the frame",
}


class StudyConfig(Protocol):
    """What a study's config must have."""

    @property
    def name(self) -> str:
        """Of the config file."""

    @property
    def tasks(self) -> Mapping[str, Any]:
        """{task: spec}, in the order of tables."""

    @property
    def record(self) -> Spec:
        """All of it, as plain values."""


class Workplace(ABC):
    """Makes and measures what a run asks for.

    Attributes:
        cost: of the last method, without the experts' labels: as ``resources.measured`` has it.
    """

    cost: dict[str, Any]

    @classmethod
    @abstractmethod
    def read(cls, name: str, values: Mapping[str, Any], where: str) -> StudyConfig:
        """A config from its values.

        Args:
            name: of the config.
            values: {section: content}.
            where: what to call it in messages.

        Raises:
            ValueError: an unknown key, or a value that is not allowed.
        """

    @classmethod
    @abstractmethod
    def of_run(cls, name: str, values: Mapping[str, Any], run: Run, cache: RunCache) -> Workplace:
        """Where a run is made. What it asks for is checked, so that a mistake is known before hours of work.

        Args:
            name: of the config.
            values: {section: content}, with those of the run and its tasks alone.
            run: of the grid, with its seed.
            cache: keeps experts and results.

        Raises:
            ValueError: a value, a method or an option is unknown, or not allowed.
        """

    @property
    @abstractmethod
    def tasks(self) -> list[str]:
        """Names of the tasks that take part."""

    @property
    @abstractmethod
    def ground(self) -> str:
        """Hash of all that base and experts depend on, whatever tasks take part."""

    @abstractmethod
    def train(self) -> dict[str, str]:
        """Train what is missing of base and experts.

        Returns:
            {'base' or 'expert TASK': hash of its weights}.
        """

    @abstractmethod
    def asked(self, run: Run, hashes: Mapping[str, str]) -> Spec:
        """Everything that determines the result of a run, as plain values.

        Args:
            run: of the grid.
            hashes: of the weights of base and experts, by ``train``.
        """

    def share(self, read: dict[str, Any]) -> None:  # noqa: B027 - nothing to do by default
        """Read now what is read at the start, or take it from other runs that have read it.

        Args:
            read: {key: what was read}, of all runs.
        """
