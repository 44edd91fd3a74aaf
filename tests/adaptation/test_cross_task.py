"""Depth and normals as each other's teachers: planes are exact, a sphere and rendered rooms near, cameras found."""

import dataclasses

import numpy as np
import pytest
import torch
from builders import tiny
from builders.adapt_once import adapt_tiny

from symerge_dense.adaptation import make_options, read_history
from symerge_dense.adaptation.teachers import _geometry as geometry
from symerge_dense.adaptation.teachers.cross_task import CrossTask, judge
from symerge_dense.datasets.nyuv2.camera import RGB_CAMERA, Intrinsics
from symerge_dense.datasets.nyuv2.normals import parse_axes
from symerge_dense.datasets.rooms.raycast import render
from symerge_dense.datasets.rooms.scene import focal_length, random_scene
from symerge_dense.tasks.normals import unit
from symerge_dense.testing.teachers import lesson, taught

SIZE, CAMERA = (36, 48), Intrinsics(40.0, 44.0, 22.6, 18.9)
STUDENT = {"type": "cross_task", "fov": 60}


def angle(a, b):
    return (unit(a) * unit(b)).sum(1).clamp(-1, 1).acos().rad2deg()


def pixel_ray(row, column, camera=CAMERA):
    """Written out: x to the right, z forward, y up."""
    return np.array([(column - camera.cx) / camera.fx, 1.0, -(row - camera.cy) / camera.fy])


def plane(normal, distance, size=SIZE, camera=CAMERA):
    """Depth (1,1,h,w) and normals of the plane n . p = -distance, pixel by pixel; 0 where it is not seen."""
    normal = np.array(normal) / np.linalg.norm(normal)
    depth = np.array(
        [[-distance / (normal @ pixel_ray(row, column, camera)) for column in range(size[1])] for row in range(size[0])]
    )
    depth = np.where((depth > 0) & (depth < 30), depth, 0)
    return torch.tensor(depth, dtype=torch.float32)[None, None], torch.tensor(normal).float().view(1, 3, 1, 1)


PLANES = [((0.3, -1.0, 0.2), 3.0), ((0.0, -0.3, 1.0), 1.5), ((-0.7, -0.6, 0.1), 2.0)]


# -- geometry ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("normal, distance", PLANES)
@pytest.mark.parametrize("window", [3, 5])
def test_normals_of_a_plane_are_exact(normal, distance, window):
    depth, wanted = plane(normal, distance)
    found = geometry.normals_from_depth(depth, CAMERA, window)
    known = found.square().sum(1) > 0
    assert (depth[:, 0][known] > 0).all() and known.sum() > 0.8 * (depth > 0).sum()  # far ones have no like neighbours
    assert angle(found, wanted.expand_as(found))[known].max() < 0.1


@pytest.mark.parametrize("normal, distance", PLANES)
def test_depth_of_a_plane_is_kept_and_noise_on_it_averaged_away(normal, distance):
    depth, wanted = plane(normal, distance)
    normals, seen = wanted.expand(1, 3, *SIZE), depth > 0
    refined = geometry.depth_from_normals(depth, normals, CAMERA, 5)
    torch.testing.assert_close(refined, depth, rtol=1e-5, atol=0)
    noise = 1 + 0.02 * torch.randn(depth.shape, generator=torch.Generator().manual_seed(0))
    refined = geometry.depth_from_normals(depth * noise, normals, CAMERA, 5)
    before, after = ((found - depth).abs()[seen].mean() for found in (depth * noise, refined))
    assert after < 0.3 * before


def test_a_neighbour_predicts_by_its_plane_in_the_formula_of_the_paper():
    """Two pixels: the left one's plane, through its point across its normal, meets the right one's ray."""
    depth, normals = torch.tensor([[[[2.0, 2.1, 0.0]]]]), torch.zeros(1, 3, 1, 3)
    directions = [np.array([0.2, -1.0, 0.1]), np.array([0.3, -1.0, 0.1])]
    directions = [direction / np.linalg.norm(direction) for direction in directions]
    for column, direction in enumerate(directions):
        normals[0, :, 0, column] = torch.tensor(direction)
    camera = Intrinsics(50.0, 50.0, 1.0, 0.0)
    here, there = pixel_ray(0, 1, camera), pixel_ray(0, 0, camera)
    predicted = directions[0] @ (2.0 * there) / (directions[0] @ here)
    cosine = directions[0] @ directions[1]
    apart = (1 / predicted - 1 / 2.1) / (geometry.APART / 2.1)
    weight = cosine * (1 - apart**2) ** 2
    found = geometry.depth_from_normals(depth, normals, camera, 3)
    assert found[0, 0, 0, 1] == pytest.approx((2.1 + weight * predicted) / (1 + weight), rel=1e-5)
    assert found[0, 0, 0, 2] == 0


def test_normals_of_a_sphere_point_away_from_its_centre():
    ray, centre, radius = geometry.rays(CAMERA, SIZE), torch.tensor([0.1, 3.0, 0.05]).view(1, 3, 1, 1), 1.0
    square, along = ray.square().sum(1), (ray * centre).sum(1)
    root = along**2 - square * (centre.square().sum() - radius**2)
    hit = root > 0
    depth = ((along - root.clamp(min=0).sqrt()) / square).where(hit, torch.full_like(root, 8.0))[:, None]
    outward = (ray * depth - centre) / radius
    facing = hit & (angle(outward, -ray) < 60)
    error = angle(geometry.normals_from_depth(depth, CAMERA, 3), outward)[facing]
    assert facing.sum() > 300 and error.mean() < 2


@pytest.mark.parametrize("seed", [0, 2])
def test_normals_of_rendered_rooms_agree_within_a_few_degrees(seed):
    size = (96, 128)
    view = render(random_scene(np.random.default_rng(seed)), size)
    focal = focal_length(size[1])
    camera = Intrinsics(focal, focal, (size[1] - 1) / 2, (size[0] - 1) / 2)
    depth = torch.tensor(view["depth"], dtype=torch.float32)[None, None]
    truth = torch.tensor(view["normals"].astype(np.float32)).permute(2, 0, 1)[None]
    error = angle(geometry.normals_from_depth(depth, camera, 3), truth)
    assert error.mean() < 4 and error.median() < 0.1 and (error < 5).float().mean() > 0.9


def test_a_crease_stays_sharp_and_a_step_of_depth_is_no_surface():
    floor, up = plane((0.0, -0.05, 1.0), 1.2)
    wall, back = plane((0.0, -1.0, 0.0), 3.0)
    near = (floor > 0) & (floor < wall)
    depth = floor.where(near, wall)
    found = geometry.normals_from_depth(depth, CAMERA, 5)
    truth = up.expand_as(found).where(near, back.expand_as(found))
    assert (angle(found, truth) < 1).float().mean() > 0.97
    step = wall.clone()
    step[..., 20:] *= 2
    found = geometry.normals_from_depth(step, CAMERA, 5)
    assert (angle(found, back.expand_as(found)) < 1).float().mean() > 0.97
    refined = geometry.depth_from_normals(step, back.expand_as(found).contiguous(), CAMERA, 5)
    torch.testing.assert_close(refined, step, rtol=1e-4, atol=0)


def test_fused_normals_follow_the_smoother_source_and_ignore_a_contradiction():
    up = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 9, 9).contiguous()
    leaning = unit(up + torch.tensor([0.2, 0.0, 0.0]).view(1, 3, 1, 1))
    cosine = float((up * leaning).sum(1)[0, 0, 0])
    middle = geometry.fused(up, leaning, 3)[0, :, 4, 4]
    torch.testing.assert_close(middle, unit((1 - cosine / 2) * up + cosine / 2 * leaning)[0, :, 4, 4])
    rough = unit(up + 0.7 * torch.randn(up.shape, generator=torch.Generator().manual_seed(0)))
    assert angle(geometry.fused(rough, up, 3), up).mean() < 0.5 * angle(rough, up).mean()
    assert angle(geometry.fused(up, rough, 3), up).mean() < 0.35 * angle(rough, up).mean()
    for other in (-up, torch.zeros_like(up)):
        torch.testing.assert_close(geometry.fused(up, other, 3), up)
    torch.testing.assert_close(geometry.fused(up, leaning, 3, share=0.0), up)


# -- the teacher ------------------------------------------------------------------------------------------------------
def scene_labels(student, axes="x,z,y"):
    """Labels of two planes at the size of the tiny student's head, their normals in the given axes."""
    height, width = student.outputs(torch.zeros(1, 3, *tiny.SIZE))["depth"].shape[-2:]
    camera = Intrinsics(*(tiny.SIZE[1] / 2 / np.tan(np.pi / 6),) * 2, (tiny.SIZE[1] - 1) / 2, (tiny.SIZE[0] - 1) / 2)
    camera = camera.scaled(height / tiny.SIZE[0], width / tiny.SIZE[1])
    made = [plane(*what, size=(height, width), camera=camera) for what in (PLANES[0], PLANES[2], ((0.2, -0.5, 1), 2.0))]
    depth = torch.cat([depth for depth, _ in made])
    normals = torch.cat([normal.expand(1, 3, height, width) for _, normal in made])
    chosen = parse_axes(axes)
    stored = torch.empty_like(normals)
    for row, (channel, sign) in enumerate(zip(*chosen, strict=True)):
        stored[:, channel] = sign * normals[:, row]
    segmentation = torch.zeros(3, 4, height, width)
    return {"segmentation": segmentation, "depth": depth, "normals": stored * 2}, camera


@pytest.mark.parametrize("spec, axes", [({}, "x,z,y"), ({"axes": "auto"}, "y,-x,-z"), ({"axes": "x,-y,z"}, "x,-y,z")])
def test_labels_that_agree_are_left_and_axes_are_found(spec, axes):
    student, *_ = taught({**STUDENT, **spec})
    labels, _ = scene_labels(student, axes)
    image = torch.zeros(3, 3, *tiny.SIZE)
    outputs, weights = lesson(student, image, labels, 0.0)
    seen = labels["depth"] > 0
    torch.testing.assert_close(outputs["depth"][seen], labels["depth"][seen], rtol=1e-4, atol=0)
    assert angle(outputs["normals"], labels["normals"]).max() < 0.5 and not weights
    assert outputs["segmentation"] is labels["segmentation"]
    assert student.teacher.log_scalars()["normals_from_depth_angle"] < 0.5
    assert student.teacher.found >= 0 and "teacher.found" in student.trainable_state_dict()


def test_noisy_labels_come_nearer_to_the_truth():
    student, *_ = taught({**STUDENT, "normals_share": 1.0})
    labels, _ = scene_labels(student)
    generator = torch.Generator().manual_seed(0)
    noisy = {
        **labels,
        "depth": labels["depth"] * (1 + 0.03 * torch.randn(labels["depth"].shape, generator=generator)),
        "normals": unit(labels["normals"]) + 0.1 * torch.randn(labels["normals"].shape, generator=generator),
    }
    outputs = lesson(student, torch.zeros(3, 3, *tiny.SIZE), noisy, 0.0).outputs
    assert angle(outputs["normals"], labels["normals"]).mean() < 0.8 * angle(noisy["normals"], labels["normals"]).mean()
    before, after = ((found["depth"] - labels["depth"]).abs().mean() for found in (noisy, outputs))
    assert after < 0.8 * before
    half, *_ = taught({**STUDENT, "depth_share": 0.5, "normals_share": 0.0})
    outputs = lesson(half, torch.zeros(3, 3, *tiny.SIZE), noisy, 0.0).outputs
    assert angle(outputs["normals"], noisy["normals"]).max() < 0.1


def test_wrong_axes_are_told_with_the_right_ones_and_unclear_ones_are_asked_for():
    student, *_ = taught(STUDENT)
    labels, _ = scene_labels(student, "x,-y,z")
    with pytest.raises(ValueError, match=r"axes='x,z,y' has .* Set axes='x,-y,z'"):
        lesson(student, torch.zeros(3, 3, *tiny.SIZE), labels, 0.0)
    with pytest.raises(ValueError, match=r"cannot find the axes of the normals: .* Give axes, such as 'x,z,y'"):
        judge(torch.zeros(3, 3), None)
    assert judge(torch.zeros(3, 3), parse_axes("x,z,y")) == parse_axes("x,z,y")


def test_the_camera_is_that_of_the_heads_pixels():
    student, image, labels = taught({**STUDENT, "of": "experts"})
    output = labels["depth"]
    pixels = dict(zip(("fx", "fy", "cx", "cy"), RGB_CAMERA, strict=True))
    given = CrossTask(**pixels, size=(480, 640)).camera(student, image, output)
    height, width = output.shape[-2:]
    assert given == pytest.approx(RGB_CAMERA.scaled(height / 480, width / 640))
    student.options = dataclasses.replace(student.options, augment={"flip": 0.5})
    mirrored = CrossTask(**pixels, size=(480, 640)).camera(student, image, output)
    assert mirrored.cx == pytest.approx((width - 1) / 2) and mirrored.cy == given.cy
    with pytest.raises(ValueError, match=r"too far from the middle for mirrored images; correct cx"):
        CrossTask(fx=500, cx=100, size=(480, 640)).camera(student, image, output)
    field = CrossTask(fov=90).camera(student, image, output)
    assert field == pytest.approx((width / 2, width / 2, (width - 1) / 2, (height - 1) / 2))


def test_it_teaches_a_run_alone_and_on_top_of_a_mix(tmp_path):
    teacher = {**STUDENT, "of": {"type": "mix", "ramp": 0.0}, "normals_share": 0.5}
    adapt_tiny(tmp_path, teacher=teacher, rounds=3, schedule="per_task", augment={"flip": 0.5})
    rows = read_history(tmp_path / "history.jsonl")
    assert len(rows) == 9 and all(0 <= row["normals_from_depth_angle"] <= 180 for row in rows)


# -- what is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, r"needs the camera.*give either fx .* or the horizontal field of view"),
        ({"fx": 500, "fov": 60}, "give either fx"),
        ({"fov": 190}, "between 0 and 180"),
        ({"fx": -5}, "must be positive"),
        ({"fx": 5, "size": (480,)}, r"size=\(480,\) must be \(height, width\)"),
        ({"fov": 60, "axes": "x,y"}, "normal_axes='x,y'"),
        ({"fov": 60, "reach": 1}, "reach=1 must be an odd number"),
        ({"fov": 60, "window": 4}, "window=4 must be an odd number"),
        ({"fov": 60, "depth_share": 2}, "depth_share=2 must lie in"),
        ({"fov": 60, "of": "emma"}, "unknown teacher 'emma'"),
    ],
)
def test_a_wrong_camera_or_value_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_options(teacher={"type": "cross_task", **arguments})


def test_tasks_and_views_that_do_not_fit_are_refused_before_any_training():
    tasks = tiny.tasks()
    options = make_options(teacher=STUDENT)
    options.check_tasks(tasks)
    with pytest.raises(ValueError, match="needs depth and normals; normals='normals' is no task of 3 channel"):
        options.check_tasks({"depth": tasks["depth"]})
    with pytest.raises(ValueError, match="depth='segmentation' is no task of 1 channel"):
        make_options(teacher={**STUDENT, "depth": "segmentation"}).check_tasks(tasks)
    for augment in ({"zoom": (1.0, 1.5)}, {"protocol": "mtan"}):
        with pytest.raises(ValueError, match="leave zoom and protocol out"):
            make_options(teacher=STUDENT, augment=augment).check_tasks(tasks)
