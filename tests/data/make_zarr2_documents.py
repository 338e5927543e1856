"""Write zarr2_documents.json: what zarr 2.18.7 itself writes for a table of parameters.

Run it in an environment with ``zarr==2.18.7``, ``numcodecs<0.16`` and ``numpy>=2``::

    python tests/data/make_zarr2_documents.py

A call is text, so that the very same text is evaluated there and in the test.
"""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

CALLS = """
shape=(10000, 10000), chunks=(1000, 1000)
shape=100000000, chunks=1000000, dtype='i1'
shape=(10000, 10000), chunks=True, dtype='f8'
shape=(10000, 10000), chunks=None, dtype='f8'
shape=(10000, 10000), chunks=False, dtype='f4'
shape=(100, 100), chunks=10
shape=(100, 100), chunks=(10, -1)
shape=(100, 100), chunks=(10, None)
shape=(100, 100, 5), chunks=(10,)
shape=[100, 100], chunks=[10, 20]
shape=np.int64(100), chunks=np.int32(7), dtype='u2'
shape=(np.int64(12), 5), chunks=(np.int8(5), 5), dtype='u2'
shape=(3, 4), chunks=(10, 10), dtype='i4'
shape=(0, 5), chunks=(2, 5), dtype='i4'
shape=0, dtype='i4'
shape=(), dtype='f8', fill_value=0
shape=(), chunks=(), dtype='i2', fill_value=7
shape=(), chunks=5, dtype='i2'
shape=(1, 10**9, 3), dtype='f8'
shape=(10**9,), dtype='S100'
shape=10, dtype='(2,3)i4'
shape=(10, 4), chunks=(5, 2), dtype='(3,)f8', fill_value=1.5
shape=10, dtype=None
shape=10, dtype=float
shape=10, dtype=int
shape=10, dtype=bool
shape=10, dtype=np.uint16
shape=10, dtype=np.dtype('>i4')
shape=10, dtype='>f8', fill_value=np.nan
shape=10, dtype='f8', fill_value=np.nan
shape=10, dtype='f4', fill_value=np.inf
shape=10, dtype='f2', fill_value=-np.inf
shape=10, dtype='f2', fill_value=0.1
shape=10, dtype='f4', fill_value=0.1
shape=10, dtype='f8', fill_value=0.1
shape=10, dtype='f8', fill_value=1e300
shape=10, dtype='f8', fill_value='-1.25'
shape=10, dtype='f8', fill_value='nan'
shape=10, dtype='f8', fill_value=-0.0
shape=10, dtype='i4', fill_value=-1
shape=10, dtype='i4', fill_value=3.7
shape=10, dtype='i4', fill_value='42'
shape=10, dtype='i8', fill_value=-2**63
shape=10, dtype='u8', fill_value=2**64 - 1
shape=10, dtype='u1', fill_value=np.uint8(255)
shape=10, dtype='u1', fill_value=True
shape=10, dtype='b1', fill_value=True
shape=10, dtype='b1', fill_value=0
shape=10, dtype='b1', fill_value=3
shape=10, dtype='c8', fill_value=0
shape=10, dtype='c8', fill_value=1.5 - 2j
shape=10, dtype='c16', fill_value=complex('nan+infj')
shape=10, dtype='c16', fill_value=4
shape=10, dtype='M8[ns]'
shape=10, dtype='M8[ns]', fill_value=0
shape=10, dtype='M8[D]', fill_value='1969-12-31'
shape=10, dtype='M8[s]', fill_value='NaT'
shape=10, dtype='M8[ms]', fill_value=np.datetime64('2020-01-01T00:00:00')
shape=10, dtype='>M8[us]', fill_value=-5
shape=10, dtype='m8[h]', fill_value=-24
shape=10, dtype='m8[25s]', fill_value=np.timedelta64('NaT')
shape=10, dtype='S6', fill_value=b'abc'
shape=10, dtype='S6', fill_value='abc'
shape=10, dtype='S6', fill_value=b''
shape=10, dtype='S6', fill_value=0
shape=10, dtype='S2', fill_value=b'abc'
shape=10, dtype='S'
shape=10, dtype='U4', fill_value='\\u00e9x'
shape=10, dtype='U4', fill_value=''
shape=10, dtype='>U4', fill_value=0
shape=10, dtype='V5', fill_value=0
shape=10, dtype='V5', fill_value=b'ab'
shape=10, dtype='V5', fill_value=np.void(b'abcde')
shape=10, dtype=[('a', 'i4'), ('b', 'f8'), ('c', 'S3')]
shape=10, dtype=[('a', 'i4'), ('b', 'f8'), ('c', 'S3')], fill_value=0
shape=10, dtype=[('a', 'i4'), ('b', 'f8'), ('c', 'S3')], fill_value=(1, 2.5, b'xyz')
shape=10, dtype=[('a', '>i2'), ('b', 'f4', (2, 3))], fill_value=0
shape=10, dtype=[('a', 'i1'), ('b', [('c', 'U2'), ('d', 'M8[s]')])], fill_value=0
shape=10, dtype=np.dtype([('a', 'i1'), ('b', 'i4')], align=True)
shape=10, dtype=np.dtype([(('title', 'a'), 'i4')])
shape=10, dtype=[('a', 'i4'), ('b', 'S2')], fill_value=b'\\x01\\x00\\x00\\x00xy'
shape=10, dtype=[('a', 'i4'), ('b', 'O')], object_codec=numcodecs.Pickle()
shape=10, dtype=str
shape=10, dtype='str', fill_value=''
shape=10, dtype=bytes, fill_value=0
shape=10, dtype='array:i4'
shape=10, dtype='array:>f8', filters=[numcodecs.Shuffle(8)]
shape=10, dtype=object, object_codec=numcodecs.MsgPack(), fill_value={'a': [1, None]}
shape=10, dtype='O', object_codec=numcodecs.JSON(), fill_value=0
shape=10, dtype=object, object_codec=numcodecs.VLenUTF8(), filters=[numcodecs.Shuffle(1)], fill_value='missing'
shape=10, dtype=object, filters=[numcodecs.VLenBytes()]
shape=10, dtype=str, object_codec=numcodecs.JSON()
shape=10, dtype='i4', object_codec=numcodecs.JSON()
shape=10, compressor=None
shape=10, compressor='none'
shape=10, compressor=[]
shape=10, compressor='default', filters=[]
shape=10, compressor=numcodecs.Blosc('zstd', 3, numcodecs.Blosc.BITSHUFFLE, 4096)
shape=10, compressor=numcodecs.Zlib(1)
shape=10, compressor=numcodecs.GZip(9)
shape=10, compressor=numcodecs.BZ2(5)
shape=10, compressor=numcodecs.LZ4()
shape=10, compressor=numcodecs.Zstd(7)
shape=10, compressor=numcodecs.LZMA(format=3, filters=[{'id': 3, 'dist': 8}, {'id': 33, 'preset': 1}])
shape=10, dtype='i4', filters=[numcodecs.Delta('i4'), numcodecs.Shuffle(4)]
shape=10, dtype='f8', filters=(numcodecs.FixedScaleOffset(0, 1000, 'f8', 'i2'),), compressor=None
shape=10, dtype='f8', filters=[numcodecs.Quantize(3, 'f8'), numcodecs.AsType('f4', 'f8')]
shape=10, dtype='U3', filters=[numcodecs.Categorize(['a', 'b'], 'U3')]
shape=(10, 20), order='F', dimension_separator='/'
shape=(10, 20), order='f', dimension_separator='.'
shape=(10, 20), order='C', dimension_separator=None
"""


def calls() -> list[str]:
    """Return the parameters of every call, as text."""
    return [line for line in CALLS.splitlines() if line]


def shapes() -> list[tuple[tuple[int, ...], int]]:
    """Return shapes of all sizes, each with the size of an item, the same ones each time."""
    rng = random.Random(1)
    found = []
    for _ in range(1000):
        ndim = rng.randint(0, 5)
        shape = [
            2 ** rng.randint(0, 20) if rng.random() < 0.1 else int(10 ** rng.uniform(-0.3, 5)) for _ in range(ndim)
        ]
        found.append((tuple(shape), rng.choice([0, 1, 2, 3, 4, 8, 16, 100, 2**27])))
    return found


def main() -> None:
    import numcodecs
    import numpy as np
    import zarr

    found = []
    for call in calls():
        parameters = eval(f"dict({call})", {"np": np, "numcodecs": numcodecs})
        store: dict[str, bytes] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zarr.storage.init_array(store, path="foo", **parameters)
        # A document with NaN as a bare token would not survive the fixture's own JSON; text does.
        found.append({"call": call, "zarray": store["foo/.zarray"].decode("ascii")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guesses = [[shape, typesize, zarr.util.guess_chunks(shape, typesize)] for shape, typesize in shapes()]
    writer = f"zarr {zarr.__version__}, numcodecs {numcodecs.__version__}, numpy {np.__version__}"
    target = Path(__file__).with_name("zarr2_documents.json")
    lines = ",\n  ".join(map(json.dumps, guesses))
    head = json.dumps({"writer": writer, "documents": found}, indent=1)
    # One guess a line.
    target.write_text(f'{head[:-2]},\n "guesses": [\n  {lines}\n ]\n}}\n')
    print(len(found), "documents by", writer)


if __name__ == "__main__":
    main()
