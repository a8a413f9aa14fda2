"""Options shared by several commands, so that each has one meaning everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroxai.cli.panels import (
    case_option,
    cohort_option,
    method_option,
    network_option,
    question_option,
    result_option,
    run_option,
)
from neuroxai.models.formats import DEFAULT_MODEL as DEFAULT_MODEL

CasePath = Annotated[
    Path | None,
    typer.Argument(
        metavar="CASE",
        help="Case folder, in a BraTS layout or with files named by modality; or a 2D picture.",
        show_default=False,
    ),
]
Cohort = Annotated[Path, typer.Argument(metavar="COHORT", help="Folder of cases.")]
File = Annotated[
    list[str] | None,
    case_option(
        "--file", metavar="MODALITY=PATH",
        help="File of one modality, for example T1ce=t1c.nii.gz; repeatable.",
    ),
]  # fmt: skip
LayoutName = Annotated[
    str | None,
    case_option(
        "--layout",
        metavar="NAME",
        help="File names and label numbers, for example brats2021; default: detected from the "
        "file names.",
    ),
]
ResampleTo = Annotated[
    str | None,
    case_option(
        "--resample-to", metavar="MODALITY",
        help="Resample files on other grids to the grid of this modality, for example T1ce, by "
        "their headers; this does not register them. Default: refuse them.",
    ),
]  # fmt: skip
ModelName = Annotated[
    str,
    network_option(
        "--model",
        metavar="MODEL",
        help="Name of a shipped network; folder of a checkpoint, a MONAI bundle or a trained "
        "nnU-Net; .pt2 file; or package.module:factory.",
    ),
]
WeightsFile = Annotated[
    Path | None,
    network_option(
        "--weights", metavar="FILE", help="Weights for a factory's network, as a safetensors file."
    ),
]
CardFile = Annotated[
    Path | None,
    network_option(
        "--card",
        metavar="FILE",
        help="JSON file describing the inputs and outputs of a factory's network; default: "
        "card.json next to its weights.",
    ),
]
Trust = Annotated[
    bool,
    network_option(
        "--trust",
        help="Allow what can execute code: a program (command:), expressions of a MONAI bundle, "
        "pickled nnU-Net weights.",
    ),
]
Flips = Annotated[
    bool, run_option("--flips", help="Average the predictions over all mirror images.")
]
OutputKey = Annotated[
    str | None,
    network_option(
        "--output-key",
        metavar="KEY",
        help="Index or key of the output to use, of a network that returns a tuple, list or dict.",
    ),
]
Methods = Annotated[
    list[str] | None,
    method_option(
        "--method",
        metavar="NAME",
        help="Method; repeatable. Default: all, but for those on request; see 'neuroxai methods'.",
    ),
]
Targets = Annotated[
    list[str] | None,
    question_option(
        "--target",
        metavar="NAME",
        help="WT, TC, ET, or a class by name or number, or two as 'ET vs NCR'; repeatable. "
        "Default: the first region, or the predicted class.",
    ),
]
Layer = Annotated[
    str | None,
    method_option(
        "--layer", metavar="NAME", help="Layer for methods that use one, such as Grad-CAM."
    ),
]
LayerGrid = Annotated[
    str | None,
    method_option(
        "--layer-grid",
        metavar="GRID",
        help="Cells of the layer along each axis, for example 14x14 or 6x7x5, for tokens whose "
        "grid the network does not show.",
    ),
]
Baseline = Annotated[
    str | None,
    method_option(
        "--baseline",
        metavar="NAME",
        help="Baseline of path methods: auto, zero, black, blur, mean, brain, mirror, noise, "
        "mirror:N along axis N, or a number; default: auto.",
    ),
]
Within = Annotated[
    str | None,
    question_option(
        "--within",
        metavar="PLACE",
        help="Where a segmenter's target is averaged: prediction, image (everywhere), truth, "
        "lesion:N, or the file of a mask on the scan's grid; default: prediction.",
    ),
]
RemoverName = Annotated[
    str,
    method_option(
        "--remover",
        metavar="NAME",
        help="What replaces a removed modality: healthy (the mean outside the predicted tumor; the "
        "default), zero, black, mean, brain, blur, mirror, noise or neighbors.",
    ),
]
Value = Annotated[
    str,
    question_option(
        "--value",
        metavar="NAME",
        help="What is measured: target; of a segmenter also dice (soft Dice with the network's own "
        "answer) or volume.",
    ),
]
Scale = Annotated[
    str,
    question_option(
        "--scale",
        metavar="NAME",
        help="logit, or probability, which the paper averages over the whole image "
        "(--within image); it saturates near certainty.",
    ),
]
Background = Annotated[
    str | None,
    result_option(
        "--background", metavar="MODALITY",
        help="Modality that pictures are drawn on, for example T1ce; default: T1ce for ET and TC, "
        "FLAIR for WT, else the one with the largest share of the maps.",
    ),
]  # fmt: skip
Slice = Annotated[
    int | None,
    case_option(
        "--slice", metavar="N", help="Axial slice for a 2D network, counted from inferior."
    ),
]
Parameters = Annotated[
    list[str] | None,
    method_option("--set", metavar="METHOD.NAME=VALUE", help="Parameter of a method; repeatable."),
]
Device = Annotated[str, run_option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
Memory = Annotated[
    str | None,
    run_option(
        "--memory", metavar="SIZE",
        help="Memory limit for a pass through the network, for example 4GB; default: 80 % of the "
        "available memory.",
    ),
]  # fmt: skip
Precision = Annotated[
    str,
    run_option(
        "--precision", metavar="NAME",
        help="fp32, tf32 (NVIDIA GPUs) or bf16; the deviation from fp32 is measured.",
    ),
]  # fmt: skip
Limit = Annotated[
    int | None, cohort_option("--cases", min=1, help="Use only the first N cases.", metavar="N")
]
Split = Annotated[
    Path | None,
    cohort_option(
        "--split", metavar="FILE", help="split.csv of a training run; use one part of it."
    ),
]
PartName = Annotated[
    str,
    cohort_option("--part", metavar="NAME", help="Part of the split: train, validation or test."),
]
SplitModalities = Annotated[
    bool,
    result_option(
        "--split-modalities", help="Write one 3-D file per modality instead of a 4-D file."
    ),
]
Seed = Annotated[int, run_option("--seed", metavar="N", help="Seed of all random numbers.")]
Out = Annotated[
    Path | None,
    result_option(
        "-o", "--out", metavar="FOLDER",
        help="Folder for results; default: neuroxai-out/, then the name of the case or command.",
    ),
]  # fmt: skip
Quiet = Annotated[
    bool,
    result_option("-q", "--quiet", help="Print only warnings and the paths of the files."),
]
AsJson = Annotated[
    bool,
    result_option("--json", help="Print the results as one JSON object on the standard output."),
]
Strict = Annotated[
    bool,
    case_option("--strict", help="Refuse a scan with an alarm; see 'neuroxai check'."),
]
