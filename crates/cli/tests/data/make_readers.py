"""Writes the Parquet files that `readers.rs` trains on, with pyarrow and pandas: twelve images of 16 x 16 pixels."""

import base64
import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HERE = Path(__file__).parent / "readers"


def image(i):
    data = bytes((7 * i + 3 * j) % 256 for j in range(16 * 16 * 3))
    file = io.BytesIO()
    Image.frombytes("RGB", (16, 16), data).save(file, "PNG")
    return file.getvalue()


rows = range(12)
table = pa.table({
    "question": [f"what is {i}?" for i in rows],
    "answer": [f"it is {i}" for i in rows],
    "image": pa.array([{"bytes": image(i), "path": f"{i}.png"} for i in rows],
                      pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
})
pq.write_table(table, HERE / "images.parquet", compression="zstd", row_group_size=4)
text = [base64.urlsafe_b64encode(image(i)).decode() for i in rows]
frame = pd.DataFrame({"base64": text}, index=[f"LA_IMG_{i:012}" for i in rows])
frame.to_parquet(HERE / "mimic" / "LA-00000-of-00001.parquet", row_group_size=4)
