"""Losses of preferences, as functions of log probabilities; pure.

Direct preference optimisation (Rafailov et al., 2023, arXiv:2305.18290) raises the chosen
answer above the rejected one, relative to what a reference, the model as it was, gives them.

Shapes: B pairs; 2 answers of each, chosen and rejected.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from fastchat.train.dpo_arguments import DpoArguments


@dataclass(frozen=True, slots=True)
class PairLosses:
    """What a model makes of some pairs.

    Attributes:
        losses: (B,) of each pair.
        rewards: (B, 2) beta times the log of how much likelier each answer has become.
        log_probs: (B, 2) of each answer.
    """

    losses: Tensor
    rewards: Tensor
    log_probs: Tensor

    def figures(self) -> dict[str, Tensor]:
        """What is logged, summed over the pairs."""
        chosen, rejected = self.rewards.detach().unbind(dim=1)
        return {
            "rewards/chosen": chosen.sum(),
            "rewards/rejected": rejected.sum(),
            "rewards/margins": (chosen - rejected).sum(),
            "rewards/accuracies": (chosen > rejected).sum(),
            "logps/chosen": self.log_probs.detach()[:, 0].sum(),
            "logps/rejected": self.log_probs.detach()[:, 1].sum(),
        }


def pair_losses(policy: Tensor, reference: Tensor, dpo: DpoArguments) -> PairLosses:
    """The loss of each pair.

    Args:
        policy: (B, 2) log probabilities of the answers under the model that is trained:
            sums over an answer's tokens, or for `ipo` means.
        reference: (B, 2) the same under the model as it was.
        dpo: which loss.
    """
    ratios = policy - reference
    gaps = ratios[:, 0] - ratios[:, 1]
    if dpo.loss_type == "ipo":
        losses = (gaps - 1 / (2 * dpo.beta)) ** 2
    else:
        wrong = dpo.dpo_label_smoothing
        scores = dpo.beta * gaps
        losses = -(1 - wrong) * logsigmoid(scores) - wrong * logsigmoid(-scores)
    return PairLosses(losses, dpo.beta * ratios.detach(), policy)


def answer_log_probs(losses: Tensor, answer_of: Tensor, pairs: int, *, mean: bool) -> Tensor:
    """The log probability of each answer, (B, 2).

    Args:
        losses: (K,) negative log probabilities of the answers' tokens.
        answer_of: (K,) which answer each is of: 2 b of pair b's chosen one, 2 b + 1 of its
            rejected one.
        pairs: how many pairs there are.
        mean: over an answer's tokens, in place of their sum.
    """
    summed = losses.new_zeros(2 * pairs).index_add(0, answer_of, -losses)
    if mean:
        summed = summed / torch.bincount(answer_of, minlength=2 * pairs)
    return summed.view(pairs, 2)
