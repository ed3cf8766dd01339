"""Teaches a text-to-image model a new word V* from a few images (in the spirit of Custom Diffusion,
Kumari et al., CVPR 2023): cross-attention keys and values and one embedding move, nothing else."""
