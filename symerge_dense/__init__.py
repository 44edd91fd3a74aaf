"""symerge_dense: merge dense-prediction experts that share a backbone into one multi-task model, without labels."""

__version__ = "0.1.0"
