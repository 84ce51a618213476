"""Steps in which samples influence one another, to be planted into programs that are sound without them.

`test_mixing.py` perturbs one sample and sees another one's output move, so that whoever plants a step knows that it
mixes. They take any batch size, 1 and 0 too where PyTorch does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.step import Step, Steps, free

__all__ = ["MIXES_IMAGES", "MIXES_SEQUENCES", "NEEDS_POSITIONS"]

MIXES_SEQUENCES = Steps()
MIXES_IMAGES = Steps()
NEEDS_POSITIONS = {"samples_moved_into_positions", "samples_and_positions_renamed"}
"""With one position, these leave every sample where it was."""


# Statistics of the batch


@MIXES_SEQUENCES.add
def centred_over_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: h - h.mean(0))


@MIXES_SEQUENCES.add
def divided_by_deviation_over_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: h / (h.var(0, correction=0) + 0.1).sqrt())


@MIXES_SEQUENCES.add
def batch_norm(T: int, d: int) -> Step:
    norm = nn.BatchNorm1d(d, track_running_stats=False)
    return Step(lambda m, h: m.norm(h.transpose(1, 2)).transpose(1, 2), norm=norm)


@MIXES_SEQUENCES.add
def divided_by_the_largest(T: int, d: int) -> Step:
    return Step(lambda m, h: h / (1 + F.pad(h.abs(), (0, 0, 0, 0, 0, 1)).amax(0)))


@MIXES_SEQUENCES.add
def divided_by_the_norm_of_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: F.normalize(h, dim=0))


@MIXES_SEQUENCES.add
def gated_by_the_sum_of_all(T: int, d: int) -> Step:
    return Step(lambda m, h: h * h.sum().sigmoid())


@MIXES_SEQUENCES.add
def gated_by_detached_sum(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(h) * h.detach().sum((0, 1)).tanh(), layer=nn.Linear(d, d))


@MIXES_SEQUENCES.add
def where_above_the_mean(T: int, d: int) -> Step:
    return Step(lambda m, h: torch.where(h > h.mean((0, 1)), h, m.floor), floor=free(d))


@MIXES_SEQUENCES.add
def masked_by_a_count_over_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: h.masked_fill((h > 0).sum(0) % 2 == 0, 0.5))


@MIXES_SEQUENCES.add
def minus_the_median(T: int, d: int) -> Step:
    return Step(lambda m, h: h - F.pad(h, (0, 0, 0, 0, 0, 1)).median(0).values)


@MIXES_SEQUENCES.add
def minus_a_quantile(T: int, d: int) -> Step:
    return Step(lambda m, h: h - F.pad(h, (0, 0, 0, 0, 0, 1)).quantile(0.3, dim=0))


@MIXES_SEQUENCES.add
def log_sum_exp_over_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: h - F.pad(h, (0, 0, 0, 0, 0, 1)).logsumexp(0))


@MIXES_SEQUENCES.add
def prior_of_labels(T: int, d: int) -> Step:
    return Step(lambda m, h: h - (F.one_hot(h.argmax(-1), d).sum((0, 1)) + 1).to(h.dtype).log())


# Scans and orders along the batch


@MIXES_SEQUENCES.add
def softmax_over_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: h * h.softmax(0))


@MIXES_SEQUENCES.add
def flipped_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: h + m.layer(h.flip(0)), layer=nn.Linear(d, d))


@MIXES_SEQUENCES.add
def cumulative_sum_along_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: h.cumsum(0))


@MIXES_SEQUENCES.add
def running_maximum_along_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: h.cummax(0).values)


@MIXES_SEQUENCES.add
def rolled_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: h * h.roll(1, 0).sin())


@MIXES_SEQUENCES.add
def sorted_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: h.sort(0).values + h)


@MIXES_SEQUENCES.add
def recurrence_along_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: m.states(h)[0], states=nn.GRU(d, d))


@MIXES_SEQUENCES.add
def convolution_along_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: m.filter(h.permute(1, 2, 0)).permute(2, 0, 1), filter=nn.Conv1d(d, d, 3, padding=1))


@MIXES_SEQUENCES.add
def fourier_along_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: torch.fft.fft(h, dim=0).real + h)


# Samples multiplied with one another


@MIXES_SEQUENCES.add
def attention_over_the_batch(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        flat = h.flatten(1)
        return h + ((flat @ flat.T).softmax(-1) @ flat).view_as(h)

    return Step(run)


@MIXES_SEQUENCES.add
def multihead_with_the_batch_for_positions(T: int, d: int) -> Step:
    return Step(
        lambda m, h: m.attention(h, h, h, need_weights=False)[0],
        attention=nn.MultiheadAttention(d, 1, batch_first=False),
    )


@MIXES_SEQUENCES.add
def covariance_of_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: h @ torch.einsum("btd,bte->de", h, h).tanh())


@MIXES_SEQUENCES.add
def einsum_of_two_batches(T: int, d: int) -> Step:
    return Step(lambda m, h: torch.einsum("btd,cte->btd", h, h.sin()))


@MIXES_SEQUENCES.add
def distances_between_samples(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        flat = h.flatten(1)
        return h / (flat[:, None] - flat[None]).square().sum((1, 2))[:, None, None].add(1)

    return Step(run)


@MIXES_SEQUENCES.add
def cdist_between_samples(T: int, d: int) -> Step:
    return Step(lambda m, h: h + torch.cdist(h[:, 0], h[:, 0] + 1).sum(1)[:, None, None])


# Samples in other places


@MIXES_SEQUENCES.add
def the_first_sample_for_all(T: int, d: int) -> Step:
    return Step(lambda m, h: h + F.pad(h, (0, 0, 0, 0, 0, 1))[:1])


@MIXES_SEQUENCES.add
def the_first_sample_in_front(T: int, d: int) -> Step:
    return Step(lambda m, h: torch.cat([h[:1], h])[: h.shape[0]] + h)


@MIXES_SEQUENCES.add
def indexed_backwards(T: int, d: int) -> Step:
    return Step(lambda m, h: h + h[torch.arange(h.shape[0] - 1, -1, -1)])


@MIXES_SEQUENCES.add
def in_the_order_of_a_value(T: int, d: int) -> Step:
    return Step(lambda m, h: h - h.index_select(0, h[:, 0, 0].argsort()))


@MIXES_SEQUENCES.add
def mixup(T: int, d: int) -> Step:
    return Step(lambda m, h: 0.8 * h + 0.2 * torch.cat([h[1:], h[:1]]))


@MIXES_SEQUENCES.add
def difference_of_neighbours(T: int, d: int) -> Step:
    return Step(lambda m, h: h + F.pad(h[1:] - h[:-1], (0, 0, 0, 0, 1, 0))[: h.shape[0]])


@MIXES_SEQUENCES.add
def scattered_over_the_batch(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        bins = torch.zeros(2, T, d, dtype=h.dtype).scatter_add(0, (h > 0).long(), h)
        return h + bins.sum(0).tanh()

    return Step(run)


@MIXES_SEQUENCES.add
def gathered_along_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: h + h.gather(0, h.argsort(0)))


@MIXES_SEQUENCES.add
def pooled_with_neighbours(T: int, d: int) -> Step:
    """PyTorch takes [T, B, d] for one image with T channels."""
    return Step(lambda m, h: h + F.avg_pool2d(h.transpose(0, 1), (3, 1), 1, (1, 0)).transpose(0, 1))


@MIXES_SEQUENCES.add
def samples_moved_into_positions(T: int, d: int) -> Step:
    return Step(lambda m, h: h + h.transpose(0, 1).reshape(h.shape))


@MIXES_SEQUENCES.add
def samples_and_positions_renamed(T: int, d: int) -> Step:
    return Step(lambda m, h: h + h.reshape(T, -1, d).cumsum(0).reshape(-1, T, d))


@MIXES_SEQUENCES.add
def the_best_of_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: h - F.pad(h, (0, 0, 0, 0, 0, 1)).topk(1, dim=0).values)


@MIXES_SEQUENCES.add
def divided_by_the_tokens_of_the_batch(T: int, d: int) -> Step:
    return Step(lambda m, h: h / (1 + (h[..., 0] > 0).sum()))


# Images


@MIXES_IMAGES.add
def batch_norm_of_images(C: int) -> Step:
    return Step(lambda m, h: m.norm(h), norm=nn.BatchNorm2d(C, track_running_stats=False))


@MIXES_IMAGES.add
def batch_norm_written_out(C: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        variance, mean = torch.var_mean(h, (0, 2, 3), correction=0, keepdim=True)
        return (h - mean) * torch.rsqrt(variance + 1e-3) * m.scale

    return Step(run, scale=free(C, 1, 1))


@MIXES_IMAGES.add
def centred_over_the_batch_of_images(C: int) -> Step:
    return Step(lambda m, h: h - h.mean(0, keepdim=True))


@MIXES_IMAGES.add
def flipped_batch_of_images(C: int) -> Step:
    return Step(lambda m, h: m.layer(h) + h.flip(0), layer=nn.Conv2d(C, C, 1))


@MIXES_IMAGES.add
def mixup_of_images(C: int) -> Step:
    return Step(lambda m, h: 0.7 * h + 0.3 * h.roll(1, 0))


@MIXES_IMAGES.add
def cutmix_of_images(C: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        left = torch.arange(h.shape[3]) < (h.shape[3] + 1) // 2
        return torch.where(left, h.roll(-1, 0), h)

    return Step(run)


@MIXES_IMAGES.add
def channels_of_the_next_image(C: int) -> Step:
    """As temporal shift does with frames, along the wrong axis."""

    def run(m: Step, h: Tensor) -> Tensor:
        shifted = F.pad(h[:, : C // 2], (0, 0, 0, 0, 0, 0, 1, 0))[:-1]
        return torch.cat([shifted, h[:, C // 2 :]], 1)

    return Step(run)


@MIXES_IMAGES.add
def convolution_over_the_batch_as_time(C: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        frames = m.layer(h.permute(2, 3, 1, 0).flatten(0, 1))
        return frames.unflatten(0, h.shape[2:]).permute(3, 2, 0, 1)

    return Step(run, layer=nn.Conv1d(C, C, 3, padding=1))


@MIXES_IMAGES.add
def pooled_with_neighbours_in_the_batch(C: int) -> Step:
    """PyTorch takes [C, B, H, W] for one volume with C channels."""
    return Step(lambda m, h: h + F.avg_pool3d(h.transpose(0, 1), (2, 1, 1), 1, (1, 0, 0)).transpose(0, 1)[1:])


@MIXES_IMAGES.add
def pooled_over_the_batch(C: int) -> Step:
    return Step(lambda m, h: h * F.pad(h, (0, 0, 0, 0, 0, 0, 0, 1)).amax((0, 2, 3)).sigmoid()[:, None, None])


@MIXES_IMAGES.add
def group_norm_with_samples_for_channels(C: int) -> Step:
    return Step(
        lambda m, h: m.layer(F.layer_norm(h.permute(1, 2, 3, 0), h.shape[:1]).permute(3, 0, 1, 2)),
        layer=nn.Conv2d(C, C, 1),
    )


@MIXES_IMAGES.add
def softmax_over_all_pixels(C: int) -> Step:
    return Step(lambda m, h: h * h.flatten().softmax(0).view_as(h))


@MIXES_IMAGES.add
def squeeze_and_excite_over_the_batch(C: int) -> Step:
    return Step(lambda m, h: h * m.layer(h.mean((0, 2, 3))).sigmoid()[:, None, None], layer=nn.Linear(C, C))
