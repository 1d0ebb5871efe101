import socket

import pytest


@pytest.fixture
def no_network(monkeypatch):
    """Every name look-up fails, as on a machine without a network."""

    def fail(*args, **kwargs):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
