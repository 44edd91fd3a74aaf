"""What the merged model learns from: the contract of a teacher, which makes targets of the experts' labels.

Teachers are classes of ``TEACHERS``, one idea a file in ``adaptation/teachers``; option ``teacher`` names one.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor, nn

from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.image_sizes import Size
from symerge_dense.registry import TEACHERS
from symerge_dense.tasks.base import DenseTask

if TYPE_CHECKING:
    from symerge_dense.adaptation.options import SyMergeOptions
    from symerge_dense.adaptation.student import Student


class Targets(NamedTuple):
    """What a teacher says about a batch.

    Args:
        outputs: {task: raw output (N,C,h,w), as an expert would give it}; tasks that do not learn now may be missing.
        weights: {task: weight >= 0 of every pixel's loss, (N,h,w)}; a task without one weighs all pixels alike.
    """

    outputs: Mapping[str, Tensor]
    weights: Mapping[str, Tensor] = MappingProxyType({})


class Teacher(nn.Module, ABC):
    """Makes the targets of every batch. A subclass writes ``targets``, and of the other methods what it needs.

    A teacher is a part of the student. What it remembers from step to step must be buffers that ``attach`` registers:
    checkpoints hold them, so that a resumed run goes on as if unbroken, and every process has its own, which stay equal
    because all see the same weights. A network that never changes is no part of the state: keep it in a list, which
    PyTorch does not look into. Teachers that are attributes are attached, checked and told of steps along with it.

    Attributes:
        name: registry key.
        between_tasks: whether a task's target is made of other tasks' labels too, so that every image must have all.
    """

    name: ClassVar[str]
    between_tasks: ClassVar[bool] = False

    @abstractmethod
    def targets(self, student: Student, image: Tensor, labels: Mapping[str, Tensor]) -> Targets:
        """What the student should have said about a batch; called without gradient.

        Args:
            student: the model that learns. ``student.model.tasks`` has the rules of the tasks, ``student.active`` the
                tasks of this step, and ``student.progress`` is the share of the run that is over, 0 at first.
            image: the images as they are, not what strong augmentation made of them: (N,3,H,W) in 0..255.
            labels: {task: raw output (N,C,h,w) of its expert}, moved along with the image; any float precision.
        """

    def check(self, tasks: Mapping[str, DenseTask], options: SyMergeOptions) -> None:
        """Refuse what cannot work, before any training.

        Args:
            tasks: {task: its rules} of the merged model.
            options: of the adaptation.

        Raises:
            ValueError: the teacher cannot teach these tasks, or contradicts an option.
        """
        for part in self._parts():
            part.check(tasks, options)

    def check_pool(self, pool: Unlabelled, tasks: Collection[str]) -> None:
        """Refuse images without the labels that the targets are made of.

        Args:
            pool: the unlabelled images.
            tasks: names of the merged model's tasks.

        Raises:
            ValueError: some tasks' experts do not label all images, and the teacher needs them.
        """
        partly = [task for task in tasks if not pool.labelled_by(task).all()]
        if partly and any(part.between_tasks for part in self.modules() if isinstance(part, Teacher)):
            raise ValueError(
                f"adaptation.teacher {self.name!r} makes targets of several tasks' labels, and images of a pool have "
                f"none of {', '.join(partly)}; leave labels_of out, or take another teacher."
            )

    def check_size(self, backbone: TimmBackbone, size: Size) -> None:
        """Refuse images of a size that the teacher cannot be asked about, before any training.

        Args:
            backbone: of the student; it may have no memory for its weights.
            size: (H,W) of the images.

        Raises:
            ValueError: what the teacher says would not fit the student's outputs.
        """
        for part in self._parts():
            part.check_size(backbone, size)

    def attach(self, student: Student) -> None:
        """Called once, before a checkpoint is loaded and before the first step: register buffers, move networks.

        Args:
            student: the model that learns, with its weights at the start, on its device.
        """
        for part in self._parts():
            part.attach(student)

    def after_step(self, student: Student, iteration: int) -> None:
        """Called after every optimizer step, when the student has its new weights.

        Args:
            student: the model that learns.
            iteration: number of the step, from 0.
        """
        for part in self._parts():
            part.after_step(student, iteration)

    def log_scalars(self) -> dict[str, Tensor]:
        """Scalars for the run's history, beside the losses."""
        return {name: value for part in self._parts() for name, value in part.log_scalars().items()}

    def _parts(self) -> list[Teacher]:
        return [part for part in self.children() if isinstance(part, Teacher)]


def plain_spec(spec: Any) -> Any:
    """A teacher's spec in which names stand for classes, so that any file of a run can hold it.

    Args:
        spec: as ``build_teacher`` takes it; teachers within it are treated alike.
    """
    if isinstance(spec, Mapping):
        return {key: plain_spec(value) for key, value in spec.items()}
    if isinstance(spec, type):
        return TEACHERS.name_of(spec) or f"{spec.__module__}.{spec.__qualname__}"
    return spec


def build_teacher(spec: str | Mapping[str, Any] | Teacher) -> Teacher:
    """Build a teacher.

    Args:
        spec: a name of ``TEACHERS``, ``{'type': name or class, **arguments}``, or a teacher, which is returned.

    Raises:
        ValueError: there is no such teacher, or it refuses its arguments.
    """
    if isinstance(spec, Teacher):
        return spec
    given = {"type": spec} if isinstance(spec, str) else spec
    if not isinstance(given, Mapping) or not isinstance(given.get("type"), str | type):
        raise ValueError(
            f"{spec!r} is no teacher; give a name ({', '.join(TEACHERS)}), or dict(type=name, ...) with its options."
        )
    kind = given["type"]
    owner = TEACHERS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(owner, type) and issubclass(owner, Teacher)):
        raise ValueError(f"{kind!r} is no teacher; derive it from symerge_dense.adaptation.Teacher.")
    asked = {name: value for name, value in given.items() if name != "type"}
    try:
        return owner(**asked)
    except TypeError as error:
        known = inspect.signature(owner).parameters.values()
        options = [one.name if one.default is one.empty else f"{one.name}={one.default!r}" for one in known]
        raise ValueError(
            f"teacher {owner.__name__} does not take {asked} ({error}); its options: {', '.join(options) or 'none'}."
        ) from error
