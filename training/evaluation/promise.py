"""Does the promised false-reject rate hold, per product and subset, and what does it catch?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from inference.model.product import subset_name, subsets_of
from inference.model.promise import rejection_rank
from training.evaluation.accuracy import Arms, Flags, Scores, fused
from training.evaluation.run import Scored

RATES: Final = (0.01, 0.05)
