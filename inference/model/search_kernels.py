"""The highest affinity of each group of rows: blocks on a CPU, one Triton kernel on a GPU."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention


def group_maxima(
    rows: Float[Tensor, "rows wide"],
    queries: Float[Tensor, "queries wide"],
    *,
    group: int,
    block: int,
) -> Float[Tensor, "queries groups"]:
    """The highest product of each query with the rows of each group, in float32."""
    highest = [
        F.linear(each, queries).view(-1, group, len(queries)).amax(1)
        for each in torch.split(rows, block)
    ]
    return torch.cat(highest).t().float()
