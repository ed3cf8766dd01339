"""The page of Whence: `python app.py [--index DIR] [--host 127.0.0.1] [--port 7860] [--device
auto|cpu|cuda]`.

Also the entry of a Hugging Face Space. Everything it does is in the package `app`.
"""

from __future__ import annotations

import os
import sys

# Read once, when gradio and huggingface_hub are imported: nothing is reported to anyone.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from app.launch import main

if __name__ == "__main__":
    sys.exit(main())
