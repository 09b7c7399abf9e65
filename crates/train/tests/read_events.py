"""Reads the events of a run with TensorBoard's own reader and compares them with the run's JSON lines.

    pip install tensorboard
    python3 crates/train/tests/read_events.py RUN

RUN is the folder of a run with `eval.every` and `eval.show` above 0. Every scalar must equal the value in metrics.jsonl or
timing.jsonl, every image must be a PNG of the size that its event says, and there must be a table of answers for each evaluation.
"""
import json
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def main(run):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    expected = {}
    for prefix, file in ("", "metrics.jsonl"), ("timing/", "timing.jsonl"):
        for row in rows(run / file):
            step = row.pop("step")
            for name, value in row.items():
                expected.setdefault(prefix + name, {})[step] = value
    assert sorted(tags["scalars"]) == sorted(expected), (tags["scalars"], sorted(expected))
    for tag, values in expected.items():
        found = {e.step: e.value for e in events.Scalars(tag)}
        single = {step: struct.unpack("f", struct.pack("f", value))[0] for step, value in values.items()}
        assert found == single, tag
        times = [e.wall_time for e in events.Scalars(tag)]
        assert times == sorted(times), tag
    evaluations = sorted(expected["accuracy"])
    assert tags["images"], "no images"
    for tag in tags["images"]:
        images = events.Images(tag)
        assert [e.step for e in images] == evaluations, tag
        for e in images:
            assert e.encoded_image_string[:8] == b"\x89PNG\r\n\x1a\n", tag
            size = struct.unpack(">II", e.encoded_image_string[16:24])
            assert size == (e.width, e.height), tag
    texts = events.SummaryMetadata("answers/text_summary")
    assert texts.plugin_data.plugin_name == "text", texts
    tables = events.Tensors("answers/text_summary")
    assert [e.step for e in tables] == evaluations
    for e in tables:
        text = e.tensor_proto.string_val[0].decode()
        assert len(text.splitlines()) == 2 + len(tags["images"]), text
    print(text)
    print(f"{len(expected)} scalars, {len(tags['images'])} images, {len(tables)} tables of answers: as in the JSON lines")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
