"""Adaptive merging methods, one file each (or one table of controls): what learns on unlabelled images, and how."""
