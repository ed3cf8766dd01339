"""Trains the embedded DINO and DINOv2 on the training drawings alone; `precompute train dino`."""
