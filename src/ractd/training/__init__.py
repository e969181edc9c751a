"""Training: one loop, and one short file per thing that is trained."""
