"""Trains the embedded model: AutoencoderKL, a small CLIP, and a UNet2DConditionModel, saved as a
diffusers folder."""
