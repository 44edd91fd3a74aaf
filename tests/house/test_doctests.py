"""The examples in docstrings run as printed, and the names that people import most have one."""

import doctest
import importlib

import pytest
from builders.house_sources import sources

EXAMPLES = [
    path.removesuffix(".py").replace("/", ".") for path, text in sources("symerge_dense").items() if ">>> " in text
]
SHOWN = {
    "symerge_dense.adaptation.options.make_options",
    "symerge_dense.datasets.unlabelled.Unlabelled",
    "symerge_dense.evaluation.delta_m.delta_m",
    "symerge_dense.merging.layerwise.LayerwiseMerge",
    "symerge_dense.merging.methods.ties.Ties",
    "symerge_dense.merging.run.merge_state",
    "symerge_dense.models.backbone.TimmBackbone",
    "symerge_dense.pipeline.file_merge.weights.merge",
    "symerge_dense.registry.did_you_mean",
    "symerge_dense.tasks.depth.Depth",
    "symerge_dense.tasks.metric.Metric",
}


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_run_as_printed(module):
    found = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0 and found.failed == 0


def test_the_names_that_people_import_most_have_an_example():
    finder = doctest.DocTestFinder()
    examples = {
        test.name for module in EXAMPLES for test in finder.find(importlib.import_module(module)) if test.examples
    }
    assert examples >= SHOWN
