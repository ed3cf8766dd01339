"""EK-FAC and K-FAC of a weight set beside an index (`python -m precompute variants --curvature
ekfac`, `kfac`).

EK-FAC takes two passes over the samples: covariances first, eigenvalues in their eigenbases second;
K-FAC is done after the first. Biases and norms, which are no matrices, get the diagonal. Memory:
for each layer two square matrices, as wide as its patch (channels times kernel) and as its outputs,
in double precision while they are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from torch import Tensor
from tqdm import tqdm

from attribution.denoiser import Denoiser
from attribution.ekfac import EKFAC, Covariances
from attribution.gradients import layer_tokens
from attribution.kfac import KFAC
from attribution.layers import Tokens, unknown
from attribution.types import UserError
from attribution.weights import parameter_names
from precompute.sampled import Sampled

FIRST, SECOND = 1, 2
State = dict[str, Tensor]
Take = Callable[[Mapping[str, Tokens]], None]


class Factored(Sampled):
    """What both have in common: samples by their layers' tokens."""

    passes: ClassVar[int]

    def _names(self, denoiser: Denoiser) -> tuple[str, ...]:
        """The parameters; UserError for a layer of another sort than those that have factors."""
        names = parameter_names(denoiser.unet, self.weights)
        if other := unknown(denoiser.unet, names):
            raise UserError(f"no factors of {other[0]}: it belongs to a layer of an unknown sort")
        return names

    def _pass(
        self,
        number: int,
        view: Denoiser,
        names: Sequence[str],
        start: int,
        take: Take,
        state: Callable[[], State],
    ) -> int:
        """The samples from `start` on, batch by batch; how many."""
        size, count = self.at_once, len(self.cells)
        title = self.step + f", pass {number} of {self.passes}" * (self.passes > 1)
        with tqdm(total=count, initial=start, desc=title, unit="sample") as bar:
            for first in range(start, count, size):
                some = self.cells[first : first + size]
                take(layer_tokens(view, *self.batch(view, some), names))
                bar.update(len(some))
                if (first + size) % self.part == 0:
                    self.keep(first + len(some), state(), number)
        return count - start


class SampledKFAC(Factored):
    """A K-FAC."""

    kind = "kfac"
    passes = 1

    def make(self, denoiser: Denoiser) -> int:
        """As of every kind; UserError for a layer of another sort than those that have factors."""
        names = self._names(denoiser)
        _, start, sums = self.kept(denoiser.device)
        made = KFAC.from_sums(sums) if sums else KFAC()
        view = denoiser.with_objective(self.objective)
        computed = self._pass(
            FIRST, view, names, start, lambda tokens: made.accumulate(tokens, names), made.sums
        )
        self.finish(made.state())
        return computed


class SampledEKFAC(Factored):
    """An EK-FAC."""

    kind = "ekfac"
    passes = 2

    def make(self, denoiser: Denoiser) -> int:
        """As of every kind, of both passes together; UserError for a layer of another sort than
        those that have factors."""
        names = self._names(denoiser)
        view = denoiser.with_objective(self.objective)
        number, start, sums = self.kept(denoiser.device)
        computed = 0
        if number == FIRST:
            covariances = Covariances.from_sums(sums) if sums else Covariances()
            take, state = covariances.accumulate, covariances.sums
            computed += self._pass(FIRST, view, names, start, take, state)
            sums, start = EKFAC.from_covariances(covariances).state(), 0
        ekfac = EKFAC.from_sums(sums)
        rest = _no_matrices(ekfac, names)
        computed += self._pass(
            SECOND,
            view,
            names,
            start,
            lambda tokens: ekfac.accumulate(tokens, rest),
            ekfac.sums,
        )
        self.finish(ekfac.state())
        return -(-computed // 2)


def _no_matrices(ekfac: EKFAC, names: Sequence[str]) -> list[str]:
    matrices = {f"{module}.weight" for module in ekfac.q_out}
    return [name for name in names if name not in matrices]
