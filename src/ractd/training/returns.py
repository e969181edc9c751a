"""What the return model minimises (paper, section 3.3; Appendix B.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ractd.data.windows import Windows
from ractd.models import ReturnNetwork
from ractd.models.normalizer import Normalizer
from ractd.settings import Optimization


class ReturnObjective(nn.Module):
    """Squared error of R(s_n, a_n) against the return-to-go, in standard deviations of the dataset's returns-to-go.

    Every member of the return model is fitted for itself: they differ in their first weights alone.
    """

    def __init__(
        self,
        network: ReturnNetwork,
        normalizer: Normalizer,
        windows: Windows,
        targets: Tensor,
        rows: Tensor,
        action_noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.network, self.normalizer, self.windows = network, normalizer, windows
        self.targets, self.rows, self.action_noise = targets, rows, action_noise

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: positions in `rows` (the training episodes' transitions), `[B]`."""
        B, action_dim = optimization.batch_size, self.windows.actions.shape[1]
        return {
            "row": torch.randint(len(self.rows), (B,), generator=generator),
            "noise": torch.randn(B, action_dim, generator=generator),
        }

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        index = self.rows[draws["row"]]
        observations, actions = self.windows.gather(index)
        action = self.normalizer.action(actions[:, 0]) + self.action_noise * draws["noise"]
        estimates = self.network.each(self.normalizer.observation(observations[:, -1]), action)
        loss = (estimates - self.targets[index]).square().mean()
        return {"loss": loss, "return_mse": loss.detach()}

    @torch.no_grad()
    def error(self, network: nn.Module, index: Tensor) -> float:
        """Return the mean squared error of a network on transitions `index [N]`, in variances of the returns-to-go."""
        total = torch.zeros((), dtype=torch.float64)
        for rows in index.split(65_536):
            observations, actions = self.windows.gather(rows)
            estimate = network(self.normalizer.observation(observations[:, -1]), self.normalizer.action(actions[:, 0]))
            # Summed by the processor: not every accelerator has float64.
            total += (estimate - self.targets[rows]).square().cpu().sum(dtype=torch.float64)
        return float(total / len(index))
