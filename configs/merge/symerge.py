"""SyMerge with the defaults for dense tasks: losses on one scale, the normalised 3x3 convolution adapted gently."""

adaptation = dict(preset="default")
