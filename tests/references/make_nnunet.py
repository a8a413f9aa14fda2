"""Makes ``nnunet.npz``, what nnU-Net itself answers to the folders of ``nnunets.py``.

In an environment of its own, beside the project's::

    python -m venv throwaway
    throwaway/bin/pip install -c constraints.txt nnunetv2 .
    PYTHONPATH=tests throwaway/bin/python tests/references/make_nnunet.py tests/references

Logits are those of nnU-Net's predictor (its preprocessing, its tiles, its weights) without
mirroring, blended in float32 instead of its float16; the labels are those of its whole pipeline,
export included.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

import nnunets


def answers(
    root: Path, case: Path, out: Path, folds: tuple[int, ...]
) -> tuple[np.ndarray, NDArray[Any]]:
    """Return logits ``(K, I, J, K)`` float32 and labels, on the patient's grid."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    predictor = nnUNetPredictor(
        tile_step_size=0.5, use_gaussian=True, use_mirroring=False,
        perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False,
    )  # fmt: skip
    predictor.initialize_from_trained_model_folder(str(root), use_folds=folds)
    files = [str(case / f"{case.name}_{nnunets.SUFFIX[c]}.nii.gz") for c in nnunets.CHANNELS]
    target = out / "answer.nii.gz"
    predictor.predict_from_files_sequential([files], [str(target)])
    labels = np.asarray(nib.load(target).dataobj)
    manager = predictor.configuration_manager
    prepared, _, properties = manager.preprocessor_class(verbose=False).run_case(
        files, None, predictor.plans_manager, manager, predictor.dataset_json
    )
    x = torch.from_numpy(prepared)
    blended, total = torch.zeros(0), torch.zeros(x.shape[1:])
    gaussian = compute_gaussian(
        tuple(manager.patch_size), 1 / 8, value_scaling_factor=10, device=torch.device("cpu")
    ).float()
    with torch.no_grad():
        for number, cut in enumerate(predictor._internal_get_sliding_window_slicers(x.shape[1:])):
            found = torch.zeros(())
            for weights in predictor.list_of_parameters:
                predictor.network.load_state_dict(weights)
                found = found + predictor.network.eval()(x[cut][None])[0] / len(folds)
            if number == 0:
                blended = torch.zeros(len(found), *x.shape[1:])
            blended[cut] += gaussian * found
            total[cut[1:]] += gaussian
    forward = predictor.plans_manager.transpose_forward
    own = [properties["spacing"][axis] for axis in forward]
    there = manager.resampling_fn_probabilities(
        blended / total,
        properties["shape_after_cropping_and_before_resampling"],
        [*own[: 3 - len(manager.spacing)], *manager.spacing],
        own,
    )
    logits = np.full((len(blended), *properties["shape_before_cropping"]), np.nan, np.float32)
    box = tuple(slice(a, b) for a, b in properties["bbox_used_for_cropping"])
    logits[(slice(None), *box)] = np.asarray(there)
    backward = [axis + 1 for axis in predictor.plans_manager.transpose_backward]
    return logits.transpose(0, *backward).transpose(0, 3, 2, 1), labels.astype(np.uint8)


def main(out: Path) -> None:
    """Answer every kind of folder and case."""
    kept: dict[str, NDArray[Any]] = {}
    for word, kind in nnunets.KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            root = nnunets.write_nnunet(
                Path(folder), about=nnunets.dataset(kind.labels), folds=kind.folds,
                kind=kind.network, axes=kind.axes, pickled=True,
            )  # fmt: skip
            case = nnunets.write_case(Path(folder) / "case", kind.edges)
            logits, segmentation = answers(root, case, Path(folder), kind.folds)
        kept[f"{word}_logits"] = logits[:, ::3, ::3, ::3]
        kept[f"{word}_labels"] = segmentation
    np.savez_compressed(out / "nnunet.npz", allow_pickle=False, **kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
