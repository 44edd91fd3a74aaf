"""Teachers: each against its formula, all against their contract, and none of them changes what it should not."""

import copy
import dataclasses

import pytest
import torch
from builders import tiny
from builders.adapt_once import adapt_tiny, state
from builders.own_teacher import SmoothDepth

from symerge_dense.adaptation import make_options, read_history
from symerge_dense.adaptation.objective import PREFIX
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.adaptation.teacher import build_teacher
from symerge_dense.engine.checkpointing import checkpoints
from symerge_dense.models.checkpoint import save_model
from symerge_dense.registry import TEACHERS
from symerge_dense.testing.contract import promise
from symerge_dense.testing.teachers import TEACHER_CHECKS, lesson, taught


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A merged model of another seed."""
    path = tmp_path_factory.mktemp("model") / "merged.safetensors"
    save_model(path, tiny.family(noise=0.1)[2])
    return str(path)


def specs(file):
    own = {"model": {"checkpoint": file}, "cross_task": {"fov": 60}}
    return {name: {"type": name, **own.get(name, {})} for name in TEACHERS}


def options(**values):
    return make_options(**{"augment": None, **values})


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", list(TEACHERS))
@pytest.mark.parametrize("check", TEACHER_CHECKS, ids=promise)
def test_contract(name, check, file):
    check(specs(file)[name])


# -- each by hand -----------------------------------------------------------------------------------------------------
def test_experts_give_the_labels_as_they_are():
    student, image, labels = taught({"type": "experts"})
    assert lesson(student, image, labels, 0.9).outputs is labels
    assert not [name for name in student.state_dict() if name.startswith("teacher")]


def test_the_average_moves_as_its_formula_says():
    student, *_ = taught({"type": "ema", "decay": 0.6})
    path, average = [], torch.zeros(())
    for step in range(6):
        with torch.no_grad():
            student.merge.coefficients.copy_(torch.full_like(student.merge.coefficients, 0.1 * step**2))
        student.teacher.after_step(student, step)
        decay = [0, 1 / 2, 0.6, 0.6, 0.6, 0.6][step]  # 1 - 1/(i+1), at most 0.6
        average = decay * average + (1 - decay) * 0.1 * step**2
        path.append(average)
        found = student.teacher.state_dict()["average.merge/coefficients"]
        torch.testing.assert_close(found, torch.full_like(found, float(average)))
    assert path[0] == 0 and path[-1] < 2.5


def test_the_averaged_model_teaches_after_the_warm_up():
    student, image, labels = taught({"type": "ema", "warmup": 0.25})
    assert lesson(student, image, labels, 0.24).outputs is labels
    with torch.no_grad():
        student.merge.coefficients.fill_(0.7)
        student.teacher.after_step(student, 0)
        wanted = student.outputs(image)
        student.merge.coefficients.fill_(0.1)
    found = lesson(student, image, labels, 0.25).outputs
    assert all(torch.equal(found[task], wanted[task]) for task in wanted)
    assert not torch.equal(student.outputs(image)["depth"], wanted["depth"])


def test_a_mix_is_each_tasks_own_average_and_grows_over_the_ramp(file):
    student, image, labels = taught({"type": "mix", "second": {"type": "model", "checkpoint": file}, "share": 0.4})
    second = student.teacher.second.targets(student, image, labels).outputs
    assert lesson(student, image, labels, 0.0).outputs is labels
    for progress, share in ((0.125, 0.2), (0.25, 0.4), (0.9, 0.4)):
        found = lesson(student, image, labels, progress).outputs
        depth = (1 - share) * labels["depth"].float() + share * second["depth"]
        torch.testing.assert_close(found["depth"], depth)
        chances = [(part["segmentation"].float()).softmax(1) for part in (labels, second)]
        torch.testing.assert_close(
            found["segmentation"].softmax(1), (1 - share) * chances[0] + share * chances[1], rtol=1e-4, atol=1e-6
        )
        directions = [torch.nn.functional.normalize(part["normals"].float()) for part in (labels, second)]
        torch.testing.assert_close(found["normals"], (1 - share) * directions[0] + share * directions[1])


def test_a_mix_mixes_weights_and_a_whole_share_asks_nobody_else():
    student, image, labels = taught({"type": "mix", "second": {"type": SmoothDepth}, "share": 0.25, "ramp": 0.0})
    own = student.teacher.second.targets(student, image, labels).weights["depth"]
    found = lesson(student, image, labels, 0.0).weights
    torch.testing.assert_close(found["depth"], 0.75 + 0.25 * own)
    assert set(found) == {"depth"}
    student.teacher.share = 1.0
    assert torch.equal(lesson(student, image, labels, 0.0).weights["depth"], own)


def test_a_model_of_a_file_teaches_what_it_serves(file, tmp_path):
    student, image, labels = taught({"type": "model", "checkpoint": file})
    _, experts, model = tiny.family(noise=0.1)
    assert same(lesson(student, image, labels, 0.0).outputs, {k: v.detach() for k, v in model.eval()(image).items()})
    assert not [name for name in student.state_dict() if name.startswith("teacher")]
    alone = tmp_path / "depth.safetensors"
    save_model(alone, experts["depth"])
    student, *_ = taught({"type": "model", "checkpoint": str(alone)})
    found = lesson(student, image, labels, 0.0).outputs
    assert found["normals"] is labels["normals"]
    assert torch.equal(found["depth"], experts["depth"](image)["depth"])


def test_weights_of_pixels_are_those_of_a_mean():
    student, image, labels = taught({"type": SmoothDepth})
    batch = {PREFIX + task: label for task, label in labels.items()}
    outputs, (targets, weights) = student.outputs(image), lesson(student, image, labels, 0.0)
    error = (outputs["depth"] - targets["depth"])[:, 0].abs()
    wanted = (error * weights["depth"]).sum() / weights["depth"].sum()
    torch.testing.assert_close(student.distances(image, batch)["depth"], wanted)
    plain, *_ = taught({"type": "experts"})
    assert torch.equal(
        plain.distances(image, batch)["normals"], student.distances(image, batch)["normals"]
    )  # no weights, no difference


def test_weights_of_nothing_are_no_division_by_zero():
    rule, output = tiny.tasks()["depth"], torch.ones(1, 1, 2, 2, requires_grad=True)
    loss = rule.loss(output, torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool), torch.zeros(1, 2, 2))
    loss.backward()
    assert loss == 0 and not output.grad.any()


def test_teachers_see_the_clean_image():
    student, image, labels = taught({"type": "ema", "warmup": 0.0})
    batch = {PREFIX + task: label for task, label in labels.items()}
    losses = student.distances(image * 0.5, {**batch, "clean": image})
    with torch.no_grad():
        wanted = student.task_losses(student.outputs(image * 0.5), student.outputs(image))
    assert same({k: v.detach() for k, v in losses.items()}, wanted) and losses["depth"] > 0


# -- in a run ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("schedule, labels", [("sum", "cached"), ("per_task", "online")])
def test_a_resumed_run_ends_like_an_unbroken_one(tmp_path, schedule, labels):
    asked = {"teacher": "mix", "rounds": 6, "save_every": 3, "schedule": schedule, "labels": labels}
    unbroken, _ = adapt_tiny(tmp_path, **asked)
    last, first = checkpoints(tmp_path / "checkpoints")
    last.unlink()  # what came after the first is computed again
    assert [name for name in torch.load(first, weights_only=True)["state_dict"] if name.startswith("teacher.second.")]
    resumed, _ = adapt_tiny(tmp_path, resume=True, **asked)
    assert same(state(unbroken), state(resumed))


def test_a_teacher_of_ones_own_learns_from_its_name(tmp_path):
    model, _ = adapt_tiny(tmp_path, teacher={"type": "smooth_depth", "window": 5}, rounds=3)
    assert isinstance(model.teacher, SmoothDepth) and len(read_history(tmp_path / "history.jsonl")) == 3


def test_classes_in_a_spec_become_the_names_that_files_hold():
    asked = options(teacher={"type": TEACHERS["mix"], "second": {"type": SmoothDepth, "window": 5}})
    assert asked.teacher == {"type": "mix", "second": {"type": "smooth_depth", "window": 5}}
    assert options(**dataclasses.asdict(asked)) == asked
    unregistered = type("Own", (SmoothDepth,), {"__doc__": "x", "__module__": "my_lab"})
    assert options(teacher={"type": unregistered}).teacher == {"type": "my_lab.Own"}


@pytest.mark.parametrize("changes", [{"filter": "confidence"}, {"objective": "entropy"}, {"statistics": "running"}])
def test_it_goes_with_other_options(tmp_path, changes):
    adapt_tiny(tmp_path, teacher={"type": "ema", "warmup": 0.0}, rounds=3, **changes)
    rows = read_history(tmp_path / "history.jsonl")
    assert len(rows) == 3 and all(torch.tensor(list(row.values())).isfinite().all() for row in rows)


# -- what is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "teacher, message",
    [
        ("expert", "adaptation.teacher: unknown teacher 'expert'. Did you mean 'experts'"),
        (5, "5 is no teacher; give a name"),
        ({"decay": 0.9}, "is no teacher; give a name"),
        ({"type": "ema", "deacy": 0.9}, "its options: decay=0.99, warmup=0.25"),
        ({"type": "ema", "decay": "0.9"}, "does not take {'decay': '0.9'}.* decay=0.99"),
        ({"type": "ema", "decay": 1.0}, r"decay=1.0 must lie in \[0, 1\)"),
        ({"type": "ema", "warmup": 5}, r"warmup=5 must lie in \[0, 1\]"),
        ({"type": "mix", "share": -1}, "share=-1 must lie in"),
        ({"type": "mix", "second": "emma"}, "unknown teacher 'emma'. Did you mean 'ema'"),
        ({"type": "model"}, "checkpoint"),
        ({"type": torch.nn.Linear, "in_features": 1, "out_features": 1}, "derive it from"),
    ],
)
def test_what_is_no_teacher_is_refused_with_the_options(teacher, message):
    with pytest.raises(ValueError, match=message):
        options(teacher=teacher)


def test_a_file_that_cannot_teach_is_refused_before_any_training(file, tmp_path):
    (tmp_path / "text.safetensors").write_text("nothing")
    checked = options(teacher={"type": "model", "checkpoint": file})
    checked.check_tasks(tiny.tasks())
    with pytest.raises(ValueError, match=r"adaptation\.teacher: .*serves segmentation, depth, normals, none of edges"):
        checked.check_tasks({"edges": tiny.tasks()["depth"]})
    other = copy.copy(tiny.tasks()["segmentation"])
    other.channels = 7
    with pytest.raises(ValueError, match="gives segmentation in 4 channels, the merged model in 7"):
        checked.check_tasks({"segmentation": other})
    for path, message in ((tmp_path / "no.safetensors", "no.safetensors"), (tmp_path / "text.safetensors", "damaged")):
        wrong = dataclasses.replace(checked, teacher={"type": "model", "checkpoint": str(path)})
        with pytest.raises(ValueError, match=message):
            SyMergeModel(*tiny.family()[:2], wrong)


def test_a_teacher_that_pads_otherwise_is_refused_before_any_label_is_written(tmp_path):
    path = tmp_path / "vit.safetensors"
    save_model(path, tiny.family(tiny.VIT)[2])
    teacher = {"type": "model", "checkpoint": str(path)}
    size = (tiny.SIZE[0] - 2, tiny.SIZE[1] - 2)  # the student takes it as it is, patches do not
    for spec in (teacher, {"type": "mix", "second": teacher}):
        build_teacher(spec).check_size(tiny.backbone(), tiny.SIZE)
        with pytest.raises(ValueError, match=r"vit\.safetensors pads images of .* choose a size that both take"):
            build_teacher(spec).check_size(tiny.backbone(), size)
    with pytest.raises(ValueError, match="choose a size that both take"):
        adapt_tiny(tmp_path / "run", teacher=teacher, data=tiny.TinySet({}, split="pool", size=size))
    assert not list((tmp_path / "run").rglob("*.npy"))


def test_a_task_without_an_average_is_not_mixed():
    class Stubborn(type(tiny.tasks()["depth"])):
        def average(self, outputs, weights=None):
            raise ValueError("there is none.")

    with pytest.raises(ValueError, match="task depth has no average of two outputs"):
        options(teacher="mix").check_tasks({"depth": Stubborn()})
