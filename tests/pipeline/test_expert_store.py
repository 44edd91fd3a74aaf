"""Where base and experts come from: what a seed fixes."""

import torch
from builders.pipeline_tiny import write_config

from symerge_dense.models.checkpoint import state_hash
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.expert_store import ExpertStore


def test_a_random_base_is_the_same_in_every_run_of_a_seed(tmp_path):
    def base(seed):
        torch.randn(7)  # whatever ran before
        config = load_config(write_config(tmp_path), ["base.random_init=True", f"experts.seed={seed}"])
        return state_hash(ExpertStore(config).base().state_dict())

    assert base(0) == base(0) != base(1)
