"""The wheels, and a real use of each that prints the same whenever it runs. `requires` is what pip installs,
where it is not the name; `large` ones need gigabytes of disk and are asked only when they are named.
"""

from __future__ import annotations

from typing import NamedTuple


class Wheel(NamedTuple):
    name: str
    use: str
    requires: tuple[str, ...] = ()
    large: bool = False
    index: str = ""  # another index than PyPI, for builds that PyPI has not


WHEELS = (
    Wheel("numpy", """
import numpy as np
a = np.arange(90000.0).reshape(300, 300) % 17
print((a @ a).sum(), np.sort(a.ravel())[::9000], np.fft.rfft(a[0])[:2].round(6), np.linalg.det(a[:4, :4]).round(6))
"""),
    Wheel("scipy", """
import numpy as np, scipy.optimize, scipy.linalg, scipy.sparse, scipy.stats
print(scipy.optimize.brentq(np.cos, 0, 3), scipy.linalg.lu(np.arange(9.0).reshape(3, 3) + np.eye(3))[2].round(9))
print(scipy.stats.norm.cdf(1.5), (scipy.sparse.eye(5) * 3).sum())
"""),
    Wheel("pandas", """
import pandas as pd
d = pd.DataFrame({"k": [i % 7 for i in range(5000)], "v": [i * 13 % 101 for i in range(5000)]})
print(d.groupby("k").v.agg(["sum", "mean", "max"]), d.merge(d.head(50), on="k").shape)
"""),
    Wheel("pyarrow", """
import pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet as pq
t = pa.table({"k": [i % 5 for i in range(3000)], "s": [str(i) for i in range(3000)]})
f = pa.BufferOutputStream(); pq.write_table(t, f, compression="zstd")
print(pq.read_table(pa.BufferReader(f.getvalue())).group_by("k").aggregate([("s", "max")]).to_pylist(), pc.sum(t["k"]))
"""),
    Wheel("polars", """
import polars as pl
d = pl.DataFrame({"k": [i % 7 for i in range(5000)], "v": [i * 13 % 101 for i in range(5000)]})
print(d.lazy().group_by("k").agg(pl.col("v").sum(), pl.col("v").mean().alias("m")).sort("k").collect())
"""),
    Wheel("duckdb", """
import duckdb
print(duckdb.sql("select i % 5 k, sum(i * 7 % 11) s, count(*) n from range(20000) t(i) group by k order by k").fetchall())
"""),
    Wheel("scikit-learn", """
from sklearn import ensemble, datasets, linear_model
x, y = datasets.load_iris(return_X_y=True)
print(ensemble.RandomForestClassifier(20, random_state=0).fit(x, y).score(x, y))
print(linear_model.Ridge().fit(x, y).coef_.round(6))
"""),
    Wheel("torch", """
import torch
torch.manual_seed(0); torch.set_num_threads(1)
m = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.ReLU(), torch.nn.Linear(30, 2))
o = torch.optim.SGD(m.parameters(), lr=0.1); x = torch.randn(64, 20); y = (x.sum(1) > 0).long()
for _ in range(20):
    o.zero_grad(); l = torch.nn.functional.cross_entropy(m(x), y); l.backward(); o.step()
print(round(l.item(), 4))
""", ("torch==2.13.0+cpu",)),
    Wheel("tensorflow-cpu", """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
tf.random.set_seed(0)
print(tf.linalg.matmul(tf.ones((40, 30)), tf.ones((30, 20))).numpy().sum(), tf.reduce_sum(tf.nn.softmax(tf.range(9.0))).numpy().round(5))
"""),
    Wheel("jax", """
import jax, jax.numpy as jnp
print(jax.jit(lambda x: (x @ x.T).sum())(jnp.ones((30, 20))), jax.grad(lambda x: (x ** 3).sum())(jnp.arange(4.0)))
""", ("jax[cpu]",)),
    Wheel("xgboost", """
import numpy as np, xgboost as xgb
x = (np.arange(2000.0) * 7919 % 101).reshape(400, 5); y = (x.sum(1) > 250).astype(int)
print(xgb.XGBClassifier(n_estimators=8, n_jobs=1).fit(x, y).predict(x).sum())
""", ("xgboost", "scikit-learn")),
    Wheel("lightgbm", """
import numpy as np, lightgbm as lgb
x = (np.arange(2000.0) * 7919 % 101).reshape(400, 5); y = (x.sum(1) > 250).astype(int)
print(lgb.LGBMClassifier(n_estimators=8, n_jobs=1, verbose=-1).fit(x, y).booster_.predict(x).round(6).sum())
""", ("lightgbm", "scikit-learn")),
    Wheel("opencv-python-headless", """
import cv2, numpy as np
i = (np.arange(120000) * 31 % 256).astype("uint8").reshape(200, 200, 3)
print(cv2.GaussianBlur(i, (5, 5), 0).sum(), cv2.Canny(i, 50, 150).sum(), len(cv2.imencode(".png", i)[1]))
"""),
    Wheel("pillow", """
from PIL import Image, ImageFilter
import io
i = Image.linear_gradient("L").convert("RGB").resize((300, 200)).filter(ImageFilter.GaussianBlur(2)); b = io.BytesIO()
i.save(b, "JPEG", quality=80); print(len(b.getvalue()), Image.open(io.BytesIO(b.getvalue())).getpixel((9, 9)))
"""),
    Wheel("lxml", """
from lxml import etree
r = etree.fromstring("<a>" + "<b c='1'>x</b>" * 500 + "</a>")
print(r.xpath("count(//b[@c='1'])"), len(etree.tostring(r, pretty_print=True)))
"""),
    Wheel("cryptography", """
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
k = ec.derive_private_key(12345, ec.SECP256R1()); k.public_key().verify(k.sign(b"x", ec.ECDSA(hashes.SHA256())), b"x", ec.ECDSA(hashes.SHA256()))
f = Fernet(Fernet.generate_key()); print(f.decrypt(f.encrypt(b"secret" * 100))[:12], k.public_key().public_numbers().x)
"""),
    Wheel("grpcio", """
import grpc, concurrent.futures
h = grpc.method_handlers_generic_handler("s", {"m": grpc.unary_unary_rpc_method_handler(lambda r, c: r[::-1])})
s = grpc.server(concurrent.futures.ThreadPoolExecutor(2)); s.add_generic_rpc_handlers((h,)); p = s.add_insecure_port("127.0.0.1:0"); s.start()
with grpc.insecure_channel(f"127.0.0.1:{p}") as c:
    print([c.unary_unary("/s/m")(b"abc%d" % i) for i in range(20)][-1])
s.stop(0).wait()
"""),
    Wheel("grpcio-tools", """
import tempfile, pathlib
from grpc_tools import protoc
d = pathlib.Path(tempfile.mkdtemp()); (d / "a.proto").write_text('syntax="proto3"; message M { string s = 1; }')
print(protoc.main(["protoc", f"-I{d}", f"--python_out={d}", str(d / "a.proto")]), sorted(p.name for p in d.iterdir()))
"""),
    Wheel("protobuf", """
from google.protobuf import struct_pb2, json_format
s = struct_pb2.Struct(); s.update({"a": [1, 2, {"b": "c"}], "d": None})
print(len(s.SerializeToString()), json_format.MessageToDict(struct_pb2.Struct.FromString(s.SerializeToString())))
"""),
    Wheel("llvmlite", """
import llvmlite.binding as llvm
llvm.initialize_native_target(); llvm.initialize_native_asmprinter()
m = llvm.parse_assembly("define i64 @f(i64 %x) { %y = mul i64 %x, 3\\n ret i64 %y }"); m.verify()
import ctypes
e = llvm.create_mcjit_compiler(m, llvm.Target.from_default_triple().create_target_machine()); e.finalize_object()
print(ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(e.get_function_address("f"))(14))
"""),
    Wheel("numba", """
import numba, numpy as np
@numba.njit
def f(a):
    s = 0.0
    for x in a:
        s += x * x
    return s
print(f(np.arange(1000.0)), f(np.ones(7)))
"""),
    Wheel("matplotlib", """
import matplotlib; matplotlib.use("Agg")
import matplotlib.pyplot as plt, hashlib, io
f, a = plt.subplots(); a.plot([i * i % 17 for i in range(50)]); f.canvas.draw()
print(hashlib.sha256(bytes(f.canvas.buffer_rgba())).hexdigest())
"""),
    Wheel("shapely", """
import shapely
p = shapely.Point(0, 0).buffer(2); print(round(p.area, 9), round(p.intersection(shapely.box(0, 0, 3, 3)).length, 9), shapely.is_valid(p))
"""),
    Wheel("rasterio", """
import numpy as np, rasterio
from rasterio.io import MemoryFile
with MemoryFile() as m:
    with m.open(driver="GTiff", width=50, height=40, count=1, dtype="uint8", crs="EPSG:4326", transform=rasterio.Affine(1, 0, 0, 0, -1, 0)) as d:
        d.write((np.arange(2000) % 251).astype("uint8").reshape(1, 40, 50))
    with m.open() as d:
        print(d.read().sum(), d.crs, d.bounds)
"""),
    Wheel("pyproj", """
import pyproj
print([round(v, 4) for v in pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(7.5, 50.2)])
"""),
    Wheel("h5py", """
import h5py, io, numpy as np
b = io.BytesIO()
with h5py.File(b, "w") as f:
    f.create_dataset("x", data=np.arange(5000).reshape(50, 100), compression="gzip")
with h5py.File(b, "r") as f:
    print(f["x"][...].sum(), f["x"].chunks)
"""),
    Wheel("netCDF4", """
import netCDF4, numpy as np
d = netCDF4.Dataset("x.nc", "w", diskless=True); d.createDimension("t", 100); v = d.createVariable("v", "f8", ("t",), zlib=True)
v[:] = np.arange(100.0) ** 2; print(v[:].sum(), d.data_model); d.close()
"""),
    Wheel("pyzmq", """
import zmq
c = zmq.Context(); a, b = c.socket(zmq.PAIR), c.socket(zmq.PAIR); a.bind("inproc://x"); b.connect("inproc://x")
[a.send(b"m%d" % i) for i in range(500)]; print([b.recv() for _ in range(500)][-1]); a.close(); b.close(); c.term()
"""),
    Wheel("uvloop", """
import asyncio, uvloop
async def main():
    s = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    r, w = await asyncio.open_connection(*s.sockets[0].getsockname()); print(await r.read(), len(await asyncio.gather(*(asyncio.sleep(0, i) for i in range(300)))))
    w.close(); s.close()
uvloop.run(main())
"""),
    Wheel("orjson", """
import orjson
d = {str(i): [i, i / 7, "ü" * (i % 5), None] for i in range(800)}
print(orjson.loads(orjson.dumps(d)) == d, len(orjson.dumps(d, option=orjson.OPT_SORT_KEYS)))
"""),
    Wheel("pydantic", """
import pydantic
class M(pydantic.BaseModel):
    a: int; b: list[str] = []
print([M.model_validate({"a": str(i), "b": ["x"] * 3}) for i in range(300)][-1], M.model_json_schema()["required"])
try: M(a="x")
except pydantic.ValidationError as e: print(e.error_count())
"""),
    Wheel("tokenizers", """
from tokenizers import Tokenizer, models, trainers, pre_tokenizers
t = Tokenizer(models.BPE(unk_token="?")); t.pre_tokenizer = pre_tokenizers.Whitespace()
t.train_from_iterator(["the cat sat on the mat and the dog ran"] * 50, trainers.BpeTrainer(vocab_size=60, special_tokens=["?"], show_progress=False))
print(t.encode("the dog sat").tokens, t.get_vocab_size())
"""),
    Wheel("sentencepiece", """
import io, sentencepiece as s
m = io.BytesIO(); s.SentencePieceTrainer.train(sentence_iterator=iter(["the cat sat on the mat", "a dog ran far"] * 200), model_writer=m, vocab_size=18, minloglevel=2, num_threads=1)
print(s.SentencePieceProcessor(model_proto=m.getvalue()).encode("the dog sat", out_type=str))
"""),
    Wheel("onnxruntime", """
import numpy as np, onnx, onnxruntime as o
from onnx import helper as h, TensorProto as T
g = h.make_graph([h.make_node("MatMul", ["a", "b"], ["c"])], "g", [h.make_tensor_value_info(n, T.FLOAT, [8, 8]) for n in "ab"], [h.make_tensor_value_info("c", T.FLOAT, [8, 8])])
s = o.InferenceSession(h.make_model(g, ir_version=8, opset_imports=[h.make_opsetid("", 17)]).SerializeToString(), providers=["CPUExecutionProvider"])
x = np.arange(64, dtype="f4").reshape(8, 8); print(s.run(None, {"a": x, "b": x})[0].sum())
""", ("onnxruntime", "onnx")),
    Wheel("vtk", """
import vtkmodules.vtkFiltersSources as s, vtkmodules.vtkFiltersCore as c
p = s.vtkSphereSource(); p.SetThetaResolution(30); t = c.vtkTriangleFilter(); t.SetInputConnection(p.GetOutputPort()); t.Update()
print(t.GetOutput().GetNumberOfCells(), [round(b, 5) for b in t.GetOutput().GetBounds()])
"""),
    Wheel("PySide6-Essentials", """
from PySide6 import QtCore
j = QtCore.QJsonDocument.fromJson(b'{"a": [1, 2, 3]}'); print(j.toJson(QtCore.QJsonDocument.Compact), QtCore.QDate(2024, 2, 28).addDays(2).toString("yyyy-MM-dd"))
"""),
    Wheel("psycopg2-binary", """
import psycopg2
try: psycopg2.connect("host=127.0.0.1 port=1 connect_timeout=2")
except psycopg2.OperationalError as e: print(type(e).__name__)
print(psycopg2.extensions.adapt("it's").getquoted(), psycopg2.__libpq_version__)
"""),
    Wheel("gevent", """
import gevent, gevent.queue
q = gevent.queue.Queue(); [gevent.spawn(q.put, i) for i in range(200)]; gevent.sleep(0)
print(sum(q.get() for _ in range(200)), [g.value for g in gevent.joinall([gevent.spawn(pow, 3, i) for i in range(5)])])
"""),
    Wheel("greenlet", """
import greenlet
def f(n):
    while True: n = greenlet.getcurrent().parent.switch(n * 2)
g = greenlet.greenlet(f); print([g.switch(i) for i in range(400)][-1])
"""),
    Wheel("regex", """
import regex
print(len(regex.findall(r"(?<w>\\p{L}+)\\s(?&w)", "the cat sat on the mat " * 200)), regex.sub(r"(?i)CAT", "dog", "a Cat"))
"""),
    Wheel("rpds-py", """
import rpds
m = rpds.HashTrieMap({i: str(i) for i in range(2000)}); n = m.insert(7, "x"); print(m[7], n[7], len(n), rpds.List([1, 2, 3]).rest)
"""),
    Wheel("tree-sitter", """
import tree_sitter, tree_sitter_python
t = tree_sitter.Parser(tree_sitter.Language(tree_sitter_python.language())).parse(b"def f(x):\\n  return x + 1\\n" * 100)
print(t.root_node.child_count, str(t.root_node.children[0])[:80])
""", ("tree-sitter", "tree-sitter-python")),
    Wheel("torch-cuda", """
import torch
assert torch.version.cuda, "it is not the build with CUDA"
print(torch.ones(40, 30).matmul(torch.ones(30, 20)).sum().item())
""", ("torch",), large=True),
)  # fmt: skip
