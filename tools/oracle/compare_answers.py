"""How many greedy answers agree with an oracle's, and where the others part from it.

    python tools/oracle/compare_answers.py EXPECTED.json OURS.json

EXPECTED is smollm2-greedy.json or smollm2-llamacpp.json (or any file of theirs). OURS is such a file, or a list of lists
of answer ids in the order of the prompts, or a list of objects with `tokens` or `answer_ids`. An answer of ours that is
shorter than the oracle's counts as agreeing only if it ended with the oracle's end-of-turn token (id 2) at that place.
The gap printed is the oracle's, between its two best logits, at the first token that differs. Exit 1 if fewer than
--least answers agree.
"""

import argparse
import json
import pathlib

END_OF_TURN = 2


def answers(path):
    content = json.loads(pathlib.Path(path).read_text())
    rows = content["answers"] if isinstance(content, dict) else content
    return [row if isinstance(row, list) else row.get("answer_ids", row.get("tokens")) for row in rows]


def first_difference(expected, ours):
    """The first position that differs, or None."""
    for position, token in enumerate(expected):
        if position >= len(ours):
            stopped = token == END_OF_TURN or (position > 0 and expected[position - 1] == END_OF_TURN)
            return None if stopped else position
        if ours[position] != token:
            return position
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("expected")
    parser.add_argument("ours")
    parser.add_argument("--least", type=int, default=0)
    arguments = parser.parse_args()
    expected = json.loads(pathlib.Path(arguments.expected).read_text())["answers"]
    ours = answers(arguments.ours)
    if len(ours) != len(expected):
        raise SystemExit(f"{arguments.ours}: {len(ours)} answers for {len(expected)} prompts")
    agree = 0
    for index, (row, answer) in enumerate(zip(expected, ours)):
        position = first_difference(row["answer_ids"], answer)
        if position is None:
            agree += 1
            continue
        got = answer[position] if position < len(answer) else "the end"
        print(f"prompt {index:2}: parts at token {position:2} of {len(row['answer_ids'])}: "
              f"{got} for {row['answer_ids'][position]}; gap {row['gaps'][position]:.5f}")
    print(f"{agree} of {len(expected)} answers agree in every token")
    raise SystemExit(0 if agree >= arguments.least else 1)


if __name__ == "__main__":
    main()
