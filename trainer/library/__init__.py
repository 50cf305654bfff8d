"""The mixture of a run as a library, for training loops that are not ours.

`open_mixture` opens a mixture on a catalog. Its `dataset` draws the sequences, and its `after_step`
measures the model and changes the weights. `MixtureCallback` does the latter in the Trainer of
Hugging Face. See docs/how-to/other-trainers.md.
"""

from trainer.library.dataset import MixtureDataset
from trainer.library.hugging_face import MixtureCallback
from trainer.library.mixture import LoopMixture
from trainer.library.opening import open_mixture

__all__ = ["LoopMixture", "MixtureCallback", "MixtureDataset", "open_mixture"]
