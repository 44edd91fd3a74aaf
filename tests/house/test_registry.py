"""The registries: one owner per name, errors that help, and entries found without a list."""

import sys

import pytest

from symerge_dense.registry import ADAPTIVE_METHODS, HEADS, MERGERS, TASKS, TEACHERS, Registry, did_you_mean


def named(name, **attributes):
    return type(f"Class{name.title()}", (), {"name": name, **attributes})


def test_a_registered_class_is_found_by_its_name():
    animals = Registry("animal")
    cat = animals.register_module(module=named("cat"))
    assert animals["cat"] is cat


def test_register_works_as_a_decorator_and_keeps_the_class():
    animals = Registry("animal")

    @animals.register_module()
    class Dog:
        name = "dog"

    assert Dog.name == "dog" and animals["dog"] is Dog


def test_a_second_class_of_the_same_name_is_refused_and_the_first_stays():
    animals = Registry("animal")
    first = animals.register_module(module=named("cat"))
    with pytest.raises(ValueError, match=r"animal 'cat' is registered twice.*rename"):
        animals.register_module(module=type("Impostor", (), {"name": "cat"}))
    assert animals["cat"] is first


def test_the_same_class_may_come_again_when_its_module_is_reloaded():
    animals = Registry("animal")
    animals.register_module(module=named("cat", legs=4))
    reloaded = animals.register_module(module=named("cat", legs=5))
    assert animals["cat"] is reloaded and len(animals) == 1


def test_names_are_walked_in_alphabetical_order():
    animals = Registry("animal")
    for name in ("owl", "ant", "cat"):
        animals.register_module(module=named(name))
    assert list(animals) == ["ant", "cat", "owl"]


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known_ones():
    animals = Registry("animal")
    for name in ("horse", "mouse", "ant"):
        animals.register_module(module=named(name))
    with pytest.raises(ValueError) as error:
        animals["house"]
    message = str(error.value)
    assert "unknown animal 'house'" in message and "Known: ant, horse, mouse" in message
    suggestion = message.split("Did you mean ")[1].split("?")[0]
    assert "'horse'" in suggestion and "'mouse'" in suggestion and "'ant'" not in suggestion


@pytest.mark.parametrize("known, expected", [((), "Known: none."), (("zebra",), "Known: zebra.")])
def test_nearest_makes_no_suggestion_where_nothing_is_near(known, expected):
    message = did_you_mean("qqq", known, "animal")
    assert message.endswith(expected) and "Did you mean" not in message


def test_a_long_list_of_known_names_is_cut_but_the_nearest_are_found_in_all():
    message = did_you_mean("name99x", [f"name{number:02}" for number in range(100)], "animal")
    assert "'name99'" in message and message.endswith("name19, and 80 more.")


class Square:
    """Something to build."""

    name = "square"

    def __init__(self, side=1):
        self.side = side


@pytest.mark.parametrize("kind", ["square", Square])
def test_build_takes_a_name_or_a_class_and_leaves_the_spec_alone(kind):
    shapes = Registry("shape")
    shapes.register_module(module=Square)
    spec = {"type": kind, "side": 3}
    assert shapes.build(spec).side == 3
    assert spec == {"type": kind, "side": 3}


def test_build_returns_an_object_as_it_is():
    square = Square()
    assert Registry("shape").build(square) is square


def test_build_of_an_unknown_type_names_it():
    with pytest.raises(ValueError, match="unknown shape 'cube'"):
        Registry("shape").build({"type": "cube"})


@pytest.mark.parametrize(
    "entries, expected",
    [
        (TASKS, {"segmentation", "depth", "normals", "edges", "albedo", "shading"}),
        (HEADS, {"DeepLab", "MultiScale", "MMSegHead"}),
        (MERGERS, {"average", "task_arithmetic"}),
        (ADAPTIVE_METHODS, {"symerge", "layer_on_base", "adamerging", "surgery", "prodistill"}),
        (TEACHERS, {"experts", "ema", "mix", "model", "cross_task"}),
    ],
    ids=["tasks", "heads", "mergers", "adaptive methods", "teachers"],
)
def test_a_registry_is_full_when_it_is_asked(entries, expected):
    assert expected <= set(entries)
    for name in entries:
        assert entries[name].name == name
        assert entries[name].__doc__, f"{entries.kind} {name!r} does not say what it is"


def test_what_a_file_says_is_never_imported(tmp_path, monkeypatch):
    """Names of tasks and methods come from results and packed models, too."""
    (tmp_path / "planted.py").write_text("raise SystemExit('this was executed')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (TASKS, MERGERS, ADAPTIVE_METHODS):
        with pytest.raises(ValueError, match=r"unknown .*'planted\.T'"):
            registry["planted.T"]
    assert "planted" not in sys.modules


def test_a_module_that_a_config_names_and_that_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "needy.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="needy cannot be imported: No module named 'a_library_that_is_not_there'"):
        TASKS.build({"type": "needy.T"})
