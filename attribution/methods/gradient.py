"""Attribution by likeness of loss gradients: the TRAK family and DataInf.

They differ in what the gradient is of, at which timesteps the query's is taken, and in the solver;
the rest is in projected.py:

| method | rows | query at | solver |
|---|---|---|---|
| trak | ∇L, mean over timesteps | the rows' timesteps | (ΦᵀΦ + λI)⁻¹ |
| journeytrak | those of trak | t = 400 only | (ΦᵀΦ + λI)⁻¹ |
| dtrak | ∇‖ε_θ‖², mean over timesteps | the rows' timesteps | (ΦᵀΦ + λI)⁻¹ |
| datainf | those of trak | the rows' timesteps | mean of rank-one inverses, by layer |
"""

from __future__ import annotations

from functools import partial

from attribution.methods.method import Method
from attribution.methods.projected import (
    KIND,
    OPTIONS,
    GradientAttributor,
    Recipe,
    check_options,
)

JOURNEY_TIMESTEP = 400  # of 1,000

_BEST = r"\tau(\hat z, z) = \max_{z' \in \{z,\, \bar z\}}"
_RIDGE = r"\left(\Phi^\top \Phi + \lambda I\right)^{-1} \phi(z')"


def _method(
    name: str,
    title: str,
    explanation: str,
    source: str,
    recipe: Recipe,
    lesson: str,
    formula: str,
) -> Method:
    build = partial(GradientAttributor, name=name, recipe=recipe)
    needs = (f"rows:{recipe.rows}",)
    about = (title, explanation, source, needs, build, lesson, formula)
    return Method(name, KIND, *about, OPTIONS, check_options)


METHODS: tuple[Method, ...] = (
    _method(
        "trak",
        "TRAK",
        "Likeness of projected loss gradients, whitened by those of the training set.",
        "Park et al. TRAK (ICML 2023)",
        Recipe("trak"),
        "A gradient says in which direction a picture would push the model's weights if it were "
        "learned once more. TRAK squeezes the gradient of every training drawing into a short list "
        "of random sums, and does the same with yours. Drawings that push the same way count, but "
        "a direction in which nearly all of them push says little, so it is weighed down.",
        rf"{_BEST} \phi(\hat z)^\top {_RIDGE}, \quad "
        r"\phi(z) = P\, \nabla_\theta \mathcal{L}(z, \theta_0)",
    ),
    _method(
        "journeytrak",
        "JourneyTRAK",
        "TRAK with the query's gradient taken at t = 400 only.",
        "Georgiev et al. The Journey, Not the Destination (2023)",
        Recipe("trak", timestep=JOURNEY_TIMESTEP),
        "A diffusion model makes a picture in many steps, from pure noise to clean lines. "
        "JourneyTRAK asks TRAK's question about one stop of that journey, where the rough shape "
        "stands and the details do not. The training drawings are treated as in TRAK, so whatever "
        "changes in the answer comes from the moment that is asked about.",
        rf"{_BEST} \phi_{{400}}(\hat z)^\top {_RIDGE}, \quad "
        r"\phi_{400}(\hat z) = P\, \nabla_\theta \mathcal{L}_{t=400}(\hat z, \theta_0)",
    ),
    _method(
        "dtrak",
        "D-TRAK",
        "TRAK with the size of the predicted noise in the place of the loss.",
        "Zheng et al. Intriguing Properties of Data Attribution on Diffusion Models (ICLR 2024)",
        Recipe("dtrak", damping=1.0),  # chosen by `python -m evaluation tune`
        "D-TRAK does as TRAK does, but with another question in the gradient's place: how would "
        "the weights have to move to change the size of the noise the model predicts? The noise "
        "really added, which the loss compares with, no longer appears. Nobody has a full reason "
        "why that should work better, yet in experiments it often does.",
        rf"{_BEST} \phi(\hat z)^\top {_RIDGE}, \quad "
        r"\phi(z) = P\, \nabla_\theta \, \mathbb{E}_{t, \epsilon} "
        r"\left\| \epsilon_\theta(x_t, c, t) \right\|^2",
    ),
    _method(
        "datainf",
        "DataInf",
        "A closed-form approximation of influence functions, layer by layer.",
        "Kwon et al. DataInf (ICLR 2024)",
        Recipe("trak", layered=True),
        "Influence functions ask how the model would change if a drawing counted a little more, "
        "which takes the inverse of an enormous table. DataInf inverts a simple table for each "
        "drawing and layer and takes their mean, which has a short formula. The mean of inverses "
        "is not the inverse of the mean: it is quick, and it is only an approximation.",
        rf"{_BEST} \sum_l \frac{{1}}{{\lambda_l}} \left( \hat g_l^\top g'_l - \frac{{1}}{{2N}} "
        r"\sum_i \frac{(\hat g_l^\top g_{i,l})(g_{i,l}^\top g'_l)}"
        r"{\lambda_l + \|g_{i,l}\|^2} \right)",
    ),
)
