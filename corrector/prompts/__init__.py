"""The batch file: which prompts fail, where their exemplars are, and how to train, evaluate and judge.

`load_batch` reads YAML, JSON, JSONL or CSV and reports every mistake of a file at once, each with its line;
`json_schema` describes the file to editors; `python -m corrector.prompts check FILE` and `schema` are the commands.
"""

from corrector.prompts.batch import CorrectionBatch
from corrector.prompts.evaluation_settings import EvaluationSettings
from corrector.prompts.failing_prompt import FailingPrompt
from corrector.prompts.gate_thresholds import GateThresholds
from corrector.prompts.hyperparameters import HyperParameters
from corrector.prompts.json_schema import json_schema
from corrector.prompts.loading import load_batch
from corrector.prompts.look_shares import look_shares
from corrector.prompts.mistakes import BatchError, BatchErrors
from corrector.prompts.search_settings import SearchSettings

__all__ = [
    "BatchError",
    "BatchErrors",
    "CorrectionBatch",
    "EvaluationSettings",
    "FailingPrompt",
    "GateThresholds",
    "HyperParameters",
    "SearchSettings",
    "json_schema",
    "load_batch",
    "look_shares",
]
