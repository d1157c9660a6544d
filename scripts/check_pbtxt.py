#!/usr/bin/env python3
"""Read every config.pbtxt below the given folders with NVIDIA's own protobuf classes.

usage: check_pbtxt.py FOLDER...     (pip install tritonclient[grpc]; a FOLDER may be a run, or what `benchrun render` wrote)
"""

import pathlib
import sys

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2


def main() -> int:
    files = [file for folder in sys.argv[1:] for file in sorted(pathlib.Path(folder).rglob("config.pbtxt"))]
    wrong = 0
    for file in files:
        text = file.read_text()
        try:
            config = text_format.Parse(text, model_config_pb2.ModelConfig())
            if "${" in text or config.name != file.parent.name:
                raise ValueError("a placeholder is left, or the name is not the folder's")
        except (text_format.ParseError, ValueError) as error:
            wrong += 1
            print(f"{file}: {error}", file=sys.stderr)
    print(f"{len(files) - wrong} of {len(files)} files are model configurations")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main())
