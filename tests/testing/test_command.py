"""``python -m symerge_dense.testing``: what it finds, what it prints, and how it ends."""

from __future__ import annotations

import pytest

from symerge_dense.testing.__main__ import main
from symerge_dense.testing.plugins import KINDS

PLUGINS = '''"""Plug-ins of somebody: https://example.org"""
import torch
from symerge_dense import DATASETS, HEADS, MERGERS, TASKS, DenseDataset, Merger
from symerge_dense.tasks import Probability, Regression


@TASKS.register_module()
class Good(Probability):
    """Right."""
    name, channels = "{0}_good", 1


@TASKS.register_module()
class Bad(Regression):
    """Its label is in another space than its values."""
    name, channels = "{0}_bad", 1
    def decide(self, output):
        return output.sigmoid()


@HEADS.register_module("{0}_head")
class AHead(torch.nn.Module):
    def __init__(self, in_channels, strides, channels, width=4):
        super().__init__()
        self.body = torch.nn.Conv2d(in_channels[-1], width, 1)
        self.out = torch.nn.Conv2d(width, channels, 1)
    def forward(self, features):
        return self.out(self.body(features[-1]).relu())


@MERGERS.register_module()
class AMethod(Merger):
    name = "{0}_method"
    def merge(self, operands):
        return operands.base.clone()


@DATASETS.register_module("{0}_data")
class Data(DenseDataset):
    serves = frozenset({{"depth"}})
    def __init__(self, root, **options):
        super().__init__(**options)


@DATASETS.register_module("{0}_needy")
class Needy(Data):
    def __len__(self):
        return 1
    def image(self, index):
        raise ValueError("no file")
    target = image
'''


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """A module of plug-ins with names of its own, for registries forget nothing."""
    name = f"lab{abs(hash(request.node.name)) % 10**6}"
    (tmp_path / f"{name}.py").write_text(PLUGINS.format(name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for kind in KINDS:
        for registered in [key for key in kind.registry.module_dict if key.startswith(name)]:
            del kind.registry.module_dict[registered]


def test_one_plugin_that_is_right(module, capsys):
    assert main([module, f"{module}_good"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"task {module}_good ({module}.Good)\n  ok      It can be built\n")
    assert "  ok      A perfect prediction has a perfect metric" in printed
    assert printed.endswith("contracts are kept.\n")
    assert f"head {module}" not in printed


def test_a_broken_contract_is_told_with_its_remedy(module, capsys):
    assert main([module, "--task"]) == 1
    printed = capsys.readouterr().out
    assert f"task {module}_good" in printed and "  BROKEN  A self-label lives in the space of targets" in printed
    assert "let self_label return `self.decide(expert_output.detach())`" in " ".join(printed.split())
    assert printed.splitlines()[-1].endswith("contracts are broken.")


def test_all_kinds_are_found_and_options_reach_the_constructor(module, capsys):
    assert main([module, "--head", "--method"]) == 0
    printed = capsys.readouterr().out
    assert f"head {module}_head" in printed and f"merger {module}_method" in printed and f"task {module}" not in printed
    assert main([module, "--head", "--options", "width=8"]) == 0
    assert main([module, "--head", "--options", "depth=8"]) == 1
    assert "depth" in capsys.readouterr().out


def test_what_is_missing_is_told(module, capsys):
    assert main([module, f"{module}_data"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "lacks what its base class asks for: __len__, image, target; write it." in printed
    assert "0 of" not in printed and printed.endswith("1 of 1 contracts are broken.")


def test_a_data_set_without_its_arguments_is_a_wrong_question(module, capsys):
    """Its contracts are not broken; the other plug-ins are tested nevertheless."""
    assert main([module, f"{module}_needy", f"{module}_good"]) == 2
    printed, told = capsys.readouterr()
    assert f"the constructor of {module}_needy needs root; give arguments of its constructor by --options root=" in told
    assert "BROKEN" not in printed and "not tested" in printed and "All" in printed
    assert main([module, f"{module}_needy", "--options", "root=here"]) == 1  # its image cannot be read
    assert "no file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["no_such_lab"], "plug-in no_such_lab cannot be imported"),
        (["{}", "{}_god"], "unknown plug-in '{0}_god'. Did you mean '{0}_good'"),
        (["{}", "--head", "--options", "width"], "--options 'width' is not key.subkey=value"),
        (["{}", "--head", "--options", "width=[8,9"], "brackets do not close"),
        (["json"], "json registers no task, dataset, head, method or teacher; put the decorator"),
    ],
)
def test_wrong_questions_end_with_2(module, words, told, capsys):
    assert main([word.format(module) for word in words]) == 2
    assert told.format(module) in capsys.readouterr().err
