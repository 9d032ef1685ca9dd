"""A service from Python; nothing of the service's own is loaded.

from serving.client import Client
from serving.client.dataset import SyntheticDataset
"""

from serving.client.client import Checked, Client
from serving.client.connection import ServiceError

__all__ = ["Checked", "Client", "ServiceError"]
