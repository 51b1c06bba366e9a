"""Accuracy of hashed words in finding the intent of a question: `python -m benchmarks.hashing BANKING77`.

BANKING77 is a file of questions, one JSON object per line with "text", "intent" and "split" (train or test). A question
of the test split is given the intent of its nearest neighbour in the train split, by cosine. If there is a file
of a model's vectors beside it (BANKING77 with _f16.npy in place of .jsonl.gz), they are measured in the same way.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from soldier_data.providers import HashingEmbeddingProvider


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hashing", description=__doc__)
    parser.add_argument("banking77", type=Path)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[256, 384, 1536])
    options = parser.parse_args()
    with gzip.open(options.banking77, "rt", encoding="utf-8") as lines:
        questions = [json.loads(line) for line in lines]
    for dimensions in options.dimensions:
        provider = HashingEmbeddingProvider(dimensions)
        vectors = asyncio.run(provider.embed_batch([question["text"] for question in questions]))
        print(f"{provider.model_id}: {_accuracy(questions, np.array(vectors, dtype=np.float32)):.1%}")
    of_model = options.banking77.with_name(options.banking77.name.replace(".jsonl.gz", "_f16.npy"))
    if of_model.exists():
        print(f"{of_model.name}: {_accuracy(questions, np.load(of_model).astype(np.float32)):.1%}")


def _accuracy(questions: list[dict[str, Any]], vectors: Any) -> float:
    """Return the share of test questions whose nearest train question has the same intent."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    intents = np.array([question["intent"] for question in questions])
    is_test = np.array([question["split"] == "test" for question in questions])
    nearest = np.argmax(vectors[is_test] @ vectors[~is_test].T, axis=1)
    return float(np.mean(intents[~is_test][nearest] == intents[is_test]))


if __name__ == "__main__":
    main()
