"""Networks: a shared backbone, a head per task, and their files."""
