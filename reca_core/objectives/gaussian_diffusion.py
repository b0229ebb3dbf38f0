"""Gaussian diffusion with a learned variance: the per-token loss and drawing step of masked-autoregressive families.

Cosine schedule and learned log-variance: Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models",
arXiv 2102.09672, equations 15-17. Per-token use with a small MLP: MAR, arXiv 2406.11838, section 3.2.

Tables are float64 and cast to the data's type on look-up: float32 tables move single steps by up to 6e-3.
Shapes: R rows (tokens), C channels; a network output is [R, 2C], noise estimate then variance fraction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat

import torch
from jaxtyping import Float, Int
from torch import Tensor

OFFSET = 0.008
MAX_BETA = 0.999
BIN_HALF_WIDTH = 1 / 255
"""Half a grey level of a picture in [-1, 1]: how wide the bins of the last step's likelihood are."""
BIN_EDGE = 0.999
PROBABILITY_FLOOR = 1e-12


@dataclass(frozen=True)
class DiffusionTables:
    """Numbers per step of a schedule, float64 [K], and the step number that the network is told, [K]."""

    alphas_cumprod: Float[Tensor, " steps"]
    steps: Int[Tensor, " steps"]

    @property
    def previous(self) -> Float[Tensor, " steps"]:
        """Cumulated alphas of the step before; 1 before the first."""
        return torch.cat([self.alphas_cumprod.new_ones(1), self.alphas_cumprod[:-1]])

    @property
    def betas(self) -> Float[Tensor, " steps"]:
        """Noise added per step."""
        return 1 - self.alphas_cumprod / self.previous

    @property
    def posterior_variance(self) -> Float[Tensor, " steps"]:
        """Variance of q(x_{t-1} | x_t, x_0)."""
        return self.betas * (1 - self.previous) / (1 - self.alphas_cumprod)

    @property
    def log_variances(self) -> tuple[Float[Tensor, " steps"], Float[Tensor, " steps"]]:
        """Logarithms of the posterior variance, whose first entry (zero) is replaced by the second, and of beta."""
        variance = self.posterior_variance
        return torch.cat([variance[1:2], variance[1:]]).log(), self.betas.log()

    def kept(self, steps: Sequence[int]) -> DiffusionTables:
        """The schedule that visits only some steps (respacing)."""
        index = torch.tensor(list(steps))
        return DiffusionTables(self.alphas_cumprod[index], self.steps[index])


def cosine_tables(steps: int) -> DiffusionTables:
    """The training schedule."""

    def level(share: float) -> float:
        return math.cos((share + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2

    betas = [min(1 - level((i + 1) / steps) / level(i / steps), MAX_BETA) for i in range(steps)]
    return DiffusionTables((1 - torch.tensor(betas, dtype=torch.float64)).cumprod(0), torch.arange(steps))


def evenly_spaced(steps: int, kept: int) -> list[int]:
    """``kept`` step numbers from 0 to ``steps - 1``, rounded half to even.

    The stride is added up, as the published code does: of 21 steps the tenth is then a little off its exact half.
    """
    stride = (steps - 1) / (kept - 1) if kept > 1 else 0.0
    return [round(place) for place in accumulate(repeat(stride, kept - 1), initial=0.0)]


def _row(table: Float[Tensor, " steps"], index: Int[Tensor, " rows"], like: Tensor) -> Float[Tensor, "rows 1"]:
    return table.to(like.device)[index].to(like.dtype)[:, None]


def add_noise(
    tables: DiffusionTables,
    clean: Float[Tensor, "rows channels"],
    index: Int[Tensor, " rows"],
    noise: Float[Tensor, "rows channels"],
) -> Float[Tensor, "rows channels"]:
    """x_t of q(x_t | x_0)."""
    kept = _row(tables.alphas_cumprod.sqrt(), index, clean)
    return kept * clean + _row((1 - tables.alphas_cumprod).sqrt(), index, clean) * noise


def posterior_mean(
    tables: DiffusionTables,
    clean: Float[Tensor, "rows channels"],
    noisy: Float[Tensor, "rows channels"],
    index: Int[Tensor, " rows"],
) -> Float[Tensor, "rows channels"]:
    """Mean of q(x_{t-1} | x_t, x_0)."""
    remaining = 1 - tables.alphas_cumprod
    of_clean = tables.betas * tables.previous.sqrt() / remaining
    of_noisy = (1 - tables.previous) * (1 - tables.betas).sqrt() / remaining
    return _row(of_clean, index, clean) * clean + _row(of_noisy, index, clean) * noisy


def clean_estimate(
    tables: DiffusionTables,
    noisy: Float[Tensor, "rows channels"],
    noise: Float[Tensor, "rows channels"],
    index: Int[Tensor, " rows"],
) -> Float[Tensor, "rows channels"]:
    """x_0 that a noise estimate implies; not clipped, latents have no range."""
    inverse = 1 / tables.alphas_cumprod
    return _row(inverse.sqrt(), index, noisy) * noisy - _row((inverse - 1).sqrt(), index, noisy) * noise


def model_log_variance(
    tables: DiffusionTables, fraction: Float[Tensor, "rows channels"], index: Int[Tensor, " rows"]
) -> Float[Tensor, "rows channels"]:
    """Log variance between its two bounds; ``fraction`` in [-1, 1] goes from the posterior's to beta's."""
    low, high = (_row(bound, index, fraction) for bound in tables.log_variances)
    share = (fraction + 1) / 2
    return share * high + (1 - share) * low


@dataclass(frozen=True)
class DenoisingTerms:
    """Loss per row: squared error of the noise, and the variational bound that trains the variance, in bits."""

    squared_error: Float[Tensor, " rows"]
    bound: Float[Tensor, " rows"]

    @property
    def total(self) -> Float[Tensor, " rows"]:
        """Their sum, as MAR trains."""
        return self.squared_error + self.bound


def denoising_terms(
    tables: DiffusionTables,
    output: Float[Tensor, "rows channels2"],
    clean: Float[Tensor, "rows channels"],
    noisy: Float[Tensor, "rows channels"],
    noise: Float[Tensor, "rows channels"],
    index: Int[Tensor, " rows"],
) -> DenoisingTerms:
    """Both terms. The bound sees the noise estimate detached: it may teach the variance only (equation 17)."""
    estimate, fraction = output.chunk(2, dim=-1)
    squared = (noise - estimate).square().mean(-1)
    guess = clean_estimate(tables, noisy, estimate.detach(), index)
    mean = posterior_mean(tables, guess, noisy, index)
    log_variance = model_log_variance(tables, fraction, index)
    true_mean = posterior_mean(tables, clean, noisy, index)
    true_log_variance = _row(tables.log_variances[0], index, clean)
    divergence = gaussian_divergence(true_mean, true_log_variance, mean, log_variance).mean(-1)
    likelihood = binned_log_likelihood(clean, mean, 0.5 * log_variance).mean(-1)
    bound = torch.where(index == 0, -likelihood, divergence) / math.log(2.0)
    return DenoisingTerms(squared, bound)


def gaussian_divergence(mean: Tensor, log_variance: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N(mean, var) || N(mean2, var2)) per element, in nats."""
    gap = (mean - mean2).square() * torch.exp(-log_variance2)
    return 0.5 * (log_variance2 - log_variance - 1 + torch.exp(log_variance - log_variance2) + gap)


def binned_log_likelihood(values: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability, in nats, of the grey-level bin around each value; the outermost bins are open."""
    inverse = torch.exp(-log_scale)
    below_upper = _normal_cdf(inverse * (values - mean + BIN_HALF_WIDTH))
    below_lower = _normal_cdf(inverse * (values - mean - BIN_HALF_WIDTH))
    inside = torch.where(values > BIN_EDGE, 1 - below_lower, below_upper - below_lower)
    probability = torch.where(values < -BIN_EDGE, below_upper, inside)
    return probability.clamp(min=PROBABILITY_FLOOR).log()


def _normal_cdf(x: Tensor) -> Tensor:
    # The tanh approximation, not erf: the bound is compared with recorded numbers that used it.
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))))


def ancestral_step(
    tables: DiffusionTables,
    noisy: Float[Tensor, "rows channels"],
    output: Float[Tensor, "rows channels2"],
    step: int,
    noise: Float[Tensor, "rows channels"],
    temperature: float,
    limit: float = 0.0,
) -> tuple[Float[Tensor, "rows channels"], Float[Tensor, "rows channels"]]:
    """(x_{t-1}, estimate of x_0). ``temperature`` scales the noise; the last step, 0, adds none.

    ``limit``, unless 0, keeps the estimate within its two signs: near pure noise an error of the noise estimate is
    divided by next to nothing.
    """
    index = torch.full((len(noisy),), step, dtype=torch.long, device=noisy.device)
    estimate, fraction = output.chunk(2, dim=-1)
    clean = clean_estimate(tables, noisy, estimate, index)
    if limit:
        clean = clean.clamp(-limit, limit)
    mean = posterior_mean(tables, clean, noisy, index)
    if step == 0:
        return mean, clean
    deviation = torch.exp(0.5 * model_log_variance(tables, fraction, index))
    return mean + deviation * noise * temperature, clean
