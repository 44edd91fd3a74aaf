"""Panels, heat maps and curves: real PNG files of the expected size and colours, and errors that name the culprit."""

import os

import cv2
import numpy as np
import pytest

from symerge_dense.report.figures.curves import draw_curves, series, smoothed
from symerge_dense.report.figures.heatmap import draw_heatmap, layer_labels
from symerge_dense.report.figures.panels import draw_panels
from symerge_dense.report.figures.style import COLOURS, colours, new_figure, save

TITLES = ("truth", "expert", "task arithmetic", "merged")


def read(path):
    """A PNG as (H,W,3) RGB."""
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    return cv2.imread(str(path))[:, :, ::-1]


def share(picture, colour, tolerance=3):
    """Share of pixels that have a colour."""
    return float((np.abs(picture.astype(int) - colour).max(-1) <= tolerance).mean())


def flat(colour, size=(30, 40)):
    return np.broadcast_to(np.array(colour, np.uint8), (*size, 3)).copy()


def panel_row(tasks=("depth", "normals"), size=(30, 40)):
    return {"image": flat((10, 200, 30), size)} | {
        task: {title: flat((50 * column, 40 * line, 150), size) for column, title in enumerate(TITLES)}
        for line, task in enumerate(tasks)
    }


# -- panels -----------------------------------------------------------------------------------------------------------
def test_every_picture_is_on_the_panel_in_equal_size(tmp_path):
    draw_panels(tmp_path / "panels.png", [panel_row()])
    picture = read(tmp_path / "panels.png")
    shares = [share(picture, (50 * column, 40 * line, 150)) for line in range(2) for column in range(len(TITLES))]
    image = share(picture, (10, 200, 30))
    assert image > 0.05 and shares == pytest.approx([image] * 8, rel=0.05)


def test_columns_are_models_and_lines_are_tasks(tmp_path):
    draw_panels(tmp_path / "panels.png", [panel_row()])
    picture = read(tmp_path / "panels.png").astype(int)
    centres = np.array(
        [
            [
                np.argwhere(np.abs(picture - (50 * column, 40 * line, 150)).max(-1) < 4).mean(0)
                for column in range(len(TITLES))
            ]
            for line in range(2)
        ]
    )
    assert np.ptp(centres[..., 0], axis=1).max() < 2 and np.ptp(centres[..., 1], axis=0).max() < 2
    assert (np.diff(centres[..., 1], axis=1) > 100).all() and (np.diff(centres[..., 0], axis=0) > 100).all()
    image = np.argwhere(np.abs(picture - (10, 200, 30)).max(-1) < 4).mean(0)
    assert image[1] < centres[0, 0, 1] and abs(image[0] - centres[0, 0, 0]) < 2


@pytest.mark.parametrize("images, tasks", [(1, 1), (1, 3), (3, 2)])
def test_the_panel_grows_by_a_line_per_task_of_each_image(tmp_path, images, tasks):
    draw_panels(tmp_path / "one.png", [panel_row(["depth"])])
    draw_panels(tmp_path / "many.png", [panel_row([f"task {number}" for number in range(tasks)])] * images)
    one, many = read(tmp_path / "one.png").shape, read(tmp_path / "many.png").shape
    assert many[1] == one[1]
    assert many[0] - one[0] >= 230 * (images * tasks - 1)  # a line of a 4:3 picture is 2.1 in x 3/4 x 150 dpi high


def test_predictions_of_another_size_than_the_image_are_drawn(tmp_path):
    row = panel_row()
    row["depth"]["expert"] = flat((0, 0, 0), (12, 16))
    draw_panels(tmp_path / "panels.png", [row])
    assert share(read(tmp_path / "panels.png"), (0, 0, 0)) > 0.05


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda row: row.update(image=row["image"].astype(np.float32)), r"rows\[0\]\['image'\] is float32"),
        (lambda row: row["depth"].update(expert=np.zeros((3, 8, 8), np.uint8)), r"\['expert'\] is uint8 \(3, 8, 8\)"),
        (lambda row: row["depth"].update(expert=[1]), r"\['expert'\] is list"),
        (lambda row: row.pop("image"), r"\['image'\] is NoneType"),
        (lambda row: row["normals"].pop("truth"), r"rows\[0\]\['normals'\] has titles"),
        (lambda row: (row.pop("depth"), row.pop("normals")), r"rows\[0\] names no task"),
    ],
)
def test_a_wrong_panel_row_is_named_and_nothing_is_written(tmp_path, change, message):
    row = panel_row()
    change(row)
    with pytest.raises(ValueError, match=message):
        draw_panels(tmp_path / "panels.png", [row])
    assert os.listdir(tmp_path) == []


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        draw_panels(tmp_path / "panels.png", [])


# -- heat map ---------------------------------------------------------------------------------------------------------
def viridis(value):
    import matplotlib

    return np.array(matplotlib.colormaps["viridis"](value)[:3]) * 255


@pytest.mark.parametrize("layers", [1, 12, 41, 160])
def test_a_map_of_any_depth_stays_legible(tmp_path, layers):
    tasks = ["segmentation", "depth", "normals"]
    draw_heatmap(tmp_path / "map.png", {f"blocks.{layer}.norm": [0.0, 0.5, 1.0] for layer in range(layers)}, tasks)
    height, width, _ = read(tmp_path / "map.png").shape
    assert height <= 150 * 10 and width <= 150 * 16
    assert height >= 150 * 0.15 * min(layers, 20)  # a line is never lower than its letters


def test_cells_have_the_colour_of_their_coefficient(tmp_path):
    draw_heatmap(tmp_path / "map.png", {"first": [0.0, 1.0], "second": [0.5, 0.5]}, ["a", "b"])
    picture = read(tmp_path / "map.png")
    ends, middle = [share(picture, viridis(value)) for value in (0.0, 1.0)], share(picture, viridis(0.5))
    assert min(ends) > 0.05
    assert middle == pytest.approx(sum(ends), rel=0.2)  # two cells of one half, one of each end


def test_the_first_layer_stands_at_the_top_and_tasks_go_from_left_to_right(tmp_path):
    draw_heatmap(tmp_path / "map.png", {"first": [1.0, 0.0], "second": [0.0, 0.0]}, ["a", "b"])
    picture = read(tmp_path / "map.png")
    high, low = (np.argwhere(np.abs(picture[:, :-120] - viridis(value)).max(-1) < 4).mean(0) for value in (1.0, 0.0))
    assert high[0] < low[0] and high[1] < low[1]


def test_values_outside_the_scale_take_the_colour_of_its_end(tmp_path):
    draw_heatmap(tmp_path / "map.png", {"first": [-0.5, 1.5], "second": [None, 0.2]}, ["a", "b"])
    picture = read(tmp_path / "map.png")
    assert share(picture, viridis(0.0)) > 0.05 and share(picture, viridis(1.0)) > 0.05


@pytest.mark.parametrize(
    "names, labels",
    [
        (["net.body.stem.weight", "net.body.layer1.0.conv.weight"], ["stem", "layer1.0.conv"]),
        (["net.blocks.0.weight", "net.blocks.1.weight"], ["blocks.0", "blocks.1"]),
        (["stem", "stem.norm"], ["stem", "stem.norm"]),
        (["a.weight", "a.bias"], ["weight", "bias"]),
        (["only.one"], ["only.one"]),
    ],
)
def test_labels_drop_what_all_have_in_common(names, labels):
    assert layer_labels(names) == labels
    assert len(set(layer_labels(names))) == len(names)


@pytest.mark.parametrize(
    "coefficients, message",
    [({}, "no coefficients"), ({"stem": [0.1, 0.2], "body": [0.3]}, "'body' has 1 coefficients")],
)
def test_a_wrong_map_is_named(tmp_path, coefficients, message):
    with pytest.raises(ValueError, match=message):
        draw_heatmap(tmp_path / "map.png", coefficients, ["depth", "normals"])
    assert os.listdir(tmp_path) == []


# -- curves -----------------------------------------------------------------------------------------------------------
def history(steps=60, tasks=("depth", "normals")):
    losses = {f"loss_{task}": 0.5 for task in tasks}
    means = {f"coefficient_mean_{task}": 0.3 for task in tasks}
    return [{"iteration": 10 * step, "loss": 1.0, **losses, **means} for step in range(steps)]


def test_curves_are_drawn_in_the_colours_of_the_tasks(tmp_path):
    draw_curves(tmp_path / "curves.png", history(tasks=("depth",)))
    picture = read(tmp_path / "curves.png")
    assert picture.shape == (570, 1500, 3)
    first, second = (np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) for colour in COLOURS[:2])
    assert share(picture, first) > 1e-3 and share(picture, second) == 0


@pytest.mark.parametrize("steps", [1, 2, 500])
def test_a_history_of_any_length_is_drawn(tmp_path, steps):
    draw_curves(tmp_path / "curves.png", history(steps))
    assert len(np.unique(read(tmp_path / "curves.png").reshape(-1, 3), axis=0)) > 20


def test_a_step_may_lack_tasks_and_numbers(tmp_path):
    steps = [{"iteration": 0, "loss_depth": 1.0}, {"iteration": 1, "loss_normals": None}, {"iteration": 2}]
    steps += [{"iteration": 3, "loss_normals": float("nan")}, {"iteration": 4, "loss_depth": 0.5, "loss_normals": 2.0}]
    iterations, values = series(steps, "loss_depth")
    assert iterations.tolist() == [0, 4] and values.tolist() == [1.0, 0.5]
    assert [part.tolist() for part in series(steps, "loss_normals")] == [[4], [2.0]]
    draw_curves(tmp_path / "curves.png", steps)
    assert read(tmp_path / "curves.png").size


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100, 333])
def test_smoothing_is_a_centred_mean_of_what_is_there(count):
    values = np.random.default_rng(count).normal(size=count)
    half = max(1, round(count * 0.05 / 2))
    expected = [values[max(at - half, 0) : at + half + 1].mean() for at in range(count)]
    np.testing.assert_allclose(smoothed(values), expected, atol=1e-12)


@pytest.mark.parametrize(
    "steps, message",
    [
        ([], "neither losses nor coefficients"),
        ([{"iteration": 1, "loss": 3.0}], "neither losses nor coefficients"),
        ([{"iteration": 1, "loss_depth": 1.0}, {"loss_depth": 1.0}], r"history\[1\] has no 'iteration'"),
    ],
)
def test_a_wrong_history_is_named(tmp_path, steps, message):
    with pytest.raises(ValueError, match=message):
        draw_curves(tmp_path / "curves.png", steps)
    assert os.listdir(tmp_path) == []


# -- what they share --------------------------------------------------------------------------------------------------
def test_the_same_picture_twice_is_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        draw_curves(tmp_path / name, history(5))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_pictures_have_150_dots_per_inch_and_need_no_folder(tmp_path):
    save(new_figure(2.0, 1.0), tmp_path / "new" / "folder" / "blank.png")
    assert read(tmp_path / "new" / "folder" / "blank.png").shape == (150, 300, 3)
    assert os.listdir(tmp_path / "new" / "folder") == ["blank.png"]


def test_a_task_has_the_colour_of_its_place():
    names = [f"task {number}" for number in range(25)]
    assert colours(names)["task 0"] == colours(names)["task 10"] == COLOURS[0]
    assert len({colours(names)[name] for name in names[:10]}) == 10
