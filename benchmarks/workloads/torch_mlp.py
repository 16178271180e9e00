"""torch: training steps of a small multi-layer perceptron, where the work is in getting to the
kernels and not in them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

TITLE = "torch small-MLP training"
NEEDS = ("torch",)

_STEPS = 12


def prepare() -> Callable[[], object]:
    torch: Any = import_module("torch")
    torch.set_num_threads(1)
    torch.manual_seed(4)
    nn = torch.nn
    inputs, targets = torch.randn(32, 24), torch.randint(0, 8, (32,))
    model = nn.Sequential(
        nn.Linear(24, 48), nn.ReLU(), nn.LayerNorm(48), nn.Linear(48, 48), nn.GELU(),
        nn.Dropout(0.1), nn.Linear(48, 8),
    )  # fmt: skip
    loss_of = nn.CrossEntropyLoss()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def iteration() -> object:
        # From the start each time: a network that has learned computes with ever smaller numbers.
        model.load_state_dict(weights)
        torch.manual_seed(5)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        loss = None
        for _ in range(_STEPS):
            optimizer.zero_grad()
            loss = loss_of(model(inputs), targets)
            loss.backward()
            optimizer.step()
        return loss.item() if loss is not None else None

    return iteration
