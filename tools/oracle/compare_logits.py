"""How far logits B are from logits A, position by position.

    python tools/oracle/compare_logits.py A.npy B.npy [--json]

Both are f32 [positions, vocabulary]; A is the reference. Prints the largest absolute difference, the cosine per position
(least and mean), how often the best token is the same, and the Kullback-Leibler divergence KL(A ‖ B) of the softmaxes in
nats (mean and largest).
"""

import argparse
import json

import numpy


def compare(a, b):
    if a.shape != b.shape or a.ndim != 2:
        raise SystemExit(f"shapes differ: {list(a.shape)} and {list(b.shape)}")
    a, b = a.astype(numpy.float64), b.astype(numpy.float64)
    cosine = (a * b).sum(1) / numpy.maximum(numpy.linalg.norm(a, axis=1) * numpy.linalg.norm(b, axis=1), 1e-300)
    log_a, log_b = (x - x.max(1, keepdims=True) for x in (a, b))
    log_a, log_b = (x - numpy.log(numpy.exp(x).sum(1, keepdims=True)) for x in (log_a, log_b))
    divergence = (numpy.exp(log_a) * (log_a - log_b)).sum(1)
    return {
        "positions": a.shape[0],
        "vocabulary": a.shape[1],
        "max_absolute_difference": float(numpy.abs(a - b).max()),
        "cosine_least": float(cosine.min()),
        "cosine_mean": float(cosine.mean()),
        "top1_agreement": float((a.argmax(1) == b.argmax(1)).mean()),
        "kl_mean": float(divergence.mean()),
        "kl_largest": float(divergence.max()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = compare(numpy.load(arguments.a), numpy.load(arguments.b))
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for key, value in result.items():
            print(f"{key:24} {value:.6g}" if isinstance(value, float) else f"{key:24} {value}")


if __name__ == "__main__":
    main()
