#!/usr/bin/env python3
"""Evaluate a checkpoint of one task or of many (an expert, or a merged model) on a labelled split of a config."""

from __future__ import annotations

import argparse
import json
import sys

from symerge_dense.pipeline.cli import run_tool
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.score import test


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="the config whose data are used")
    parser.add_argument("checkpoint", help="an expert's or a merged model's .safetensors")
    parser.add_argument("--split", default="test", help="entry of the config's data: test, unlabelled, train")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    config = load_config(options.config, options.cfg_options)
    scores = test(config, options.checkpoint, options.split, quiet=options.json)
    if options.json:
        print(json.dumps(scores))


if __name__ == "__main__":
    sys.exit(run_tool(main))
