"""What a component has to keep, as functions that a plug-in's own tests call.

    from sslcollapse import testing

    def test_my_domain():
        testing.check_domain(MyDomain(Path("."), batch_size=8))

Each takes a component that was constructed, and raises ``ContractError`` with what is wrong. The tests of the
components of this package are made of them. What costs little is checked again when a run starts.
"""

from sslcollapse.testing.components import (
    check_coefficient,
    check_encoder,
    check_objective,
    check_optimizer,
    check_probe,
    check_regularizer,
    couples_batch,
)
from sslcollapse.testing.contract import ContractError
from sslcollapse.testing.domain import check_domain

__all__ = [
    "ContractError",
    "check_coefficient",
    "check_domain",
    "check_encoder",
    "check_objective",
    "check_optimizer",
    "check_probe",
    "check_regularizer",
    "couples_batch",
]
