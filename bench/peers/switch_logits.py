"""Whether two arms' logits agree, and where they are read from."""

from pathlib import Path

import numpy as np

TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2}


def read_logits(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path)
    lines = path.read_text().splitlines()
    return np.array([line.split("\t")[2:] for line in lines[1:]], dtype=np.float32)


def compare(logits: np.ndarray, reference: np.ndarray, tolerance: float, allowed_rows: float) -> dict:
    """A row's error is its largest absolute difference over the norm of a typical row of the reference, the root mean
    square over all rows: a row's own can be next to nothing where its terms cancel."""
    if logits.shape != reference.shape:
        return {"ok": False, "reason": f"logits are {list(logits.shape)}, the reference's {list(reference.shape)}"}
    reference = reference.astype(np.float64)
    difference = np.abs(logits - reference).max(-1)
    norms = np.linalg.norm(reference, axis=-1)
    norm = max(float(np.sqrt(np.mean(norms**2))), 1e-30)
    errors = difference / norm
    over = float((~(errors <= tolerance)).mean())  # a NaN is over
    return {"ok": over <= allowed_rows, "max_abs_error_over_norm": float(errors.max()), "norm": norm,
            "median_abs_error_over_norm": float(np.median(errors)), "tolerance": tolerance, "rows_over": over,
            "rows_over_allowed": allowed_rows,
            "max_abs_error_over_own_norm": float((difference / np.maximum(norms, 1e-30)).max()),
            "same_labels": float((logits.argmax(-1) == reference.argmax(-1)).mean())}
