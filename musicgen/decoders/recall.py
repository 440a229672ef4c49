"""Recall inside a model: what came next the last time, as an input of the embedding and as scores in the head.

In come the columns that `tokens.recall` finds, for each view a length and the fields of the step that followed there.
The embedding adds them to the step. The head may point: to the logit of the value that is recalled it adds a score that
grows or falls with the length of the match, with what the decoder says, and with whether the fields of this step that
are known already are those recalled. (Copying by pointing: Vinyals et al. 2015, Grave et al. 2017.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from musicgen.tokens.recall import Recall


class Recollection(nn.Module):
    """Embeds what is recalled. Nothing recalled is a value too, which adds nothing at first."""

    def __init__(self, recall: Recall, fields: Sequence[int], dim: int) -> None:
        super().__init__()
        sizes = [size for _ in recall.views for size in (recall.lengths, *(fields[f] for f in recall.fields))]
        self.tables = nn.ModuleList(nn.Embedding(size, dim) for size in sizes)
        for table in self.tables:
            nn.init.normal_(table.get_parameter("weight"), std=0.1)
            nn.init.zeros_(table.get_parameter("weight")[0])

    def forward(self, recalled: Tensor) -> Tensor:
        """recalled: (B, T, R) int64; returns (B, T, D)."""
        return torch.stack([table(recalled[..., i]) for i, table in enumerate(self.tables)]).sum(0)


class Pointing(nn.Module):
    """What is added to the logits of one field where a value of it is recalled."""

    def __init__(self, recall: Recall, field: int, dim: int) -> None:
        super().__init__()
        self.recall, self.field = recall, field
        self.lengths = nn.Parameter(torch.zeros(len(recall.views), 2, recall.lengths))
        self.spoken = nn.Linear(dim, len(recall.views))
        nn.init.zeros_(self.spoken.weight)
        nn.init.zeros_(self.spoken.bias)

    def forward(self, logits: Tensor, mixed: Tensor, recalled: Tensor, known: Sequence[Tensor]) -> Tensor:
        """logits: (..., size); mixed: (..., D), what the head says; recalled: (..., R) int64; known: values (...)."""
        fields = self.recall.fields
        spoken = self.spoken(mixed).float()  # (..., views)
        for view, columns in enumerate(recalled.split(1 + len(fields), -1)):
            length, value = columns[..., 0], columns[..., 1 + fields.index(self.field)]
            agrees = torch.ones_like(length)
            for place, field in enumerate(fields):
                if field < self.field:
                    agrees = agrees & (known[field] == columns[..., 1 + place])
            score = self.lengths[view].flatten()[agrees * self.recall.lengths + length] + spoken[..., view]
            score = torch.where(length > 0, score, 0.0)
            logits = logits.float().scatter_add(-1, value[..., None], score[..., None])
        return logits
