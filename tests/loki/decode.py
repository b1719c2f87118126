"""Decodes bodies of Loki pushes without any code of ours: Google's protobuf from push.proto, and cramjam's snappy.

usage: decode.py DIRECTORY
Reads each *.body there and prints a JSON object a line: {"body": name, "bytes": n, "streams": [[labels, [[ns, line,
{name: value}], …]], …]}.
"""

import importlib
import importlib.resources
import json
import pathlib
import sys
import tempfile

import cramjam
from grpc_tools import protoc


def load_messages():
    here = pathlib.Path(__file__).parent
    made = tempfile.mkdtemp()
    wkt = importlib.resources.files("grpc_tools") / "_proto"
    if protoc.main(["protoc", f"-I{here}", f"-I{wkt}", f"--python_out={made}", str(here / "push.proto")]) != 0:
        sys.exit("push.proto can't be compiled")
    sys.path.insert(0, made)
    return importlib.import_module("push_pb2")


def decode(messages, body):
    request = messages.PushRequest()
    request.ParseFromString(bytes(cramjam.snappy.decompress_raw(body)))
    return [
        [
            stream.labels,
            [
                [
                    entry.timestamp.seconds * 1_000_000_000 + entry.timestamp.nanos,
                    entry.line,
                    {pair.name: pair.value for pair in entry.structuredMetadata},
                ]
                for entry in stream.entries
            ],
        ]
        for stream in request.streams
    ]


def main():
    messages = load_messages()
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.body")):
        body = path.read_bytes()
        print(json.dumps({"body": path.stem, "bytes": len(body), "streams": decode(messages, body)}))


main()
