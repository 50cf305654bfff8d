"""The checker of annotations that `--jaxtyping-packages` names in pyproject.toml.

beartype checks every call in the product's numeric packages, with jaxtyping's shapes and dtypes. An
integer is accepted as a float, as PEP 484 says and mypy does.
"""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
