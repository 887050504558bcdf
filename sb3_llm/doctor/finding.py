"""What a check says, and how far apart two exact computations may be."""

from typing import NamedTuple

import torch

from sb3_llm.scoring.probe import TOLERANCES

#: |ratio - 1| before an update, by the weights' dtype: the embedded model has 6e-6 in float32 and 0.06 in bfloat16.
RATIOS = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 0.2}
#: Of gradients, relative: where a part gets none, half of the whole and more is missing.
GRADIENTS = {torch.float64: 1e-4, torch.float32: 0.01, torch.bfloat16: 0.2}
#: Of scores in nats, from those computed in a wider dtype.
NATS = TOLERANCES


class Finding(NamedTuple):
    """
    One line of the doctor's table.

    :param name: of the check
    :param passed: whether all is well; also of checks that only inform
    :param figure: what was measured
    :param mend: what to do about it; empty if it passed
    """

    name: str
    passed: bool
    figure: str
    mend: str = ""


class Measured(NamedTuple):
    """
    What a check returns.

    :param passed: whether all is well
    :param figure: what was measured
    :param mend: what to do if it did not pass
    """

    passed: bool
    figure: str
    mend: str
