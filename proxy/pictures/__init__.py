"""Pictures that requests lead to instead of carrying them: kept here by content, or fetched."""

from proxy.pictures.fetch import Fetcher
from proxy.pictures.folder import REFERENCE
from proxy.pictures.incoming import Incoming
from proxy.pictures.sniff import sniff
from proxy.pictures.store import PictureStore
from proxy.pictures.upload import UploadForm
from proxy.pictures.values import Claim, Stored

__all__ = [
    "REFERENCE",
    "Claim",
    "Fetcher",
    "Incoming",
    "PictureStore",
    "Stored",
    "UploadForm",
    "sniff",
]
