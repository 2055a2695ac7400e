from __future__ import annotations

import torch
from torch import nn

from spdify.exporting.python_code import python_code


class _Named(nn.Module):
    """Calls a module by a name that no line could hold."""

    NAME = "a\n        raise SystemExit  #"

    def __init__(self) -> None:
        super().__init__()
        self.add_module(self.NAME, nn.Linear(3, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.get_submodule(self.NAME)(x))


def test_a_module_s_name_runs_nothing() -> None:
    program = torch.export.export(_Named().eval(), (torch.ones(2, 3),))
    text, tensors = python_code(program, title='x"""\nraise SystemExit')
    scope: dict[str, object] = {"__name__": "model", "__file__": "model.py"}
    exec(compile(text, "model.py", "exec"), scope)  # noqa: S102 - what is tested
    network = scope["Network"](tensors)  # type: ignore[operator]
    assert network(torch.ones(2, 3)).shape == (2, 2)
    assert not [line for line in text.splitlines() if line.strip().startswith("raise")]
