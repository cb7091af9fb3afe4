"""Greedy answers of SmolLM2-135M-Instruct in llama.cpp on the GGUF as it is: Tests/Fixtures/models/smollm2-llamacpp.json.

    python tools/oracle/smollm2_llamacpp.py [-o OUT.json] [--model M.gguf] [--kv f16|f32] [--no-flash]

The prompts' ids are those of smollm2-greedy.json (run smollm2_transformers.py first). Defaults are llama.cpp's own: KV
cache in f16, flash attention as it decides, weights repacked where it can; 2 threads.
"""

import argparse
import json

import llamacpp
import smollm2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", default=smollm2.FIXTURES / "smollm2-llamacpp.json")
    parser.add_argument("--model", default=smollm2.gguf_path())
    parser.add_argument("--kv", choices=llamacpp.KV_TYPES, default="f16")
    parser.add_argument("--no-flash", action="store_true")
    arguments = parser.parse_args()

    expected = json.loads((smollm2.FIXTURES / "smollm2-greedy.json").read_text())
    rows = []
    with llamacpp.Model(arguments.model, kv=arguments.kv, flash=False if arguments.no_flash else None) as model:
        for index, row in enumerate(expected["answers"]):
            model.clear()
            logits = model.decode(row["prompt_ids"])
            answer, gaps = [], []
            for _ in range(expected["tokens"]):
                token, gap = smollm2.top_two(logits[-1])
                answer.append(token)
                gaps.append(gap)
                logits = model.decode([token])
            rows.append(dict(index=index, answer_ids=answer, gaps=gaps))
    header = dict(
        model=str(getattr(arguments.model, "name", arguments.model)), oracle=llamacpp.version(), kv=arguments.kv,
        stop=expected["stop"], tokens=expected["tokens"])
    smollm2.write_rows(arguments.output, header, rows)


if __name__ == "__main__":
    main()
