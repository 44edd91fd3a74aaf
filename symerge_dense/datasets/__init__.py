"""Images and labels: NYUv2, rendered rooms, anybody's folder; joint geometry, sampling, and a view without labels."""
