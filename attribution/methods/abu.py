"""AbU and its ablations by name: one attributor, other weights, curvatures and losses.

`abu-eps2` (Table 5, "Ours (D-TRAK)") puts E(z, θ) = E‖ε_θ(x_t, c, t)‖² in the place of the loss
three times: the ascent, the Fisher and what is tracked. E has no target, so raising it is not
forgetting: the best predictor of unit noise has E = 1 − E‖ε_θ − ε‖² per element, so that a larger
output can be a better one. It is D-TRAK's finding in AbU's form: how far two pictures pull at the
same output tells of shared weights, whatever the residual. The sign is AbU's own: uphill in E(ẑ),
and to first order τ = γ ∇E(z)ᵀF⁻¹∇E(ẑ) with γ > 0, so that records which grow along score high and
ẑ itself would score highest; downhill would turn both Δθ and τ around. The paper finds it worse
than the loss (ΔL at K = 500: 4.4 against 5.6). The relative increase is solved for on E. On the
embedded model E is 0.7 to 1.0 by timestep and L 0.2 to 0.45; E grown by 2 % leaves L where it was,
and 10 % of either takes a Δθ of about the same size. Doubled, E would leave a ruined model behind,
so the step is 10 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attribution import defaults
from attribution.methods.context import Context
from attribution.methods.method import Method
from attribution.methods.tracking import Tracks
from attribution.methods.unlearning import OPTIONS, UnlearningAttributor, check_options
from attribution.racing import Waves

# Where the output is tracked or raised itself, a small step is enough (docs/proof.md).
_SMALL_STEP: dict[str, Any] = {"relative_increase": 0.10, "steps": 1}

_ABU = "Wang, Hertzmann, Efros, Zhu, Zhang. Data Attribution by Unlearning (NeurIPS 2024)"
_DIAGONAL = "curvature:diagonal"

_TAU = r"\tau(\hat z, z) = L(z, \theta_{-\hat z}) - L(z, \theta_0)"
_NEWTON = (
    r"\theta_{-\hat z} \leftarrow \theta + \tfrac{\alpha}{N} F^{-1} \nabla L(\hat z, \theta) "
    r"\text{ from } \theta_0"
)
_EKFAC = (
    rf"{_NEWTON}, \quad "
    r"F \approx (Q_B \otimes Q_A)\, \mathrm{diag}(\lambda)\, (Q_B \otimes Q_A)^\top"
)
_KFAC = rf"{_NEWTON}, \quad F \approx s\, B \otimes A"


def _unlearning(
    name: str,
    title: str,
    explanation: str,
    needs: tuple[str, ...],
    lesson: str,
    step: str,
    score: str = _TAU,
    *,
    source: str = _ABU,
    tracks: Tracks = "loss",
    racing: Waves | None = None,
    **config: Any,
) -> Method:
    """A method of this family: `step` and `score` in LaTeX, `config` of UnlearnConfig."""

    def build(context: Context) -> UnlearningAttributor:
        return UnlearningAttributor(context, name, tracks=tracks, racing=racing, **config)

    def check(options: Mapping[str, Any]) -> None:
        check_options(config, options)

    return Method(
        name,
        "unlearning",
        title,
        explanation,
        source,
        needs,
        build,
        lesson,
        rf"{score}, \qquad {step}",
        OPTIONS,
        check,
    )


def _newton_on(weights: str) -> str:
    """Eq. 5 for a part of the weights, in LaTeX."""
    return (
        r"\theta_{-\hat z} = \theta_0 + \tfrac{\alpha}{N} F_S^{-1} \nabla_S L(\hat z, \theta_0), "
        rf"\quad S = \text{{{weights}}}"
    )


METHODS: tuple[Method, ...] = (
    _unlearning(
        "abu",
        "AbU",
        "Unlearn the picture with Newton steps on the text keys and values, then see which "
        "training drawings the model has become worse at.",
        ("curvature:diagonal:kv",),
        "The model is changed a little, so that it becomes worse at this one picture while weights "
        "that many training drawings depend on (a large Fisher F) hardly move. Then it has to "
        "denoise every training drawing twice, before and after the change, with the very same "
        "noise. The drawings that it has become worse at are the ones this picture leaned on: "
        "forgetting it took them along.",
        _NEWTON,
    ),
    _unlearning(
        "abu-ekfac",
        "AbU+",
        "Unlearn the picture with Newton steps that spare what other pictures need (EK-FAC), "
        "then see which training drawings the model has become worse at.",
        ("curvature:ekfac",),
        "AbU asks of each weight alone how much the training drawings depend on it, but weights "
        "work in teams: what one loses another can make up for. AbU+ looks for the teams first, as "
        "directions in a layer's inputs and outputs, and asks how much the drawings depend on each "
        "team. So the step that forgets this picture can avoid what the others need more exactly.",
        _EKFAC,
        curvature="ekfac",
    ),
    _unlearning(
        "abu-shift",
        "AbU+ by output",
        "Unlearn the picture as AbU+ does, in one small step, then see for which training drawings "
        "the model's output has moved most, for the better or the worse.",
        ("curvature:ekfac",),
        "AbU+ asks which training drawings the model has become worse at. Better or worse depends "
        "on the noise that was drawn for the question, so it takes many questions to tell; how far "
        "the model's guess has moved hardly does. A guess that moves was made with the same parts "
        "of the network as this picture.",
        _EKFAC,
        r"\tau(\hat z, z) = \mathbb{E}_{t, \epsilon} \lVert \epsilon_{\theta_{-\hat z}}(x_t, c, t) "
        r"- \epsilon_{\theta_0}(x_t, c, t) \rVert^2",
        source=f"Ours, after {_ABU}",
        tracks="shift",
        racing=defaults.RACING_SHIFT,
        curvature="ekfac",
        **_SMALL_STEP,
    ),
    _unlearning(
        "abu-sgd",
        "SGD ablation",
        "The same increase of loss by plain gradient ascent, without curvature: expected to lose.",
        (),
        "The model becomes worse at this picture by the same amount as with AbU, but by the "
        "steepest way, without asking what other pictures need. Weights that everything depends on "
        "move as freely as any others. It is here to show what the Fisher is good for: take one "
        "part out of a method and see whether the answers get worse.",
        r"\theta_{-\hat z} = \theta_0 + \eta\, \nabla L(\hat z, \theta_0)",
        curvature="none",
    ),
    _unlearning(
        "abu-full",
        "AbU, all weights",
        "AbU moving every weight of the UNet.",
        (f"{_DIAGONAL}:full",),
        "AbU moves only the few weights through which words reach the picture; here every weight "
        "of the denoiser may move. A picture can then also be forgotten by spoiling what all "
        "pictures share, such as edges and flat colours. In the paper that finds the influential "
        "images less well, which is why AbU moves so little.",
        _newton_on("all weights"),
        weight_set="full",
    ),
    _unlearning(
        "abu-ekfac-full",
        "AbU+, all weights",
        "AbU+ moving every weight of the UNet.",
        ("curvature:ekfac:full",),
        "AbU+ moves only the weights through which words reach the picture; here every weight of "
        "the denoiser may move, so that strokes and shapes can be forgotten too, which no word "
        "names. In each layer the directions that many training drawings depend on are spared, as "
        "in AbU+. Without that, moving everything would spoil what all pictures share.",
        _EKFAC,
        curvature="ekfac",
        weight_set="full",
        steps=1,  # docs/proof.md: as good as five
    ),
    _unlearning(
        "abu-kfac",
        "AbU+, attention",
        "AbU+ moving all attention weights, self-attention too.",
        ("curvature:kfac:attn",),
        "AbU+ moves only the weights through which words reach the picture. Here the weights by "
        "which parts of the picture look at each other may move as well, so that a shape which no "
        "word names can be forgotten, too. Which directions many training drawings depend on is "
        "told a little less exactly than in AbU+, for the sake of the room it takes.",
        _KFAC,
        curvature="kfac",
        weight_set="attn",
        relative_increase=0.3,  # docs/proof.md
    ),
    _unlearning(
        "abu-attn",
        "AbU, attention",
        "AbU moving all attention weights, self-attention too.",
        (f"{_DIAGONAL}:attn",),
        "Attention is where parts of the picture look at the words (cross-attention) and at each "
        "other (self-attention); here all of its weights may move. That lies between AbU, which "
        "moves a part of cross-attention, and moving everything. Comparing the three shows where "
        "in the model what makes a picture special is kept.",
        _newton_on("attention"),
        weight_set="attn",
    ),
    _unlearning(
        "abu-crossattn",
        "AbU, cross-attention",
        "AbU moving all cross-attention weights, not only keys and values.",
        (f"{_DIAGONAL}:cross-attn",),
        "Cross-attention is where the picture reads the prompt: queries ask, keys say which word "
        "answers, and values say what that word should look like. AbU moves keys and values only; "
        "here queries and outputs move too. If the answers hardly differ, the link from words to "
        "looks is what matters.",
        _newton_on("cross-attention"),
        weight_set="cross-attn",
    ),
    _unlearning(
        "abu-eps2",
        "AbU on the squared output",
        "AbU with the size of the predicted noise in the place of the loss (Table 5).",
        (f"{_DIAGONAL}:kv:eps2", "base:eps2"),
        "AbU measures how wrong the model's guess of the noise is; here only how large the guess "
        "is, right or wrong. The weights are moved until the guess for this picture grows, and the "
        "training drawings whose guesses grow along share those weights with it. Another method, "
        "D-TRAK, gains by this change, AbU does not: a growing guess is not a forgotten picture.",
        r"\theta_{-\hat z} = \theta_0 + \tfrac{\alpha}{N} F_E^{-1} \nabla E(\hat z, \theta_0), "
        r"\quad E(z, \theta) = \mathbb{E}_{t, \epsilon} "
        r"\lVert \epsilon_\theta(x_t, c, t) \rVert^2",
        r"\tau(\hat z, z) = E(z, \theta_{-\hat z}) - E(z, \theta_0)",
        objective="eps2",
        **_SMALL_STEP,
    ),
)
