"""SyMerge with the settings of its public code: one learning rate, hard labels, confidence filter, a step per task."""

adaptation = dict(preset="paper")
