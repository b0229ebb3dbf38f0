"""The loop: forward passes, one division by the count over the whole step, one update of the weights.

    loss = sum over terms of  weight * (sum over passes and ranks of total) / (sum over passes and ranks of count)

The division needs the counts of all passes before the first backward pass. One pass has them after its forward; with
several they are counted first, without gradients (exact, about a third more time; a single active term needs no such
pass, because its gradient can be divided afterwards). So accumulation, ranks and uneven samples never change a loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reca_core.contracts.requests import TrainingPlan
from reca_core.draws import keyed_generator
from reca_core.objectives.loss_sum import LossSum
from reca_core.training.batch import Batch
from reca_core.training.distributed import Layout, add_up, local_gradients, whole
from reca_core.training.ema import MovingAverage
from reca_core.training.guards import NotFinite, finite
from reca_core.training.metrics import STEP, loss_key
from reca_core.training.optimizer import learning_rate, set_learning_rate
from reca_core.training.usage import FlopCount

LOSS, GRADIENT_NORM, LEARNING_RATE = "train/loss", "train/gradient_norm", "train/learning_rate"
PICTURES_PER_SECOND, DATA_SECONDS, SECONDS = "train/pictures_per_second", "train/data_seconds", "seconds"
DEFAULT_WEIGHT = 1.0
"""Of the tokenizer stage's terms, which their family has weighted already."""


@dataclass(frozen=True)
class StepReport:
    """Numbers of one optimizer step, the same on every rank."""

    losses: dict[str, float]
    """Mean of every active term over the whole step."""
    loss: float
    """Their weighted sum: what was minimised."""
    gradient_norm: float
    """Before clipping."""
    learning_rate: float
    stop: bool
    """Some rank was asked to stop."""


class Updater:
    """Takes optimizer steps.

    Args:
        module: ``TrainingStep`` or its distributed wrapping.
        weights: loss weight per term; terms not named have weight 1.
        parameters: the trained ones, by name.
        blame: names the samples of a batch that is not finite, for the error message.
        flops: counts the operations of the first step, in a rehearsal of it; without it none are counted.
    """

    def __init__(
        self,
        module: nn.Module,
        plan: TrainingPlan,
        weights: Mapping[str, float],
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        average: MovingAverage | None,
        layout: Layout,
        blame: Callable[[Sequence[Batch]], str],
        flops: FlopCount | None = None,
    ) -> None:
        self.module, self.plan, self.weights, self.layout = module, plan, weights, layout
        self.parameters = list(parameters.values())
        self.optimizer, self.average, self.blame = optimizer, average, blame
        self.flops = flops or FlopCount(wanted=False)

    def step(self, number: int, batches: Sequence[Batch], stop: bool) -> StepReport:
        """One optimizer step from its passes; ``number`` counts from 0, ``stop`` is this rank's wish.

        Raises NotFinite before the weights are touched.
        """
        if self.flops.open:
            self._count_operations(batches)
        seed_global_generators(self.plan.seed, number, self.layout.rank)
        rate = learning_rate(self.plan, number)
        set_learning_rate(self.optimizer, rate)
        sums = self._backward(batches)
        report = self._report(sums, self._clip(), rate, stop)
        if not finite([report.loss, report.gradient_norm]):
            self.optimizer.zero_grad(set_to_none=True)
            raise NotFinite(f"step {number + 1}: {self._describe(report)}; {self.blame(batches)}", field="training")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        return report

    def _count_operations(self, batches: Sequence[Batch]) -> None:
        """Rehearse the step once to count its operations and throw the gradients away; all ranks must call this.

        Not on the step itself: under a counter some gradients come out with other last bits (measured; most likely
        autograd lays them out differently, and their norm is summed in another order).
        """
        for batch in batches:
            with local_gradients(self.module, last_pass=False), self.flops.one_pass():
                found = self._forward(batch)
                self._objective(found, torch.ones(len(found), device=self.layout.device)).backward()
        self.optimizer.zero_grad(set_to_none=True)
        self.flops.close()

    def _backward(self, batches: Sequence[Batch]) -> dict[str, LossSum]:
        """Gradients of the whole step; returns this rank's sums."""
        one_term = len(self.weights) == 1
        ahead = self._count_ahead(batches, one_term) if len(batches) > 1 else None
        sums: dict[str, LossSum] = {}
        for number, batch in enumerate(batches):
            with local_gradients(self.module, last_pass=number == len(batches) - 1):
                found = self._forward(batch)
                counts = ahead if ahead is not None else self._global_counts(found)
                self._objective(found, counts).backward()
            sums = {name: sums[name] + part.detached() if sums else part.detached() for name, part in found.items()}
        if ahead is not None and one_term:
            self._divide_gradients(self._global_counts(sums))
        return sums

    def _forward(self, batch: Batch) -> dict[str, LossSum]:
        sums: dict[str, LossSum] = self.module(batch.to(self.layout.device))
        if batch.weight == 1.0:
            return sums
        return {name: LossSum(part.total * batch.weight, part.count * batch.weight) for name, part in sums.items()}

    def _count_ahead(self, batches: Sequence[Batch], one_term: bool) -> Float[Tensor, " terms"]:
        """Counts over all passes and ranks. Ones where there is a single term: it is divided afterwards."""
        if one_term:
            return torch.ones(1, device=self.layout.device)
        with torch.no_grad():
            parts = [self._forward(batch) for batch in batches]
        return self._global_counts({name: sum_of([part[name] for part in parts]) for name in parts[0]})

    def _global_counts(self, sums: Mapping[str, LossSum]) -> Float[Tensor, " terms"]:
        counts = torch.stack([part.count.detach() for part in sums.values()]).float()
        return add_up(counts, self.layout).clamp(min=1.0)

    def _objective(self, sums: Mapping[str, LossSum], counts: Float[Tensor, " terms"]) -> Float[Tensor, ""]:
        """This rank's part of the loss. Times the number of ranks, because DDP and FSDP average gradients."""
        totals = torch.stack([part.total * self._weight(name) for name, part in sums.items()])
        return (totals / counts).sum() * self.layout.world

    def _weight(self, name: str) -> float:
        return self.weights.get(name, DEFAULT_WEIGHT)

    @torch.no_grad()
    def _divide_gradients(self, counts: Float[Tensor, " terms"]) -> None:
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        for gradient in gradients:
            gradient.div_(counts[0])

    def _clip(self) -> Float[Tensor, ""]:
        """Scale the gradient down to the limit; return its norm before."""
        limit = self.plan.gradient_clip or float("inf")
        return whole(torch.nn.utils.clip_grad_norm_(self.parameters, limit))

    def _report(self, sums: Mapping[str, LossSum], norm: Float[Tensor, ""], rate: float, stop: bool) -> StepReport:
        numbers = [value for part in sums.values() for value in (part.total, part.count)]
        wish = torch.tensor(float(stop), device=self.layout.device)
        added = add_up(torch.stack([*(value.double() for value in numbers), wish.double()]), self.layout).tolist()
        losses = {
            name: total / max(count, 1.0) for name, total, count in zip(sums, added[0::2], added[1::2], strict=False)
        }
        loss = sum(value * self._weight(name) for name, value in losses.items())
        return StepReport(losses, loss, float(norm), rate, stop=added[-1] > 0)

    @staticmethod
    def _describe(report: StepReport) -> str:
        terms = ", ".join(f"{name} loss {value}" for name, value in report.losses.items())
        return f"{terms}, gradient norm {report.gradient_norm}"


@dataclass
class Clock:
    """Where a step's time goes: waiting for data, and all of it."""

    began: float = 0.0
    data_seconds: float = 0.0

    def start(self) -> None:
        """A step begins: it first asks for its data."""
        self.began = time.perf_counter()

    def data_arrived(self) -> None:
        """The step's batches are here."""
        self.data_seconds = time.perf_counter() - self.began

    def row(self, step: int, report: StepReport, pictures: int) -> dict[str, float]:
        """The line of metrics.jsonl of a step that ends now; ``step`` counts from 1."""
        seconds = time.perf_counter() - self.began
        return {
            STEP: step,
            SECONDS: seconds,
            LOSS: report.loss,
            **{loss_key(name): value for name, value in report.losses.items()},
            GRADIENT_NORM: report.gradient_norm,
            LEARNING_RATE: report.learning_rate,
            PICTURES_PER_SECOND: pictures / seconds,
            DATA_SECONDS: self.data_seconds,
        }


def sum_of(parts: Sequence[LossSum]) -> LossSum:
    """All of them added."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def seed_global_generators(seed: int, step: int, rank: int) -> None:
    """Make torch's global random state a function of (seed, step, rank).

    Layers such as dropout draw from it. Re-seeding every step makes their draws the same after a resume, and the same
    whatever previews or evaluation drew in between, without storing any generator's state.
    """
    torch.manual_seed(keyed_generator(seed, f"step/{rank}", step).initial_seed())
