"""Writes the containers of this crate's tests into tests/data/stores, with tarfile, pyarrow and pandas.

Image i has 50 + 9 i bytes, byte j of which is (7 i + j) % 256; they are no images that could be decoded.
"""

import base64
import io
import json
import tarfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

DATA = Path(__file__).parent / "data" / "stores"
LONG = "/".join([40 * "x", 40 * "y", 60 * "z" + ".jpg"])


def image(i):
    return bytes((7 * i + j) % 256 for j in range(50 + 9 * i))


def tars():
    for name, form in {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}.items():
        with tarfile.open(DATA / f"{name}.tar", "w", format=form) as tar:

            def put(name, data, **other):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                for key, value in other.items():
                    setattr(info, key, value)
                tar.addfile(info, io.BytesIO(data))

            put("000.jpg", image(0))
            put("000.txt", "two cats".encode())
            put("folder", b"", type=tarfile.DIRTYPE)
            put("./folder/001.seg.PNG", image(1))
            put("./folder/001.json", b'{"caption": "a dog"}')
            put("link.jpg", b"", type=tarfile.SYMTYPE, linkname="000.jpg")
            put(LONG, image(2))
            put("../up.jpg", image(3))
            put("/etc/absolute.jpg", image(4))
            put("empty.txt", b"")
            put("manifest.jsonl", b'{"image": "000.jpg", "caption": "two cats"}\n')
            if name != "ustar":
                put("na\u00efve.jpg", image(5))


def parquets():
    keys = lambda rows: [f"LA_IMG_{i:012}" for i in rows]
    text = lambda i: (base64.urlsafe_b64encode if i % 2 else base64.b64encode)(image(i)).decode().rstrip("=" if i % 3 else "")
    (DATA / "mimic").mkdir(exist_ok=True)
    for part, rows in enumerate([range(0, 20), range(20, 33)]):
        frame = pd.DataFrame({"base64": [text(i) for i in rows]}, index=keys(rows))
        frame.to_parquet(DATA / "mimic" / f"LA-{part:05}-of-00002.parquet", row_group_size=8)
    rows = range(40)
    table = pa.table({
        "question": [f"what is {i}?" for i in rows],
        "answer": pa.array([None if i == 5 else f"it is {i}" for i in rows]),
        "image": pa.array([None if i == 7 else {"bytes": image(i), "path": f"{i}.jpg"} for i in rows],
                          pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "id": list(rows),
        "conversations": [json.dumps([{"from": "human", "value": f"é {i}"}]) for i in rows],
    })
    options = dict(row_group_size=16, data_page_size=100, write_batch_size=1)
    pq.write_table(table, DATA / "hf_index.parquet", compression="zstd", write_page_index=True, use_dictionary=False, **options)
    pq.write_table(table, DATA / "hf_dictionary.parquet", compression="snappy", data_page_version="2.0", **options)
    plain = pa.table({"jpg": pa.array([image(i) for i in rows], pa.binary()), "caption": [f"caption {i}" for i in rows]})
    plain = plain.cast(pa.schema([pa.field("jpg", pa.binary(), nullable=False), pa.field("caption", pa.string())]))
    pq.write_table(plain, DATA / "plain.parquet", compression="gzip", use_dictionary=False, **options)
    named = pa.table({"image": [f"{i}.jpg" for i in rows], "text": [f"text {i}" for i in rows]})
    pq.write_table(named, DATA / "texts.parquet", compression="none")


if __name__ == "__main__":
    tars()
    parquets()
