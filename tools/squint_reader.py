#!/usr/bin/env python3
"""Read Squint model files: the specification (formats/squint.md) as a program, in numpy.

As a command:

    squint_reader.py FILE                         what is in the file
    squint_reader.py FILE --json                  the same for programs, with every value
    squint_reader.py FILE --tensor NAME -o F.npy  one tensor, dequantized, float32
    squint_reader.py FILE --all DIR               every tensor as DIR/NAME.f32, raw little-endian float32
    squint_reader.py FILE --verify                every checksum, and that all padding is zero
    squint_reader.py FILE --graphs                that every module has a graph that is known, and no more than that graph computes

As a library:

    with SquintFile("model.squint") as model:
        model.metadata["general.name"]
        model.bulk_metadata["tokenizer.tokens"]
        model.dequantize("decoder.0.attention.q")     # float32 [rows, columns]

Needs numpy, zstandard and xxhash (tools/requirements.txt). It shares nothing with the Swift reader, so that one tests
the other. Exit codes: 64 bad usage, 65 the file is bad, 66 it cannot be read, 74 the output cannot be written.
"""

import argparse
import json
import math
import mmap
import os
import struct
import sys
from dataclasses import dataclass

import numpy as np
import xxhash
import zstandard

MAGIC = b"\x89SQNT\r\n\x1a"
VERSION = 1
NAMES_GRAPHS = 1  # the feature of files with a graph that is not llama, vit or mlp
HEADER_SIZE = 128
ENTRY_LIMIT = 65_536  # each costs more than its bytes
FRONT_LIMIT = 2 << 20  # header and front are read by every opening: a larger size is damage or malice
BULK_LIMIT = 64 << 20  # so that a small frame cannot fill the memory
ALIGNMENT = 64  # of bulk metadata, tensors, and headers and groups inside a panel
MODULE_ALIGNMENT = 65_536  # the largest page of any board

# Panels: 16 rows, cut into groups of 32 columns, gathered into blocks of 8 groups (the last one up to 15).
PANEL_ROWS = 16
GROUP_COLUMNS = 32
BLOCK_GROUPS = 8


class SquintError(Exception):
    """The file is not as the specification says; the message is one line that names the place."""


# MARK: Element types


@dataclass(frozen=True)
class RowType:
    """Numbers in rows, the last axis innermost, without padding."""

    name: str
    width: int

    def size(self, shape):
        return self.width * math.prod(shape)

    def decode(self, data, shape):
        if self.name == "f32":
            values = data.view("<f4").astype(np.float32)
        elif self.name == "f16":
            values = data.view("<f2").astype(np.float32)
        else:  # bf16 is the upper half of an f32
            values = (data.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
        return values.reshape(shape)


@dataclass(frozen=True)
class PanelType:
    """A quantized matrix in panels; `block_header` gives the bytes of scales in a block of k groups, unpadded."""

    name: str
    group_size: int

    def header_size(self, groups):
        used = {
            "int8": 2 * PANEL_ROWS * groups,  # f16 scale[k][16]
            "int4_f16": 4 * PANEL_ROWS * groups,  # k × (f16 scale[16], f16 minimum[16])
            "int4": 4 * PANEL_ROWS + 24 * groups,  # f16 d[16], f16 dmin[16], k × (u8 low[16], u8 high[8])
        }[self.name]
        return align(used, ALIGNMENT)

    def block_size(self, groups):
        return self.header_size(groups) + groups * self.group_size

    def panel_size(self, columns):
        full, last = blocks(columns)
        return full * self.block_size(BLOCK_GROUPS) + self.block_size(last)

    def size(self, shape):
        rows, columns = shape
        return -(-rows // PANEL_ROWS) * self.panel_size(columns)

    def decode(self, data, shape):
        rows, columns = shape
        panel_size = self.panel_size(columns)
        panels = data.reshape(-1, panel_size)
        full, last = blocks(columns)
        full_size = full * self.block_size(BLOCK_GROUPS)
        result = np.empty(shape, np.float32)
        # A few panels at a time, so that what is computed on the way stays small.
        step = max(1, (4 << 20) // panel_size)
        for first in range(0, len(panels), step):
            part = panels[first : first + step]
            count = len(part)
            pieces = []
            if full:
                head = part[:, :full_size].reshape(count, full, -1)
                piece = self.decode_blocks(head, BLOCK_GROUPS)  # [panels, blocks, 16, 256]
                pieces.append(piece.transpose(0, 2, 1, 3).reshape(count, PANEL_ROWS, -1))
            tail = part[:, full_size:].reshape(count, 1, -1)
            pieces.append(self.decode_blocks(tail, last)[:, 0])
            values = np.concatenate(pieces, axis=2).reshape(count * PANEL_ROWS, -1)
            row = first * PANEL_ROWS
            stop = min(rows, row + count * PANEL_ROWS)
            result[row:stop] = values[: stop - row, :columns]  # rows and columns of padding are left behind
        return result

    def decode_blocks(self, data, groups):
        """Bytes [panels, blocks, block size] to weights [panels, blocks, 16, columns], every step rounded to f32."""
        header_size = self.header_size(groups)
        header, body = data[:, :, :header_size], data[:, :, header_size:]
        u = self.numbers(body, groups)
        if self.name == "int8":
            scale = self.f16(header[:, :, : 32 * groups], groups, PANEL_ROWS)  # [panels, blocks, k, 16]
            weights = spread(scale) * (u - np.float32(128))
        elif self.name == "int4_f16":
            pairs = self.f16(header[:, :, : 64 * groups], groups, 2, PANEL_ROWS)
            scale, minimum = pairs[:, :, :, 0], pairs[:, :, :, 1]
            weights = spread(scale) * u + spread(minimum)
        else:
            pair = self.f16(header[:, :, :64], 2, 1, PANEL_ROWS)
            d, dmin = pair[:, :, 0], pair[:, :, 1]  # [panels, blocks, 1, 16]
            packed = header[:, :, 64 : 64 + 24 * groups].reshape(*header.shape[:2], groups, 24)
            low, high = packed[..., :16], packed[..., 16:]
            # Rows 0 to 7 have the low nibble of high[r], rows 8 to 15 the high nibble of high[r - 8].
            h = np.concatenate([high & 15, high >> 4], axis=-1)  # [panels, blocks, k, 16]
            s = ((low & 15) | ((h & 3) << 4)).astype(np.float32)
            m = ((low >> 4) | (((h >> 2) & 3) << 4)).astype(np.float32)
            weights = spread(d * s) * u - spread(dmin * m)
        assert weights.dtype == np.float32
        return weights.reshape(*data.shape[:2], PANEL_ROWS, groups * GROUP_COLUMNS)

    def numbers(self, body, groups):
        """The stored numbers u of a block's groups as f32 [panels, blocks, 16, k, 32]."""
        leading = body.shape[:2]
        if self.name == "int8":
            quads = body.reshape(*leading, groups, 8, PANEL_ROWS, 4)
        else:
            runs = body.reshape(*leading, groups, 4, 64)
            # Run h holds k-quad 2h in its low nibbles and k-quad 2h + 1 in its high ones.
            quads = np.stack([runs & 15, runs >> 4], axis=4).reshape(*leading, groups, 8, PANEL_ROWS, 4)
        # [.., k, quad, row, column of the quad] to [.., row, k, quad, column of the quad]
        rows = quads.transpose(0, 1, 4, 2, 3, 5)
        return rows.reshape(*leading, PANEL_ROWS, groups, GROUP_COLUMNS).astype(np.float32)

    @staticmethod
    def f16(data, *shape):
        values = np.ascontiguousarray(data).view("<f2").astype(np.float32)
        return values.reshape(*data.shape[:2], *shape)


def blocks(columns):
    """How a row of panels' groups is cut: the number of blocks of 8 groups, and the groups of the last block."""
    groups = -(-columns // GROUP_COLUMNS)
    full = max(1, groups // BLOCK_GROUPS) - 1
    return full, groups - full * BLOCK_GROUPS


def spread(scales):
    """Scales [panels, blocks, k, 16] as [panels, blocks, 16, k, 1], to multiply the numbers of a group with."""
    return scales.transpose(0, 1, 3, 2)[..., np.newaxis]


ELEMENT_TYPES = {
    0: RowType("f32", 4),
    1: RowType("f16", 2),
    2: RowType("bf16", 2),
    16: PanelType("int8", 512),
    17: PanelType("int4", 256),
    18: PanelType("int4_f16", 256),
}


# MARK: Header and tables


@dataclass(frozen=True)
class Header:
    features: int
    file_size: int
    front_size: int
    bulk_offset: int
    bulk_size: int
    bulk_decoded_size: int
    bulk_checksum: int
    metadata_count: int
    module_count: int
    tensor_count: int
    bulk_metadata_count: int


@dataclass(frozen=True)
class Module:
    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Tensor:
    name: str
    type: RowType | PanelType
    shape: tuple[int, ...]
    module: Module
    offset: int
    size: int
    checksum: int


@dataclass(frozen=True)
class Value:
    """A metadata value with its kind; `data` is a bool, int, float, str, bytes or a list of one of these."""

    kind: str
    data: object


class Cursor:
    """Takes fields from a byte string, and refuses to run past its end."""

    def __init__(self, data, place):
        self.data = data
        self.place = place
        self.position = 0

    def bytes(self, count, what):
        if count > len(self.data) - self.position:
            place = f"{self.place}: {what} at byte {self.position}"
            raise SquintError(f"{place} runs past the end ({len(self.data)} bytes)")
        self.position += count
        return bytes(self.data[self.position - count : self.position])

    def fields(self, layout, what):
        return struct.unpack("<" + layout, self.bytes(struct.calcsize("<" + layout), what))

    def text(self, count, what):
        return utf8(self.bytes(count, what), f"{self.place}: {what}")

    def name(self, count, what):
        data = self.bytes(count, what)
        if not data or any(byte < 0x21 or byte > 0x7E or byte == ord("/") for byte in data):
            raise SquintError(f"{self.place}: {what} has bytes that a name cannot have")
        return data.decode("ascii")

    def finish(self):
        rest = len(self.data) - self.position
        if rest:
            raise SquintError(f"{self.place}: {rest} bytes are left over after the last entry")


def read_metadata(cursor, count):
    """`count` entries as a dictionary; values of an unknown kind are skipped."""
    if count > ENTRY_LIMIT:
        raise SquintError(f"{cursor.place}: {count} entries of metadata; at most {ENTRY_LIMIT} are allowed")
    entries, seen = {}, set()
    for index in range(count):
        what = f"metadata entry {index}"
        key_size, kind, reserved, size = cursor.fields("HBBI", what)
        key = cursor.name(key_size, f"the key of {what}")
        if reserved:
            raise SquintError(f"{cursor.place}: metadata {quoted(key)} has a reserved field that is not zero")
        if key in seen:
            raise SquintError(f"{cursor.place}: metadata {quoted(key)} appears twice")
        seen.add(key)
        data = cursor.bytes(size, f"the value of metadata {quoted(key)}")
        value = read_value(kind, data, f"{cursor.place}: metadata {quoted(key)}")
        if value is not None:
            entries[key] = value
    return entries


def read_value(kind, data, place):
    def require(good):
        if not good:
            raise SquintError(f"{place}: {len(data)} bytes are no value of kind {kind}")

    if kind == 0:
        require(data in (b"\0", b"\1"))
        return Value("boolean", data == b"\1")
    if kind == 1:
        require(len(data) == 8)
        return Value("integer", struct.unpack("<q", data)[0])
    if kind == 2:
        require(len(data) == 8)
        return Value("number", struct.unpack("<d", data)[0])
    if kind == 3:
        return Value("text", utf8(data, place))
    if kind == 4:
        return Value("bytes", data)
    if kind == 5:
        require(len(data) % 8 == 0)
        return Value("integers", np.frombuffer(data, "<i8").tolist())
    if kind == 6:
        require(len(data) % 8 == 0)
        return Value("numbers", np.frombuffer(data, "<f8").tolist())
    if kind == 7:
        texts, cursor = [], Cursor(data, place)
        while cursor.position < len(data):
            (size,) = cursor.fields("I", f"text {len(texts)}")
            texts.append(cursor.text(size, f"text {len(texts)}"))
        return Value("texts", texts)
    return None


def read_modules(cursor, count, start, file_size):
    """The module table; modules lie between `start` and the end of the file."""
    modules, names, end = [], set(), start
    for index in range(count):
        what = f"module {index}"
        name_size, reserved1, reserved2, offset, size = cursor.fields("HHIQQ", what)
        name = cursor.name(name_size, f"the name of {what}")
        place = f"module {quoted(name)}"
        if reserved1 or reserved2:
            raise SquintError(f"{place}: a reserved field is not zero")
        if name in names:
            raise SquintError(f"{place}: appears twice")
        if offset % MODULE_ALIGNMENT:
            raise SquintError(f"{place}: offset {offset} is not a multiple of {MODULE_ALIGNMENT}")
        if offset < end:
            raise SquintError(f"{place}: offset {offset} overlaps what is before it, which ends at {end}")
        if offset + size > file_size:
            raise SquintError(f"{place}: {size} bytes at offset {offset} run past the file's end ({file_size} bytes)")
        names.add(name)
        modules.append(Module(name, offset, size))
        end = offset + size
    return modules


def read_tensors(cursor, count, modules):
    tensors, end = {}, 0
    for index in range(count):
        what = f"tensor {index}"
        name_size, code, axes, module_index, offset, size, checksum = cursor.fields("HBBIQQQ", what)
        if not 1 <= axes <= 4:
            raise SquintError(f"{what}: {axes} axes; there may be 1 to 4")
        shape = cursor.fields(f"{axes}Q", f"the shape of {what}")
        name = cursor.name(name_size, f"the name of {what}")
        place = f"tensor {quoted(name)}"
        if name in tensors:
            raise SquintError(f"{place}: appears twice")
        if code not in ELEMENT_TYPES:
            raise SquintError(f"{place}: element type {code} is unknown")
        element_type = ELEMENT_TYPES[code]
        if isinstance(element_type, PanelType) and axes != 2:
            raise SquintError(f"{place}: {element_type.name} is stored in panels and takes two axes, not {axes}")
        if 0 in shape:
            raise SquintError(f"{place}: shape {list(shape)} has an axis of zero")
        # Python's integers do not overflow; a product that would in 64 bits cannot be the size below either.
        if size != element_type.size(shape):
            raise SquintError(
                f"{place}: {size} bytes; {element_type.name} {list(shape)} takes {element_type.size(shape)}"
            )
        if module_index >= len(modules):
            raise SquintError(f"{place}: is in module {module_index} of {len(modules)}")
        module = modules[module_index]
        if offset % ALIGNMENT:
            raise SquintError(f"{place}: offset {offset} is not a multiple of {ALIGNMENT}")
        if offset < end:
            raise SquintError(f"{place}: offset {offset} is inside the tensor before it, which ends at {end}")
        if offset < module.offset or offset + size > module.offset + module.size:
            raise SquintError(f"{place}: {size} bytes at offset {offset} are not inside module {quoted(module.name)}")
        tensors[name] = Tensor(name, element_type, shape, module, offset, size, checksum)
        end = offset + size
    return tensors


# MARK: The file


class SquintFile:
    """A model file, mapped. Everything in the header and the front is checked at opening.

    metadata: key to value (bool, int, float, str, bytes, list); `metadata_values` has the kinds too.
    modules: list of Module, in file order. tensors: name to Tensor, in file order.
    """

    def __init__(self, path):
        self.path = os.fspath(path)
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._bulk = None
        self._read_header()
        self._read_front()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._bytes = None
        if isinstance(self._map, mmap.mmap):
            self._map.close()

    def _read_header(self):
        data = bytes(self._bytes[:HEADER_SIZE])
        if data[: len(MAGIC)] != MAGIC:
            raise SquintError("the magic is missing: not a Squint model file, or damaged by a transfer in text mode")
        if len(data) < HEADER_SIZE:
            raise SquintError(f"the file has {len(data)} bytes, less than a header; the download is incomplete")
        version, *fields = struct.unpack_from("<IIQQQQQQIIII", data, 8)
        # Another version may differ in everything that follows.
        if version != VERSION:
            raise SquintError(f"format version {version}; this reader knows version {VERSION}")
        header = Header(*fields)
        if header.features & ~NAMES_GRAPHS:
            raise SquintError(f"requires features {header.features:#x} that this reader does not know")
        if header.file_size != len(self._bytes):
            shorter = "; the download is incomplete" if len(self._bytes) < header.file_size else ""
            raise SquintError(f"the file has {len(self._bytes)} bytes, its header says {header.file_size}{shorter}")
        if header.front_size > FRONT_LIMIT:
            raise SquintError(f"a front of {header.front_size} bytes; at most {FRONT_LIMIT} are allowed")
        if max(header.metadata_count, header.module_count, header.tensor_count) > header.front_size // 8:
            raise SquintError(f"a front of {header.front_size} bytes has no room for the rows that the header counts")
        front_end = HEADER_SIZE + header.front_size
        if front_end > header.file_size:
            raise SquintError(f"the front ({header.front_size} bytes) runs past the end of the file")
        (checksum,) = struct.unpack_from("<Q", data, 120)
        front = bytes(self._bytes[HEADER_SIZE:front_end])
        if checksum != xxhash.xxh3_64_intdigest(data[:120] + front):
            raise SquintError("the checksum of the header does not match; the file is damaged")
        if any(data[80:120]):
            raise SquintError("header: a reserved field is not zero")
        if header.bulk_offset % ALIGNMENT:
            raise SquintError(f"bulk metadata: offset {header.bulk_offset} is not a multiple of {ALIGNMENT}")
        if header.bulk_offset < front_end:
            raise SquintError(f"bulk metadata: offset {header.bulk_offset} is inside the front")
        if header.bulk_offset + header.bulk_size > header.file_size:
            raise SquintError("bulk metadata: runs past the end of the file")
        if header.bulk_decoded_size > BULK_LIMIT:
            raise SquintError(f"bulk metadata: {header.bulk_decoded_size} bytes decoded; at most {BULK_LIMIT} may be")
        if not header.bulk_size and (header.bulk_decoded_size or header.bulk_metadata_count):
            raise SquintError(f"bulk metadata: {header.bulk_metadata_count} entries in no bytes")
        self.header = header
        self._front = front

    def _read_front(self):
        header = self.header
        cursor = Cursor(self._front, "front")
        self.metadata_values = read_metadata(cursor, header.metadata_count)
        self.metadata = {key: value.data for key, value in self.metadata_values.items()}
        bulk_end = header.bulk_offset + header.bulk_size
        self.modules = read_modules(cursor, header.module_count, bulk_end, header.file_size)
        self.tensors = read_tensors(cursor, header.tensor_count, self.modules)
        cursor.finish()

    @property
    def bulk_metadata_values(self):
        """Key to Value of the bulk metadata, decompressed and checked at the first use."""
        if self._bulk is None:
            self._bulk = self._read_bulk()
        return self._bulk

    @property
    def bulk_metadata(self):
        return {key: value.data for key, value in self.bulk_metadata_values.items()}

    def _read_bulk(self):
        header, place = self.header, "bulk metadata"
        frame = bytes(self._bytes[header.bulk_offset : header.bulk_offset + header.bulk_size])
        if xxhash.xxh3_64_intdigest(frame) != header.bulk_checksum:
            raise SquintError(f"{place}: the checksum does not match; the file is damaged")
        if not frame:
            return {}
        try:
            # The frame may name its decoded size, and the decoder believes it: compare before it allocates.
            if zstandard.frame_content_size(frame) not in (-1, header.bulk_decoded_size):
                raise SquintError(f"{place}: the frame's decoded size is not the header's")
            decoder = zstandard.ZstdDecompressor()
            data = decoder.decompress(frame, max_output_size=header.bulk_decoded_size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise SquintError(f"{place}: {error}") from None
        if len(data) != header.bulk_decoded_size:
            raise SquintError(f"{place}: decodes to {len(data)} bytes, the header says {header.bulk_decoded_size}")
        cursor = Cursor(data, place)
        entries = read_metadata(cursor, header.bulk_metadata_count)
        cursor.finish()
        return entries

    def tensor_bytes(self, name):
        """The bytes of a tensor as they are stored."""
        tensor = self.tensors[name]
        return self._bytes[tensor.offset : tensor.offset + tensor.size]

    def dequantize(self, name):
        """The tensor's values as float32 of its shape, each operation rounded to float32."""
        tensor = self.tensors[name]
        return tensor.type.decode(self.tensor_bytes(name), tensor.shape)

    def verify(self):
        """Reads the whole file: every checksum, and that all that lies between the parts is zero."""
        self.bulk_metadata_values
        for name, tensor in self.tensors.items():
            if xxhash.xxh3_64_intdigest(self.tensor_bytes(name)) != tensor.checksum:
                raise SquintError(f"tensor {quoted(name)}: the checksum does not match; the file is damaged")
        header = self.header
        parts = [(0, HEADER_SIZE + header.front_size), (header.bulk_offset, header.bulk_size)]
        parts += [(tensor.offset, tensor.size) for tensor in self.tensors.values()]
        parts.append((header.file_size, 0))
        end = 0
        for offset, size in parts:
            # Gaps are alignment, but a hostile one may be large: look at it piece by piece.
            for start in range(end, offset, 1 << 24):
                gap = self._bytes[start : min(offset, start + (1 << 24))]
                if gap.any():
                    raise SquintError(f"byte {start + int(gap.argmax())} is padding and not zero; the file is damaged")
            end = offset + size


    def check_graphs(self):
        """Refuses what formats/decoder.md and formats/vision.md have no computation for: graphs, tensors, needed keys."""
        known = set()
        for module in self.modules:
            graphs = next((g for prefix, g in GRAPHS.items() if (module.name + ".").startswith(prefix)), None)
            if graphs is None:
                raise SquintError(f"module {quoted(module.name)}: no decoder, encoder or projector")
            name = self.metadata.get(f"{module.name}.graph", next(iter(graphs)))
            if name not in graphs:
                raise SquintError(f"metadata {module.name}.graph: {quoted(str(name))} is unknown ({', '.join(graphs)})")
            graph = graphs[name]
            known |= {f"{module.name}.{key}" for key in ["graph", *graph.keys.split()]}
            layers = graph.layers(self.metadata, module.name)
            for tensor in self.tensors.values():
                if tensor.module is module and not graph.has(tensor.name, module.name, layers):
                    raise SquintError(f"tensor {quoted(tensor.name)}: the graph {name} of {module.name} has none of it")
        for key in self.metadata.get("general.needs", []):
            if key not in known:
                raise SquintError(f"metadata general.needs: {quoted(key)} is unknown")


# MARK: Graphs


@dataclass(frozen=True)
class Graph:
    """The keys of a module, without the module's name, and its tensors, with N for the number of a layer."""

    keys: str
    tensors: str
    biases: str  # tensors that may have a bias, or always have one

    def layers(self, metadata, module):
        if "widths" in self.keys.split():
            return len(metadata.get(f"{module}.widths", [])) - 1
        return metadata.get(f"{module}.layers", 0)

    def has(self, name, module, layers):
        if not name.startswith(module + "."):
            return False
        parts = name[len(module) + 1 :].split(".")
        if parts[0].isdigit():
            if parts[0] != str(int(parts[0])) or int(parts[0]) >= layers:
                return False
            parts[0] = "N"
        if parts[-1] == "bias":
            return ".".join(parts[:-1]) in self.biases.split()
        return ".".join(parts) in self.tensors.split() + self.biases.split()


SIZES = "architecture vocabulary context layers width rope_scaling"
ATTENTION = "heads kv_heads head_width norm_epsilon"
ENDS = "embedding norm head"
ATTENTION_MATRICES = "N.attention.q N.attention.k N.attention.v N.attention.o"
FFN_MATRICES = "N.ffn.gate N.ffn.up N.ffn.down"
HEAD_NORMS = "N.attention.q_norm N.attention.k_norm"
NORMS = f"N.attention.norm N.ffn.norm {HEAD_NORMS}"

# By what the names of modules begin with; the first graph is that of files which name none.
GRAPHS = {
    "decoder.": {
        "llama": Graph(
            keys=f"{SIZES} {ATTENTION} ffn_width window window_layers rope_frequencies rope_magnitude",
            tensors=f"{ENDS} {NORMS}",
            biases=f"{ATTENTION_MATRICES} {FFN_MATRICES}",
        ),
        "gemma3": Graph(
            keys=f"{SIZES} {ATTENTION} ffn_width embedding_scale window window_layers rope_frequencies "
            "window_rope_frequencies",
            tensors=f"{ENDS} {NORMS} N.attention.post_norm N.ffn.post_norm",
            biases=f"{ATTENTION_MATRICES} {FFN_MATRICES}",
        ),
        "lfm2": Graph(
            keys=f"{SIZES} {ATTENTION} ffn_width attention_layers convolution_width rope_frequencies",
            tensors=f"{ENDS} {NORMS} N.convolution.norm",
            biases=f"{ATTENTION_MATRICES} {FFN_MATRICES} N.convolution.in N.convolution.kernel N.convolution.out",
        ),
        "qwen3moe": Graph(
            keys=f"{SIZES} {ATTENTION} experts experts_per_token expert_width normalizes_experts dense_layers ffn_width window "
            "rope_frequencies rope_magnitude rope_axes",
            tensors=f"{ENDS} {NORMS} N.ffn.router N.ffn.experts.gate_up N.ffn.experts.down",
            biases=f"{ATTENTION_MATRICES} {FFN_MATRICES}",
        ),
    },
    "encoder.": {
        "vit": Graph(
            keys="architecture layers width ffn_width heads patch grid positions norm_epsilon activation feature_layers "
            "drops_class",
            tensors="class positions",
            biases=f"patch pre_norm N.attention.norm {ATTENTION_MATRICES} N.ffn.norm N.ffn.up N.ffn.down norm",
        ),
        "gin": Graph(
            keys="architecture layers width ffn_width elements chiralities bond_types bond_directions",
            tensors="element chirality N.bond_type N.bond_direction N.epsilon",
            biases="N.ffn.up N.ffn.down",
        ),
    },
    "projector.": {
        "mlp": Graph(keys="widths shuffle activation norm_epsilon", tensors="", biases="norm N"),
    },
}


# MARK: Helpers


def align(size, alignment):
    return -(-size // alignment) * alignment


def utf8(data, place):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SquintError(f"{place}: byte {error.start} is not UTF-8") from None


def quoted(text, limit=100):
    """A text from the file for people: on one line, without control characters, and short."""
    return json.dumps(text if len(text) <= limit else text[:limit] + "…", ensure_ascii=not text.isprintable())


# MARK: Command


def shown(value):
    """A value in one short line."""
    data = value.data
    if isinstance(data, list):
        head = ", ".join(quoted(item, 20) if isinstance(item, str) else str(item) for item in data[:6])
        return f"[{len(data)}] {head}{', …' if len(data) > 6 else ''}"
    if isinstance(data, bytes):
        return f"{len(data)} bytes"
    return quoted(data) if isinstance(data, str) else str(data)


def summary(model):
    yield f"{quoted(model.path)}: {model.header.file_size:,} bytes, version {VERSION}"
    for title, values in (("metadata", model.metadata_values), ("bulk metadata", model.bulk_metadata_values)):
        yield f"\n{title}: {len(values)} entries"
        for key, value in values.items():
            yield f"  {quoted(key)[1:-1]:36} {value.kind:9} {shown(value)}"
    for module in model.modules:
        yield f"\nmodule {quoted(module.name)}: {module.size:,} bytes at {module.offset:,}"
        for tensor in model.tensors.values():
            if tensor.module is module:
                shape = " × ".join(map(str, tensor.shape))
                name = quoted(tensor.name)[1:-1]
                yield f"  {name:36} {tensor.type.name:9} {shape:18} {tensor.size:>14,} bytes at {tensor.offset:,}"


def as_json(model):
    def plain(data):
        if isinstance(data, bytes):
            return data.hex()
        if isinstance(data, list):
            return [plain(item) for item in data]
        if isinstance(data, float) and not math.isfinite(data):
            return str(data)  # JSON has no nan and no infinity
        return data

    def entries(values):
        return {key: {"kind": value.kind, "value": plain(value.data)} for key, value in values.items()}

    return {
        "size": model.header.file_size,
        "metadata": entries(model.metadata_values),
        "bulk_metadata": entries(model.bulk_metadata_values),
        "modules": [{"name": m.name, "offset": m.offset, "size": m.size} for m in model.modules],
        "tensors": [
            {
                "name": t.name,
                "type": t.type.name,
                "shape": list(t.shape),
                "module": t.module.name,
                "offset": t.offset,
                "size": t.size,
                "checksum": f"{t.checksum:016x}",
            }
            for t in model.tensors.values()
        ],
    }


def write_all(model, folder):
    os.makedirs(folder, exist_ok=True)
    for name in model.tensors:
        # Names come from the file: one must not lead out of the folder.
        if "/" in name or "\0" in name or os.sep in name:
            raise SquintError(f"tensor {quoted(name)}: the name cannot be a file's")
        model.dequantize(name).astype("<f4").tofile(os.path.join(folder, name + ".f32"))


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(64, f"{self.prog}: {message}\n")


def main():
    parser = Parser(description="Read a Squint model file.")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print everything but the weights as JSON")
    parser.add_argument("--tensor", metavar="NAME", help="write one tensor, dequantized, as .npy (with -o)")
    parser.add_argument("-o", dest="output", metavar="F.npy")
    parser.add_argument("--all", metavar="DIR", help="write every tensor to DIR/NAME.f32, raw little-endian float32")
    parser.add_argument("--verify", action="store_true", help="check every checksum and all padding")
    parser.add_argument("--graphs", action="store_true", help="check that each module has what its graph computes, no more")
    options = parser.parse_args()
    if (options.tensor is None) != (options.output is None):
        parser.error("--tensor NAME and -o F.npy belong together")

    def fail(code, message):
        print(f"{quoted(options.file)[1:-1]}: {message}", file=sys.stderr)
        sys.exit(code)

    try:
        model = SquintFile(options.file)
    except SquintError as error:
        fail(65, error)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        fail(66, getattr(error, "strerror", None) or error)
    if options.tensor is not None and options.tensor not in model.tensors:
        fail(64, f"there is no tensor {quoted(options.tensor)}")
    try:
        if options.verify:
            model.verify()
            print(f"{len(model.tensors)} tensors: all checksums match", file=sys.stderr)
        if options.graphs:
            model.check_graphs()
            print(f"{len(model.modules)} modules: their graphs are known and have all tensors", file=sys.stderr)
        if options.tensor is not None:
            values = model.dequantize(options.tensor)
            with open(options.output, "wb") as file:
                np.save(file, values)
        if options.all is not None:
            write_all(model, options.all)
        if options.json:
            json.dump(as_json(model), sys.stdout, indent=1)
            print()
        elif not (options.verify or options.graphs or options.tensor is not None or options.all is not None):
            print("\n".join(summary(model)))
    except SquintError as error:
        fail(65, error)
    except OSError as error:
        fail(74, error.strerror or error)


if __name__ == "__main__":
    main()
