"""Networks behind a program: a command that reads a case folder and writes its answer."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroxai.core.errors import ModelError
from neuroxai.models.card import read_description
from neuroxai.models.formats import COMMAND
from neuroxai.models.model import Model

SEGMENTATION, PROBABILITIES = "segmentation.nii.gz", "probabilities.nii.gz"
"""What a program writes: labels 0 to K - 1 ``(X, Y, Z)``, or probabilities ``(X, Y, Z, K)``."""

CACHE = "NEUROXAI_COMMAND_CACHE"
"""Environment variable for the folder of kept answers."""

SECONDS = 3600.0
"""Time limit of a call, unless ``arguments`` of the card have ``seconds``: an ensemble of nnU-Nets
takes some minutes on a CPU."""

_SHOWN = 200
"""Characters of a program's last message in an error."""


class CommandNetwork(nn.Module):
    """A program as a segmenter without gradients.

    Each image is written to a folder with one file for each modality, ``T1.nii.gz`` and so on, on
    the network's grid, and the program is called once. Its answer is kept by the content of the
    command, the image and its affine: the same image is not computed again, and an interrupted run
    continues where it stopped.

    Parameters
    ----------
    command
        The program and its arguments, with ``{case}`` for the folder it reads and ``{out}`` for
        the one it writes ``segmentation.nii.gz`` or ``probabilities.nii.gz`` to. No shell is used.
    modalities
        Names of the input channels.
    classes
        Number of classes K.
    seconds
        Time limit of a call.
    """

    def __init__(
        self, command: str, modalities: Sequence[str], classes: int, seconds: float = SECONDS
    ) -> None:
        super().__init__()
        self.command, self.modalities = command, tuple(modalities)
        self.classes, self.seconds = classes, seconds
        self.affine: NDArray[np.float64] = np.eye(4)
        self._arguments = shlex.split(command)
        text = " ".join(self._arguments)
        if not self._arguments or "{case}" not in text or "{out}" not in text:
            raise ModelError(
                f"command {command!r}: expected a program with {{case}} for the folder it reads "
                "and {out} for the folder it writes, for example 'python segment.py {case} {out}'"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return probabilities ``(N, K, X, Y, Z)`` of images ``(N, C, X, Y, Z)``."""
        if x.dim() != 5:
            raise ModelError(f"{self.command}: the input has shape {tuple(x.shape)}, expected 3D")
        images = x.detach().cpu().float().contiguous().numpy()
        found = np.stack([self._answer(image) for image in images])
        return torch.from_numpy(found).to(x)

    def _answer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the kept answer to an image ``(C, X, Y, Z)``, or run the program."""
        kept = cache_folder() / f"{self._key(image)}.npz"
        try:
            with np.load(kept, allow_pickle=False) as content:
                found: NDArray[np.float32] = content["answer"]
                return self._as_probabilities(found, str(kept))
        except (OSError, ValueError, KeyError):  # not there, or not complete
            pass
        answer = self._run(image)
        found = self._as_probabilities(answer, self.command)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, suffix=".npz", delete=False) as file:
            np.savez_compressed(file, answer=answer)
        Path(file.name).replace(kept)
        return found

    def _key(self, image: NDArray[np.float32]) -> str:
        digest = hashlib.sha256(f"{self.command}\n{self.modalities}\n{image.shape}\n".encode())
        digest.update(np.ascontiguousarray(self.affine, np.float64).tobytes())
        digest.update(image.tobytes())
        return digest.hexdigest()

    def _run(self, image: NDArray[np.float32]) -> NDArray[Any]:
        with tempfile.TemporaryDirectory(prefix="neuroxai-command-") as folder:
            case, out = Path(folder, "case"), Path(folder, "out")
            case.mkdir()
            out.mkdir()
            for name, volume in zip(self.modalities, image, strict=True):
                nib.save(nib.Nifti1Image(volume, self.affine), case / f"{name}.nii.gz")
            places = {"{case}": str(case), "{out}": str(out)}
            arguments = [_filled(each, places) for each in self._arguments]
            try:
                done = subprocess.run(  # noqa: S603 - the user's own program, with --trust
                    arguments, capture_output=True, text=True, timeout=self.seconds, check=False,
                    stdin=subprocess.DEVNULL,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise ModelError(
                    f"command {self.command!r}: did not finish within {self.seconds:g} s; set "
                    'another limit in the card, "arguments": {"seconds": 7200}'
                ) from error
            except OSError as error:
                raise ModelError(
                    f"command {self.command!r}: cannot be started ({error.strerror or error})"
                ) from error
            if done.returncode != 0:
                last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
                said = f": {last[0][-_SHOWN:]}" if last else ""
                raise ModelError(
                    f"command {self.command!r}: failed with exit status {done.returncode}{said}"
                )
            return self._read(out)

    def _read(self, out: Path) -> NDArray[Any]:
        """Return what the program wrote: labels, or probabilities ``(K, X, Y, Z)``."""
        paths = [out / name for name in (PROBABILITIES, SEGMENTATION) if (out / name).is_file()]
        if not paths:
            raise ModelError(
                f"command {self.command!r}: wrote neither {SEGMENTATION} nor {PROBABILITIES} to "
                "its output folder"
            )
        try:
            image: Any = nib.load(paths[0])
            values = np.asarray(image.dataobj)
        except Exception as error:  # whatever a damaged file raises
            raise ModelError(
                f"command {self.command!r}: {paths[0].name} cannot be read ({error})"
            ) from error
        if not np.allclose(image.affine, self.affine, atol=1e-3):
            raise ModelError(
                f"command {self.command!r}: {paths[0].name} has another affine than the images of "
                "the case, expected the same grid"
            )
        if paths[0].name == SEGMENTATION:
            return self._checked_labels(values)
        found: NDArray[Any] = np.moveaxis(values, -1, 0).astype(np.float32)
        return found

    def _checked_labels(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        wrong = (values != np.rint(values)) | (values < 0) | (values >= self.classes)
        if wrong.any():
            raise ModelError(
                f"command {self.command!r}: {SEGMENTATION} has the label {values[wrong][0]:g}, "
                f"expected 0 to {self.classes - 1}, the positions of the classes in the card"
            )
        labels: NDArray[np.uint8] = values.astype(np.uint8)
        return labels

    def _as_probabilities(self, answer: NDArray[Any], source: str) -> NDArray[np.float32]:
        """Return an answer as probabilities, labels as 0 and 1."""
        if answer.ndim == 3:
            classes = np.arange(self.classes).reshape(-1, 1, 1, 1)
            one_hot: NDArray[np.float32] = (answer[None] == classes).astype(np.float32)
            return one_hot
        if answer.shape[0] != self.classes or not np.isfinite(answer).all():
            raise ModelError(
                f"{source}: {PROBABILITIES} has the shape {answer.shape[1:]} for "
                f"{answer.shape[0]} classes, expected finite values of {self.classes} classes"
            )
        probabilities: NDArray[np.float32] = answer.astype(np.float32)
        return probabilities


def cache_folder() -> Path:
    """Return the folder of kept answers, which may be deleted at any time."""
    given = os.environ.get(CACHE)
    if given:
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "neuroxai" / "commands"


def read_command(text: str, card: str | os.PathLike[str] | None, *, trust: bool) -> Model:
    """Return the network behind a program.

    Parameters
    ----------
    text
        ``command:`` and the program with its arguments.
    card
        A JSON file with the keys ``task``, ``modalities``, ``classes``, ``activation`` and
        ``preprocessing``; ``arguments`` may have the time limit of a call, ``seconds``.
    trust
        The program is run only with it.

    Raises
    ------
    ModelError
        If the card is missing or is not of a 3D segmenter, or the program is not trusted.
    """
    command = text.removeprefix(COMMAND).strip()
    if card is None:
        raise ModelError(
            f"{text}: its card is missing; add --card card.json with its modalities and classes"
        )
    if not trust:
        raise ModelError(
            f"{text}: runs a program of yours; allow it with --trust (trust=True in Python)"
        )
    found, output = read_description(Path(card), architecture="command")
    if found.task != "segmentation":
        raise ModelError(f"{text}: the card has the task {found.task}, expected segmentation")
    if len(set(found.modalities)) < len(found.modalities):
        raise ModelError(f"{text}: the card names a modality twice, and files have one name each")
    seconds = found.arguments.get("seconds", SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
        raise ModelError(
            f"{card}: arguments has seconds {seconds!r}, expected a number of seconds above 0"
        )
    network = CommandNetwork(command, found.modalities, len(found.classes), float(seconds))
    digest = hashlib.sha256(command.encode()).hexdigest()
    note = "the network is a program without gradients: use perturbation methods"
    return Model(
        network.eval(), found, Path(card).parent, digest, kind="a program", output_key=output,
        notes=(note,),
    )  # fmt: skip


def _filled(argument: str, places: dict[str, str]) -> str:
    for name, path in places.items():
        argument = argument.replace(name, path)
    return argument
