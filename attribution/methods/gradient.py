"""Attribution by likeness of loss gradients: the TRAK family and DataInf."""

from __future__ import annotations

from attribution.methods.method import Method

METHODS: tuple[Method, ...] = (
    Method(
        "trak",
        "gradient",
        "TRAK",
        "Likeness of projected loss gradients, whitened by those of the training set.",
        "Park et al. TRAK (ICML 2023)",
    ),
    Method(
        "journeytrak",
        "gradient",
        "JourneyTRAK",
        "TRAK with the query's gradient taken at t = 400 only.",
        "Georgiev et al. The Journey, Not the Destination (2023)",
    ),
    Method(
        "dtrak",
        "gradient",
        "D-TRAK",
        "TRAK with the size of the predicted noise in the place of the loss.",
        "Zheng et al. Intriguing Properties of Data Attribution on Diffusion Models (ICLR 2024)",
    ),
    Method(
        "datainf",
        "gradient",
        "DataInf",
        "A closed-form approximation of influence functions, layer by layer.",
        "Kwon et al. DataInf (ICLR 2024)",
    ),
)
