"""From sequences to members: what the scores of single sequences, drawn from a mixture, say of every member of the basis."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from trainer.alignment import Alignment
from trainer.distributed import Team


def importance_weights(
    matrix: Float[np.ndarray, "basis leaves"],
    leaves: Int[np.ndarray, " sequences"],
    density: Float[np.ndarray, " leaves"],
) -> Float[np.ndarray, "basis sequences"]:
    """How much each drawn sequence counts for each member: `w_ij = p_i(c_j) / q(c_j)`, c_j its leaf. Inside a leaf all draws are uniform.

    Args:
        matrix: p, a member's distribution over the leaves in each row.
        leaves: c.
        density: q, the distribution that the sequences came from: the leaf weights of a training batch; or the mean of the rows if every
            member drew equally many, which makes this the balance heuristic (Veach & Guibas 1995): the weights are then at most the
            number of members, however rare a leaf is.

    Raises:
        ValueError: a sequence is from a leaf that `density` says is never drawn.
    """
    drawn = density[leaves]
    if not (drawn > 0).all():
        raise ValueError(
            f"importance_weights: leaf {leaves[drawn <= 0][0]} was drawn, and its density is {drawn.min()}"
        )
    return matrix[:, leaves] / drawn


def estimate_alignment(
    scores: Float[Tensor, " sequences"],
    tokens: Int[Tensor, " sequences"],
    losses: Float[Tensor, " sequences"],
    weights: Float[np.ndarray, "basis sequences"],
    team: Team,
    shares: Mapping[str, float] | None = None,
) -> Alignment:
    """Every member's mean score and loss a token, with w_ij the weights, S_j the scores, T_j the tokens:

        a_i = sum_j w_ij S_j / sum_j w_ij T_j
        error_i^2 = (1 - sum_j h_ij^2) sum_j (w_ij (S_j - a_i T_j) / (1 - h_ij) / sum_k w_ik T_k)^2,   h_ij = w_ij T_j / sum_k w_ik T_k

    A ratio of two means, with the error of the delta method (Cochran 1977, section 6.4). Each residual is divided by 1 - h, as a_i was
    fitted to it too: then the terms are what leaving out one sequence changes (the jackknife), and the factor before the sum makes the
    error the textbook's `s / sqrt(n)` where n sequences count the same. The ratio's own bias is of order 1 / n, a seventh of the error
    in a simulation of 64 sequences. The error knows nothing of leaves that were not drawn: where a member has most of its weight on leaves
    that a batch holds one or two sequences of, it is too small (by 13 % in a simulation).

    A member without a sequence of positive weight is unknown: its score and loss are NaN, its error is infinite, its effective size 0. Of
    one sequence there is a score, and no error: infinite too.

    Args:
        scores: `<gradient of sequence j's sum of nats, v>`, of this process's sequences; so are all that follow.
        tokens: labels that are not masked.
        losses: sums of nats.
        shares: sums of `scores` by parameter name, if these are known; the result's are means a token, over all sequences alike.

    All processes call this together, and get the same. What travels is two sums of a few numbers a member, not the sequences.
    """
    device = team.device
    w = torch.as_tensor(weights, dtype=torch.float64, device=device)
    s, t, nats = (values.to(device, torch.float64) for values in (scores, tokens, losses))
    b = w * t
    first = torch.stack([w.sum(1), w.square().sum(1), w @ s, w @ nats, b.sum(1), b.square().sum(1)])
    by_name = torch.tensor(
        [*(shares or {}).values(), float(t.sum())], dtype=torch.float64, device=device
    )
    members = first.numel()
    sums = team.sum(torch.cat([first.reshape(-1), by_name]))
    total, squares, score, loss, evidence, evidence_squares = sums[:members].view_as(first)
    mean = score / evidence
    leverage = b / evidence[:, None]
    residuals = (w * s - mean[:, None] * b) / (1 - leverage) / evidence[:, None]
    residuals = torch.where(w > 0, residuals, 0.0)
    variance = (1 - evidence_squares / evidence.square()) * team.sum(residuals.square().sum(1))
    errors = torch.where(
        torch.isfinite(variance) & (evidence_squares < evidence.square()),
        variance.sqrt(),
        torch.inf,
    )
    effective = torch.where(squares > 0, total.square() / squares, 0.0)
    by_member = [values.cpu().numpy() for values in (mean, errors, loss / evidence, effective)]
    names = {
        name: float(value / sums[-1])
        for name, value in zip(shares or {}, sums[members:-1], strict=True)
    }
    return Alignment(by_member[0], by_member[1], by_member[2], by_member[3], names)
