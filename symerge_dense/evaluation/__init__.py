"""Numbers: the metric of any task, the evaluation of a model, Delta_m."""
