# SPDX-License-Identifier: Apache-2.0
"""``eval``: Evaluate a person re-identification model: mAP, mINP, CMC.

    eval -c CONFIG -o Global.pretrained_model=WEIGHTS
    eval --model FOLDER --query FOLDER --gallery FOLDER --identity-pattern '(-?\\d+)_c'

The first form takes the query and gallery sets of a configuration, the second any two folders; its
model is a folder of `export`, or a checkpoint (-c CONFIG -o Global.pretrained_model=WEIGHTS).
"""

import argparse
from collections.abc import Sequence

import numpy as np

from ppcls_ise.cli.image_names import (
    add_name_arguments,
    as_options,
    naming_options,
    require_folder,
)
from ppcls_ise.cli.inference_options import add_model_arguments, make_extractor, read_overrides
from ppcls_ise.data.naming import THINGS
from ppcls_ise.errors import ConfigError, shown
from ppcls_ise.metrics import ReIDResult, Side
from ppcls_ise.registry import register
from ppcls_ise.utils.files import require_replaceable
from ppcls_ise.visualization.pictures import ranked_lists

_SHOWN_QUERIES = 12


def configure(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("-p", "--profiler_options", default=None, help="PaddleClas's profiler")
    parser.add_argument("--query", metavar="FOLDER", help="images to search for")
    parser.add_argument("--gallery", metavar="FOLDER", help="images to find them in")
    add_name_arguments(parser, *THINGS)
    parser.add_argument(
        "--re-ranking", action="store_true", help="rank by k-reciprocal re-ranking (much slower)"
    )
    parser.add_argument("--ranked-lists", metavar="PNG", help="picture of ranked lists to write")


def command(args: argparse.Namespace) -> str:
    register()
    if args.ranked_lists:
        require_replaceable(args.ranked_lists, "--ranked-lists")
    if args.query is None and args.gallery is None:
        return _of_config(args)
    if args.query is None or args.gallery is None:
        raise ConfigError("an evaluation of folders needs both --query FOLDER and --gallery FOLDER")
    return _of_folders(args)


def _of_config(args: argparse.Namespace) -> str:
    from ppcls_ise.config import get_config
    from ppcls_ise.engine import UnsupervisedEngine

    given = [
        f"--{name.replace('_', '-')}"
        for name in ("model", "table", *(f"{thing}_pattern" for thing in THINGS))
        if getattr(args, name)
    ]
    if given:
        raise ConfigError(f"{given[0]} is for folders: name --query FOLDER and --gallery FOLDER")
    if args.config is None:
        raise ConfigError(
            "name what to evaluate: -c CONFIG for the sets of a configuration, or --model, --query "
            "and --gallery for folders"
        )
    overrides = args.override
    if args.re_ranking:
        overrides = [*overrides, "Metric.Eval.0.ReIDMetric.re_ranking=True"]
    config = get_config(args.config, overrides, profiler_options=args.profiler_options, mode="eval")
    engine = UnsupervisedEngine(config, mode="eval")
    engine.require_weights()
    if not args.ranked_lists:
        engine.eval()
        assert engine.last_result is not None
        return _report(engine.last_result)
    query, gallery = (
        loader.dataset for loader in (engine.query_dataloader, engine.gallery_dataloader)
    )
    sides = engine.query_and_gallery()
    result = engine.metric(*sides)
    return _report(result, _write_lists(args.ranked_lists, sides, query.images, gallery.images))


def _of_folders(args: argparse.Namespace) -> str:
    from ppcls_ise.deploy.folder_evaluation import FolderEvaluation

    read_overrides(args)
    require_folder(args.query, "--query")
    require_folder(args.gallery, "--gallery")
    with as_options():
        folders = FolderEvaluation(args.query, args.gallery, **naming_options(args))
    extractor = make_extractor(args)
    sides = folders.features(extractor)
    result = folders.evaluate(sides, re_ranking=args.re_ranking)
    lists = ""
    if args.ranked_lists:
        lists = _write_lists(args.ranked_lists, sides, folders.query.images, folders.gallery.images)
    return f"{folders.protocol}\n{_report(result, lists)}"


def _write_lists(
    path: str, sides: tuple[Side, Side], query: Sequence[str], gallery: Sequence[str]
) -> str:
    """A picture of the ranked lists of some queries, evenly spread over all; what to print."""
    rows = np.unique(np.linspace(0, len(query) - 1, _SHOWN_QUERIES).astype(int))
    ranked_lists(path, [("gallery", *sides)], query, gallery, rows=rows.tolist())
    return f"\nranked lists of {len(rows)} queries: {shown(path)}"


def _report(result: ReIDResult, more: str = "") -> str:
    if not result.ranks.num_valid_queries:
        print(result.table())
        result.require_valid_queries()
    return result.table() + more
