"""The detector of the embedded set: a small GroundingDINO, trained on what it is to find."""
